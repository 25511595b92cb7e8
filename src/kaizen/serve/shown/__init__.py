"""What is kept and found, as JSON-able values: the same for the command line and over HTTP."""
