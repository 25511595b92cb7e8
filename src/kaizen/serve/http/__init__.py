"""The gateway: models behind the wires of OpenAI and Anthropic, and one of our own, for callers with a key."""
