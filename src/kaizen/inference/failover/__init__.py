"""When a model fails or is slow: its health, its circuit, who is asked instead, a second call."""
