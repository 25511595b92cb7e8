"""Nine programs and wrappers of at most 40 lines that try the seams: they need nothing but ``kaizen.core``."""
