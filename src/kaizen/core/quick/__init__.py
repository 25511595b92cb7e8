"""Values that every call makes, made in less time."""
