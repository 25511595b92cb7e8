"""The page at ``/``: what was asked, as it happens, and what it cost."""
