"""What follows from a value alone: its JSON, and what was worked out for a request that comes again."""
