"""Embedders: texts as points."""
