"""Fewer tokens: what of a prompt may go, which strategy takes it, and how much that changes the answers."""
