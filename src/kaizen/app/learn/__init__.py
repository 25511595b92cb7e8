"""The room learn, joined: what its programs and commands need of the process."""
