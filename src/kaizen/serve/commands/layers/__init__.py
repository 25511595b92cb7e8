"""Commands about one layer each."""
