"""Adapters that keep keys and count what callers use: SQLite, PostgreSQL, Redis."""
