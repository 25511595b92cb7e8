"""What passes through the gateway to its provider as it is, with key, limits and record."""
