"""Kaizen: typed programs for language models that improve from their own records."""
