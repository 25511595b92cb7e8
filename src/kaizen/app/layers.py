"""The layers of the onion as the settings want them; ``kaizen.inference.onion`` has their order."""

from __future__ import annotations

from kaizen.inference.onion import Layers
from kaizen.inference.retry import Retries
from kaizen.settings import Settings


def make_layers(settings: Settings) -> Layers:
    """The layers that are on. Each is imported when it is."""
    own = settings.inference
    return Layers(meter=own.meter.enabled)


def retries(settings: Settings) -> Retries:
    """How often and how patiently to ask again."""
    own = settings.inference
    return Retries(own.attempts, own.backoff, own.backoff_max, own.retry_after_max)
