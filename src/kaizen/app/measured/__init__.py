"""What was measured, shown to people: the caches' counts and evidence, and replays of recorded calls."""
