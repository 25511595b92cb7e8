"""Several inputs of one program in a single model call."""

from __future__ import annotations

from typing import Any

from pydantic import TypeAdapter
from pydantic.fields import FieldInfo
from pydantic_core import from_json

from kaizen.core.answer import Answer
from kaizen.core.context import Context
from kaizen.core.message import Message
from kaizen.core.params import NOTHING
from kaizen.core.request import OutputSchema
from kaizen.core.spec import Field, Spec, dump


class Packed:
    def __init__(self, inner: Spec) -> None:
        rows = Field("rows", "input", list[dict[str, Any]], FieldInfo(annotation=list[dict[str, Any]]))
        answers = Field("answers", "output", list[dict[str, Any]], FieldInfo(annotation=list[dict[str, Any]]))
        self.inner, self.spec = inner, Spec(f"{inner.name}.packed", inner.doc, [rows, answers])

    async def __call__(self, ctx: Context, /, **inputs: Any) -> Answer:
        rows = [self.inner.validate_inputs(row) for row in inputs["rows"]]
        size = len(rows)
        schema = {"type": "array", "items": self.inner.output_schema, "minItems": size, "maxItems": size}
        reply = await ctx.complete(
            ctx.request(
                ctx.params(self.inner, NOTHING).model or "",
                (Message.of("system", self.inner.doc), Message.of("user", dump(rows).decode())),
                output=OutputSchema("packed", schema),
            )
        )
        replies = TypeAdapter(list[dict[str, Any]]).validate_python(from_json(reply.text))
        return Answer.of({"answers": [self.inner.validate_outputs(one) for one in replies]}, inputs=inputs)
