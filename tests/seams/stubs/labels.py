"""A choice scored by the log-probabilities of its labels' first tokens: one token is written, whatever the label."""

from __future__ import annotations

import math
from typing import Any, get_args

from kaizen.core.answer import Answer
from kaizen.core.context import Context
from kaizen.core.message import Message
from kaizen.core.params import NOTHING
from kaizen.core.request import Decoding
from kaizen.core.spec import Spec


class LabelScorer:
    def __init__(self, spec: Spec) -> None:
        self.spec = spec
        (self.field,) = spec.outputs.values()

    async def __call__(self, ctx: Context, /, **inputs: Any) -> Answer:
        labels: tuple[str, ...] = get_args(self.field.annotation)
        asked = f"{self.spec.doc}\nOne of: {', '.join(labels)}"
        reply = await ctx.complete(
            ctx.request(
                ctx.params(self.spec, NOTHING).model or "",
                (Message.of("system", asked), Message.of("user", str(inputs))),
                decoding=Decoding(max_tokens=1, temperature=0.0),
                top_logprobs=20,
            )
        )
        mass = dict.fromkeys(labels, 0.0)
        for token, logprob in reply.logprobs[0].top:
            for label in labels:
                if token.strip() and label.startswith(token.strip()):
                    mass[label] += math.exp(logprob)
        return self.spec.answer_type.of({self.field.name: max(labels, key=mass.__getitem__)}, inputs=inputs)
