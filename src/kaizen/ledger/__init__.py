"""What was done: appending it, reading it, and the views of it."""
