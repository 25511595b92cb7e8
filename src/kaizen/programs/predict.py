"""A signature run on a model: render, ask, parse, and one budgeted repair."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

from pydantic import ValidationError

from kaizen.core.answer import Answer
from kaizen.core.context import Context
from kaizen.core.errors import ContentFiltered, OutputInvalid
from kaizen.core.message import Message
from kaizen.core.params import NOTHING, Params
from kaizen.core.request import Reply, Request
from kaizen.core.spec import Spec
from kaizen.inference.streams import closing
from kaizen.programs.parse import Misfit, parse_reply
from kaizen.programs.partial import partial_outputs
from kaizen.programs.render import Plan, plan, render

_PLANS_KEPT: Final = 64


class Predict:
    """The Program behind a signature.

    Args:
        spec: the contract.
        own: params of this program that come before the defaults.
    """

    def __init__(self, spec: Spec, own: Params = NOTHING) -> None:
        self.spec, self.own = spec, own
        # by identity of the params, which the runner resolves once; holding them keeps the ids unique
        self._plans: dict[int, tuple[Params, Plan]] = {}

    async def __call__(self, ctx: Context, /, **inputs: Any) -> Answer:
        """Ask the model; a reply that misfits is shown back to it ``params.repairs`` times.

        Raises:
            OutputInvalid: if no reply fits.
            ProviderError: if the model could not be asked.
        """
        spec = self.spec
        given = inputs
        fed = await feed(ctx, spec, inputs) if spec.fed else {}
        if fed:
            given = inputs | fed
        params = ctx.params(spec, self.own)
        stable = self._plan(params)
        request = ctx.request(params.model or "", render(stable, given), output=stable.output, decoding=stable.decoding)
        for repairs_left in range(params.repairs or 0, -1, -1):
            asked = self._streamed(ctx, request, stable) if ctx.streaming else ctx.complete(request)
            reply = unfiltered(await asked)
            try:
                outputs = parse_reply(spec, reply, stable.mode)
            except Misfit as misfit:
                if not repairs_left:
                    raise invalid(spec, reply, misfit) from None
                messages = (*request.messages, *shown_back(reply, misfit))
                request = replace(request, messages=messages)
            else:
                return spec.answer_type.of(fed | outputs if fed else outputs, inputs=inputs)
        raise AssertionError("the loop above returns or raises")

    def _plan(self, params: Params) -> Plan:
        known = self._plans.get(id(params))
        if known is None:
            if len(self._plans) >= _PLANS_KEPT:
                self._plans.clear()
            known = self._plans[id(params)] = (params, plan(self.spec, params))
        return known[1]

    async def _streamed(self, ctx: Context, request: Request, stable: Plan) -> Reply:
        text, shown = "", {}
        reply: Reply | None = None
        async with closing(ctx.stream(request)) as chunks:
            async for chunk in chunks:
                if chunk.reply is not None:
                    reply = chunk.reply
                if not chunk.text:
                    continue
                text += chunk.text
                outputs = partial_outputs(self.spec, text, stable.mode)
                if outputs != shown:
                    shown = outputs
                    ctx.emit(self.spec.name, outputs)
        assert reply is not None  # noqa: S101 - the runner's streams end with a Reply or raise
        return reply


async def feed(ctx: Context, spec: Spec, inputs: dict[str, Any]) -> dict[str, Any]:
    """Run the programs that fill intermediates, in the order declared; later ones may read earlier ones.

    Raises:
        OutputInvalid: if what one gave does not fit the field it fills.
    """
    known = dict(inputs)
    fed: dict[str, Any] = {}
    for name, field in spec.fed.items():
        wanted = field.feeds.spec
        answer = await ctx.call(field.feeds, **{key: known[key] for key in wanted.inputs if key in known})
        source = name if name in wanted.outputs else next(iter(wanted.outputs))
        try:
            fed[name] = known[name] = spec.adapters[name].validate_python(answer.outputs[source])
        except ValidationError as error:
            problem = error.errors(include_url=False, include_input=False)[0]["msg"]
            said = f"{spec.name}: what {wanted.name} gave does not fit the field '{name}'"
            raise OutputInvalid(said, reply="", problem=problem) from None
    return fed


def unfiltered(reply: Reply) -> Reply:
    """The same reply.

    Raises:
        ContentFiltered: if the provider withheld it, which no repair can change.
    """
    if reply.finish == "content_filter":
        raise ContentFiltered("the provider withheld the answer on grounds of content", model=reply.model)
    return reply


def shown_back(reply: Reply, misfit: Misfit) -> tuple[Message, Message]:
    """A repair's messages: the reply, and what is wrong with it."""
    said = f"This answer does not fit: {misfit.problem}.\nAnswer again, in the form asked for."
    return Message.of("assistant", reply.text), Message.of("user", said)


def invalid(spec: Spec, reply: Reply, misfit: Misfit) -> OutputInvalid:
    """The error of a reply that no repair is left for."""
    return OutputInvalid(
        f"{spec.name}: the answer of {reply.model} does not fit the contract",
        reply=reply.text,
        problem=misfit.problem,
        detail={"program": spec.name, "model": reply.model},
    )
