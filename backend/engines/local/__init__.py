"""The engine process: one frozen base, many LoRA adapters, OpenAI's protocol. torch lives here."""
