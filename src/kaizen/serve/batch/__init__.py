"""A program on each row of a file."""
