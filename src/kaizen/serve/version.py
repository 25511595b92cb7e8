"""The installed version; apart from the rest, since reading metadata costs more to import than the whole overview."""

from __future__ import annotations

from importlib.metadata import version


def text() -> str:
    """What ``kaizen --version`` prints."""
    return f"kaizen {version('kaizen-engine')}"
