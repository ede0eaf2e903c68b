"""Where answers come from: a client for OpenAI-compatible servers, our engine process, and a scripted engine."""
