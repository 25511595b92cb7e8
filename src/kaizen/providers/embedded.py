"""The embedded model: llama.cpp inside this process, as a Provider."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path

from kaizen.core.errors import KaizenError, ProviderError, Unavailable
from kaizen.core.request import Chunk, Reply, Request
from kaizen.providers.errors import Origin
from kaizen.providers.llama import Generation, LlamaOptions, default_threads, llama_model
from kaizen.providers.llama_chat import ChatReading, completion_body
from kaizen.providers.weights import missing_weights


class EmbeddedProvider:
    """Asks GGUF models that llama.cpp runs in this process. Satisfies ``Provider``; needs no closing.

    All providers of a process share one loaded copy of a model. It is loaded at the first call, off the event
    loop, and serves any number of loops. A forked child may load its own if its
    parent had not. Calls beyond ``slots`` wait in order.

    A call is stopped (cancelled, stream closed, deadline) at the next token, or while its prompt is read
    after at most 128 tokens more. Where ``Request.decoding`` says nothing, it is greedy and writes at most 512
    tokens. Log-probabilities are the model's own, before a grammar rules tokens out.

    The defaults of ``slots`` and ``threads`` are measured, see ``benchmarks/embedded_prefix.py``: a slot more
    answers no more calls a second on few cores, and each slot reads a shared prompt prefix once for itself.

    Args:
        name: the provider's name in the settings, the first part of its refs.
        models: the GGUF file of each model, by the second part of its ref.
        threads: threads that compute; None is one less than the cores.
        slots: calls worked on at once.
        context: tokens that one call's prompt and answer may have together.
    """

    def __init__(
        self,
        name: str,
        models: Mapping[str, Path],
        *,
        threads: int | None = None,
        slots: int = 2,
        context: int = 4096,
    ) -> None:
        self._name = name
        self._origin = Origin(name)
        self._options = {
            model: LlamaOptions(path, threads or default_threads(), slots, context) for model, path in models.items()
        }

    def __repr__(self) -> str:
        return f"EmbeddedProvider({self._name!r}, models={sorted(self._options)})"

    async def complete(self, request: Request, /) -> Reply:
        """The whole answer; see ``Provider.complete``.

        Raises:
            ConfigError: if the model's weights or xllamacpp are missing, or the file is no model.
        """
        reading = ChatReading(request, self._origin)
        async with aclosing(self._pieces(request, each=False)) as pieces:
            async for piece in pieces:
                reading.feed(piece)
        return reading.reply()

    async def stream(self, request: Request, /) -> AsyncGenerator[Chunk, None]:
        """The answer as it is written; see ``Provider.stream``.

        With tools and an output schema both, the answer's text comes in one chunk, since only at its end is it
        known what of it is the answer.

        Raises:
            ConfigError: if the model's weights or xllamacpp are missing, or the file is no model.
        """
        reading = ChatReading(request, self._origin)
        begun = time.monotonic()
        first: float | None = None
        async with aclosing(self._pieces(request, each=True)) as pieces:
            async for piece in pieces:
                if text := reading.feed(piece):
                    first = first or (time.monotonic() - begun) * 1000
                    yield Chunk(text)
        reply = reading.reply()
        if rest := reading.rest:
            first = first or (time.monotonic() - begun) * 1000
            yield Chunk(rest)
        yield Chunk(reply=replace(reply, first_token_ms=first))

    async def _pieces(self, request: Request, *, each: bool) -> AsyncGenerator[bytes, None]:
        """What llama.cpp sends for a request; when this is closed it stops."""
        model = llama_model(self._found(request.model))
        generation = Generation(completion_body(request), each=each, plain=request.plain)
        timer: asyncio.TimerHandle | None = None
        if request.deadline is not None:
            wait = max(0.0, request.deadline - time.monotonic())
            timer = asyncio.get_running_loop().call_later(wait, generation.expire)
        model.submit(generation)
        try:
            async for piece in generation.pieces():
                yield piece
        finally:
            generation.stop()
            if timer is not None:
                timer.cancel()
        if generation.failure is not None:
            raise self._failure(request.model, generation.failure) from None
        if generation.expired:
            raise self._origin.late(request.model, "no answer by the deadline")

    def _found(self, ref: str) -> LlamaOptions:
        name = ref.partition("/")[2] or ref
        options = self._options.get(name)
        if options is None:
            raise missing_weights(f"{self._name}/{name}")
        return options

    def _failure(self, ref: str, failure: Exception) -> KaizenError:
        """What an exception out of xllamacpp is."""
        match failure:
            case KaizenError():
                return failure
            case ValueError():
                # its word for a body it can't read
                said = self._origin.clean(str(failure))
                return ProviderError(
                    f"{self._name} refused the request for {ref}", said=said, provider=self._name, model=ref
                )
            case _:
                said = self._origin.clean(str(failure))
                return Unavailable(f"{self._name} failed on {ref}", said=said, provider=self._name, model=ref)
