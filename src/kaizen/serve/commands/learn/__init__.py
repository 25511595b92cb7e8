"""Commands that evaluate and improve programs."""
