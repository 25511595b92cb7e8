"""Layers round the adapters to models: each is a Provider that wraps a Provider."""
