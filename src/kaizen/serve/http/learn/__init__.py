"""What the gateway takes and shows for programs that learn."""
