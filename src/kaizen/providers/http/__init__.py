"""HTTP: the one place where the wire adapters do I/O."""

from __future__ import annotations

from kaizen.providers.http.answer import Asked, HttpAnswer
from kaizen.providers.http.pool import Gate
from kaizen.providers.http.transport import HttpTransport, TransportSettings

__all__ = ["Asked", "Gate", "HttpAnswer", "HttpTransport", "TransportSettings"]
