"""Versions and labels: what programs are made of, which of it runs, and how it came to be."""
