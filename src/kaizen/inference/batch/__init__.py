"""Calls that wait for others: the vendors' batch APIs, and embeddings made together."""
