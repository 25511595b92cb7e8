"""Programs round a program."""
