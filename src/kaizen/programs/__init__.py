"""Signatures and other programs, and the runner that every call passes through."""
