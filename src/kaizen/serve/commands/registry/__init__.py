"""``kaizen registry``: versions, labels, and how they came to be."""
