"""The embedded default model: how its text is made, how it is trained, its weights."""
