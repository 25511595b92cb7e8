"""A signature run on a model: render, ask, parse, and one budgeted repair."""

from __future__ import annotations

from collections import Counter
from collections.abc import Coroutine
from dataclasses import replace
from functools import lru_cache
from typing import Any, Final

from pydantic import ValidationError

from kaizen.core.answer import Answer
from kaizen.core.context import Context
from kaizen.core.errors import ContentFiltered, OutputInvalid
from kaizen.core.message import Message
from kaizen.core.params import NOTHING, OutputMode, Params
from kaizen.core.request import Decoding, Reply, Request, Spare
from kaizen.core.spec import Spec, dump
from kaizen.inference.streams import closing
from kaizen.programs.prompt.nearest import Likeness
from kaizen.programs.prompt.parse import Misfit, parse_reply
from kaizen.programs.prompt.partial import partial_outputs
from kaizen.programs.prompt.render import Plans, render, showing
from kaizen.programs.together import together
from kaizen.programs.weigh import Weigher, weighs

# Partial outputs are read from all that is written so far. From this length on not after every chunk, but after each
# 64th of the text: their cost then grows with the text, not with its square.
_LONG: Final = 2048
_STEP: Final = 64
# How differently the answers that are voted on are drawn, where the params say nothing of it.
DRAWN: Final = 0.7


class Predict:
    """The Program behind a signature.

    Args:
        spec: the contract.
        own: params of this program that come before the defaults.
    """

    def __init__(self, spec: Spec, own: Params = NOTHING) -> None:
        self.spec, self.own = spec, own
        self._plan, self._likeness = Plans(spec), Likeness(spec)
        self._weigher: Weigher | None = None

    async def __call__(self, ctx: Context, /, **inputs: Any) -> Answer:
        """Ask the model; a reply that misfits is shown back to it ``params.repairs`` times.

        Raises:
            OutputInvalid: if no reply fits.
            ConfigError: ``params.nearest`` where nothing can tell which demos are.
            ProviderError: if the model could not be asked.
        """
        spec = self.spec
        given = inputs
        fed = await feed(ctx, spec, inputs) if spec.fed else {}
        if fed:
            given = inputs | fed
        params = ctx.params(spec, self.own)
        if weighs(params):
            return await self._weighed(ctx, params, given, inputs, fed)
        stable = self._plan(params)
        if params.nearest is not None:
            stable = showing(stable, await self._likeness.nearest(ctx, params.demos, given, params.nearest))
        request = ctx.request(
            params.model or "",
            render(stable, given),
            stable=len(stable.prefix),  # the nearest examples too: what shortens prompts must not take them for turns
            output=stable.output,
            decoding=stable.decoding,
            options=stable.options,
        )
        if (params.votes or 1) > 1:
            outputs = await self._voted(ctx, params, stable.mode, request)
        else:
            outputs = await self._written(ctx, request, stable.mode, params.repairs or 0, ctx.streaming)
        return spec.answer_type.of(fed | outputs if fed else outputs, inputs=inputs)

    async def _written(
        self, ctx: Context, request: Request, mode: OutputMode, repairs: int, streaming: bool
    ) -> dict[str, Any]:
        """What the model writes, once it fits."""
        spec = self.spec
        for repairs_left in range(repairs, -1, -1):
            reply = unfiltered(await (asked(ctx, spec, request, mode) if streaming else ctx.complete(request)))
            try:
                return parse_reply(spec, reply, mode)
            except Misfit as misfit:
                if not repairs_left:
                    raise invalid(spec, reply, misfit) from None
                messages = (*request.messages, *shown_back(reply, misfit))
                request = replace(request, messages=messages)
        raise AssertionError("the loop above returns or raises")

    async def _voted(self, ctx: Context, params: Params, mode: OutputMode, request: Request) -> dict[str, Any]:
        """Of several answers the one that most agree with; those that misfit have no vote. It streams as one piece."""

        async def one(branch: Context, seed: int) -> dict[str, Any] | OutputInvalid:
            drawn = replace(request, decoding=_drawn(request.decoding, seed))
            try:
                return await self._written(branch, drawn, mode, params.repairs or 0, streaming=False)
            except OutputInvalid as misfit:
                return misfit

        first = params.seed or 0
        branches = [(ctx.fork(), first + at) for at in range(params.votes or 1)]
        found = await together(one(*each) for each in branches)
        answers = [each for each in found if isinstance(each, dict)]
        if not answers:
            raise next(each for each in found if isinstance(each, OutputInvalid))
        votes = Counter((name, dump(each[name])) for each in answers for name in self.spec.outputs)
        outputs = max(answers, key=lambda each: sum(votes[name, dump(each[name])] for name in self.spec.outputs))
        ctx.emit(self.spec.name, outputs)
        return outputs

    async def _weighed(
        self, ctx: Context, params: Params, given: dict[str, Any], inputs: dict[str, Any], fed: dict[str, Any]
    ) -> Answer:
        """Another way than to have it written in a conversation; there is no repair, and it streams as one piece."""
        spec = self.spec
        if self._weigher is None:
            self._weigher = Weigher(spec)
        try:
            outputs = await self._weigher(ctx, params, given)
        except Misfit as misfit:
            raise OutputInvalid(
                f"{spec.name}: the answer of {params.model} does not fit the contract",
                reply="",
                problem=misfit.problem,
                detail={"program": spec.name, "model": params.model},
            ) from None
        ctx.emit(spec.name, outputs)
        return spec.answer_type.of(fed | outputs if fed else outputs, inputs=inputs)


@lru_cache(maxsize=1024)
def _drawn(decoding: Decoding, seed: int) -> Decoding:
    """The decoding of one answer of several: the same object each time, since what calls share is known by identity."""
    temperature = DRAWN if decoding.temperature is None else decoding.temperature
    return replace(decoding, temperature=temperature, seed=Spare(seed))


def asked(ctx: Context, spec: Spec, request: Request, mode: OutputMode) -> Coroutine[Any, Any, Reply]:
    """The model's reply; its outputs are shown as they are written, if somebody reads them."""
    return _streamed(ctx, spec, request, mode) if ctx.streaming else ctx.complete(request)


async def _streamed(ctx: Context, spec: Spec, request: Request, mode: OutputMode) -> Reply:
    text, shown, due = "", {}, 0
    reply: Reply | None = None
    async with closing(ctx.stream(request)) as chunks:
        async for chunk in chunks:
            if chunk.reply is not None:
                reply = chunk.reply
            if not chunk.text:
                continue
            text += chunk.text
            if len(text) < due:
                continue
            due = len(text) + len(text) // _STEP if len(text) > _LONG else 0
            outputs = partial_outputs(spec, text, mode)
            if outputs != shown:
                shown = outputs
                ctx.emit(spec.name, outputs)
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
