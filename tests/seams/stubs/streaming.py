"""A streaming predict inside a composite program, and out over server-sent events."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

from pydantic_core import to_json

from kaizen.core.answer import Answer
from kaizen.core.context import Context, Partial, Program
from kaizen.core.message import Message
from kaizen.core.spec import Spec


class Speak:
    def __init__(self, spec: Spec) -> None:
        self.spec = spec

    async def __call__(self, ctx: Context, /, **inputs: Any) -> Answer:
        text = ""
        async for chunk in ctx.stream(ctx.request("test/model", (Message.of("user", str(inputs)),))):
            text += chunk.text
            ctx.emit(self.spec.name, {"text": text})
        return self.spec.answer_type.of({"text": text}, inputs=inputs)


class Composite:
    def __init__(self, spec: Spec, steps: list[Program]) -> None:
        self.spec, self.steps = spec, steps

    async def __call__(self, ctx: Context, /, **inputs: Any) -> Answer:
        answers = [await ctx.call(step, **inputs) for step in self.steps]
        return answers[-1]


async def sse(run: Callable[[Callable[[Partial], None]], Coroutine[Any, Any, Answer]]) -> AsyncIterator[bytes]:
    queue: asyncio.Queue[Partial | None] = asyncio.Queue()
    async with asyncio.TaskGroup() as group:
        task = group.create_task(run(queue.put_nowait))
        task.add_done_callback(lambda _: queue.put_nowait(None))
        while (part := await queue.get()) is not None:
            yield b"data: " + to_json({"step": part.step, **part.outputs}) + b"\n\n"
    yield b"event: done\ndata: " + to_json(task.result().outputs) + b"\n\n"
