"""A program that runs elsewhere: the contract here, the work behind a connection."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from pydantic import ValidationError

from kaizen.core.answer import Answer
from kaizen.core.context import Context
from kaizen.core.errors import OutputInvalid
from kaizen.core.spec import Spec, dump


class Remote:
    def __init__(self, spec: Spec, post: Callable[[bytes], Awaitable[bytes]]) -> None:
        self.spec, self.post = spec, post

    async def __call__(self, ctx: Context, /, **inputs: Any) -> Answer:
        ctx.check_deadline()
        data = await self.post(dump(inputs))
        try:
            return self.spec.load_answer(data, inputs)
        except ValidationError as error:
            problem = str(error.errors(include_input=False, include_url=False))
            raise OutputInvalid(f"{self.spec.name}: misfit from afar", reply="", problem=problem) from None
