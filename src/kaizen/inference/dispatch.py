"""The core of the onion: the adapter that a model ref's first segment names."""

from __future__ import annotations

import difflib
import threading
from collections.abc import AsyncIterator, Callable, Mapping
from types import CoroutineType
from typing import Any

from kaizen.core.errors import NotFound
from kaizen.core.protocols import Provider
from kaizen.core.request import Chunk, Reply, Request
from kaizen.inference.drawn import drawn, drawn_stream


class Dispatch:
    """A Provider that hands each request to the adapter of its provider.

    An adapter is made at the first request that needs it, once, whichever threads and loops ask.

    Args:
        factories: by provider name, what makes its adapter. What a factory raises, such as a ConfigError
            for a key that is not there, reaches the caller; the next request tries again.

    Raises:
        NotFound: from either method, for a ref without a provider or with one that nobody configured.
    """

    def __init__(self, factories: Mapping[str, Callable[[], Provider]]) -> None:
        self._factories = factories
        self._adapters: dict[str, Provider] = {}
        self._making = threading.Lock()

    # plain, not async, as whatever only passes on: thousands of calls wait at once, each with all its frames
    def complete(self, request: Request, /) -> CoroutineType[Any, Any, Reply]:
        """Ask the adapter."""
        adapter = self._adapter(request.model)
        if request.allowance is not None:
            return drawn(request.allowance, adapter, request)
        return adapter.complete(request)

    def stream(self, request: Request, /) -> AsyncIterator[Chunk]:
        """Ask the adapter for a stream."""
        adapter = self._adapter(request.model)
        if request.allowance is not None:
            return drawn_stream(request.allowance, adapter, request)
        return adapter.stream(request)

    def _adapter(self, ref: str) -> Provider:
        name, _, model = ref.partition("/")
        adapter = self._adapters.get(name)
        if adapter is not None and model:
            return adapter
        if not name or not model:
            raise NotFound(
                f"{ref!r} is no model ref: write provider/model; the providers are {self._names()}",
                detail={"model": ref},
            )
        return self._make(name, ref)

    def _make(self, name: str, ref: str) -> Provider:
        factory = self._factories.get(name)
        if factory is None:
            near = difflib.get_close_matches(name, self._factories, n=1)
            hint = f"did you mean {near[0]!r}? " if near else ""
            raise NotFound(
                f"no provider {name!r} for model {ref!r}: {hint}The providers are {self._names()}",
                detail={"provider": name, "model": ref},
            )
        with self._making:
            if name not in self._adapters:
                self._adapters[name] = factory()
            return self._adapters[name]

    def _names(self) -> str:
        return ", ".join(sorted(self._factories)) or "none"
