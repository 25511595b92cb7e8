"""A provider that says what it is told to, for tests that are not about providers."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import replace
from typing import TypeAlias, assert_never

from kaizen.core.request import Chunk, Reply, Request, Usage

Line: TypeAlias = str | Reply | Exception


class ScriptedProvider:
    """Answers each call with the next of its replies, or with what a function makes of the request.

    A str becomes a Reply with a usage of a token a word, marked as estimated; an exception is raised. A
    stream gives the same text in pieces of ``piece`` characters. One answer more than was scripted is an
    AssertionError, so a test sees a call it did not expect.

    Args:
        replies: in the order of the calls, or a function of the Request.
        piece: characters a chunk.

    Attributes:
        requests: what it was asked, in order.
    """

    def __init__(self, replies: Sequence[Line] | Callable[[Request], Line], *, piece: int = 4) -> None:
        self._script = replies if callable(replies) else list(replies)
        self._piece = piece
        self.requests: list[Request] = []

    @property
    def count(self) -> int:
        """How many calls were made."""
        return len(self.requests)

    async def complete(self, request: Request, /) -> Reply:
        """The next reply."""
        return self._next(request)

    async def stream(self, request: Request, /) -> AsyncGenerator[Chunk, None]:
        """The next reply, in pieces."""
        reply = self._next(request)
        for at in range(0, len(reply.text), self._piece):
            yield Chunk(reply.text[at : at + self._piece])
        yield Chunk(reply=replace(reply, first_token_ms=0.0) if reply.text else reply)

    def _next(self, request: Request) -> Reply:
        self.requests.append(request)
        if callable(self._script):
            line = self._script(request)
        elif len(self.requests) > len(self._script):
            raise AssertionError(f"call {len(self.requests)} is one more than was scripted")
        else:
            line = self._script[len(self.requests) - 1]
        match line:
            case Reply():
                return line
            case str():
                words = sum(len(message.text.split()) for message in request.messages)
                usage = Usage(tokens_in=words, tokens_out=len(line.split()), estimated=True)
                return Reply(model=request.model, text=line, usage=usage)
            case Exception():
                raise line
            case _:
                assert_never(line)
