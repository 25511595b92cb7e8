"""What other settings would have saved on the traffic that was recorded: each file replays it in its own way."""
