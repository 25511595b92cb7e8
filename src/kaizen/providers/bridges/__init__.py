"""Providers that ask through another library."""
