"""What is not on the hot path: a FastAPI application, loaded at the first request for one of its paths."""
