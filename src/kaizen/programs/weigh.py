"""Other ways to answer than to write it in a conversation: a text gone on with, values weighed.

Small models know more than they write. Which of an answer's values they find likelier can be read from their
log-probabilities, where what they would write is the label they always write.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import pydantic

from kaizen.core.answer import Answer
from kaizen.core.context import Context
from kaizen.core.errors import ContentFiltered, OutputInvalid, Unsupported
from kaizen.core.message import Message
from kaizen.core.params import NOTHING, Demo, Params, Weights
from kaizen.core.request import NO_OPTIONS, Decoding, OutputSchema, Reply, Request
from kaizen.core.spec import Field, Spec
from kaizen.programs.prompt import plain
from kaizen.programs.prompt.learned import Learned
from kaizen.programs.prompt.nearest import MOST, Classifier, Likeness, nearest
from kaizen.programs.prompt.options import (
    Option,
    chances,
    closed,
    likelihoods,
    log_shares,
    open_text,
    places,
    value_text,
    votes,
)
from kaizen.programs.prompt.parse import Misfit, parse_reply, validated, validated_value, value_at
from kaizen.programs.prompt.render import Plans, render, showing
from kaizen.programs.prompt.spans import SpanFinder

_TOKENS: Final = 48
# Of five proposals the right phrase was one for 51 of 54 values, of twelve for 53 (restaurant8k, 59 rows to learn of).
_PROPOSED: Final = 8
# OpenAI's wire takes no more than 20; the embedded model tells any number.
_CHAT_ALTERNATIVES: Final = 20
_PLAIN_ALTERNATIVES: Final = 100
_KEPT: Final = 64


@dataclass(frozen=True, slots=True)
class Weighed:
    """What speaks for each value that a field can have.

    Args:
        options: the values.
        likely: the model's log-probability of each, in nats.
        near: the logarithm of each one's share among the demos, counted by nearness; None where that is not asked.
        chances: of each, under the weights; they sum to one.
    """

    options: tuple[Option, ...]
    likely: tuple[float, ...]
    near: tuple[float, ...] | None
    chances: tuple[float, ...]

    @property
    def value(self) -> Any:
        """The likeliest."""
        return self.options[max(range(len(self.options)), key=lambda at: self.chances[at])].value


def weighs(params: Params) -> bool:
    """Whether params ask for what is done here; ``nearest`` alone only changes what a conversation shows."""
    return params.layout == "plain" or bool(params.scored)


class Weigher:
    """Answers for one program in these ways.

    Args:
        spec: its contract.
    """

    def __init__(self, spec: Spec) -> None:
        self._spec = spec
        self._plan, self._likeness = Plans(spec), Likeness(spec)
        # by identity of the params, which the runner resolves once; holding them keeps the ids unique
        self._stable: dict[tuple[int, str], tuple[Params, Message]] = {}
        self._classifiers, self._finders = Learned[Classifier](), Learned[SpanFinder]()

    async def __call__(self, ctx: Context, params: Params, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """Typed outputs by name. Each is validated once: a validator may change what it is given.

        Raises:
            ConfigError, Unsupported: see ``weighed``.
            Misfit: what it wrote has not the form asked for, or does not fit the contract.
        """
        outputs, weighed = await self.weighed(ctx, params, inputs)
        if params.layout == "plain":
            return validated(self._spec, outputs)
        return outputs | {name: validated_value(self._spec, name, one.value) for name, one in weighed.items()}

    async def weighed(
        self, ctx: Context, params: Params, inputs: Mapping[str, Any]
    ) -> tuple[dict[str, Any], dict[str, Weighed]]:
        """Outputs by field name, and what spoke for those that were weighed.

        In the plain layout the outputs are not validated yet. In a conversation they are typed, as they were written.

        Raises:
            ConfigError: nearest demos are wanted where nothing can tell which they are, or say what they speak for.
            Unsupported: the model gives no log-probabilities, or goes on with no text.
            Misfit: what it wrote has not the form asked for.
        """
        case = await self._case(ctx, params, inputs)
        if params.layout == "plain":
            return await self._plain(ctx, case)
        return await self._chat(ctx, case)

    async def _case(self, ctx: Context, params: Params, inputs: Mapping[str, Any]) -> _Case:
        scored = params.scored or {}
        if unknown := [name for name in scored if not _can(self._spec, name, params)]:
            raise Unsupported(
                f"{self._spec.name}: the values of '{unknown[0]}' can't be weighed", rules="params.scored"
            )
        near = None
        compared = (one.near for name, one in scored.items() if closed(self._spec, name) is not None)
        if params.demos and (params.nearest is not None or any(compared)):
            near = await self._likeness(ctx, params.demos, inputs)
        points = [] if near is None else await self._likeness.points(ctx, params.demos)
        return _Case(self._spec, params, inputs, near, points)

    # -- in a conversation ------------------------------------------------------------------------

    async def _chat(self, ctx: Context, case: _Case) -> tuple[dict[str, Any], dict[str, Weighed]]:
        spec, params = self._spec, case.params
        stable = self._plan(params)
        if params.nearest is not None:
            stable = showing(stable, case.shown())
        nearby = {name: await self._near(case, name, closed(spec, name) or ()) for name in params.scored or {}}
        if nearby.keys() == spec.written.keys() and not any(map(case.asks, nearby)):
            unasked = {name: case.weigh(name, closed(spec, name) or (), None, near) for name, near in nearby.items()}
            return {name: one.value for name, one in unasked.items()}, unasked
        request = ctx.request(
            params.model or "",
            render(stable, case.inputs),
            output=stable.output,
            decoding=stable.decoding,
            top_logprobs=_CHAT_ALTERNATIVES,
            options=_exactly(params),
        )
        reply = await _asked(ctx, request)
        outputs = parse_reply(spec, reply, stable.mode)
        weighed: dict[str, Weighed] = {}
        for name, near in nearby.items():
            options = closed(spec, name) or ()
            texts, start = value_at(reply.text, stable.mode, name, [one.value for one in options])
            likely = likelihoods(_tokens(reply), texts, start)
            weighed[name] = case.weigh(name, options, likely, near)
        return outputs, weighed

    # -- a text gone on with ----------------------------------------------------------------------

    async def _plain(self, ctx: Context, case: _Case) -> tuple[dict[str, Any], dict[str, Weighed]]:
        spec, params = self._spec, case.params
        weighed: dict[str, Weighed] = {}
        for name in params.scored or {}:
            options = closed(spec, name)
            weighed[name] = await (
                self._copied(ctx, case, name) if options is None else self._chosen(ctx, case, name, options)
            )
        outputs: dict[str, Any] = {name: one.value for name, one in weighed.items()}
        if names := [name for name in spec.written if name not in weighed]:
            several = len(names) > 1 or any(
                "\n" in value_text(demo.outputs.get(names[0])).strip() for demo in params.demos
            )
            decoding = replace(params.decoding, stop=(plain.END if several else "\n", *params.stop))
            reply = await _asked(ctx, replace(self._request(ctx, case, names), decoding=decoding))
            if reply.finish == "length":
                raise Misfit("the answer was cut off at the token limit before it was complete")
            outputs |= plain.read(spec, params, reply.text, names)
        return {name: outputs[name] for name in spec.written}, weighed

    async def _chosen(self, ctx: Context, case: _Case, name: str, options: tuple[Option, ...]) -> Weighed:
        """One of a few values."""
        near = await self._near(case, name, options)
        if not case.asks(name):
            return case.weigh(name, options, None, near)
        texts = [f" {one.text}\n" for one in options]
        reply = await _asked(ctx, self._held(ctx, case, name, texts))
        return case.weigh(name, options, likelihoods(_tokens(reply), texts), near)

    async def _near(self, case: _Case, name: str, options: Sequence[Option]) -> list[float] | None:
        """What the demos say about a field with few values; None where it has no weight."""
        if case.near is None or not (case.params.scored or {})[name].near:
            return None
        demos = case.params.demos
        values = places(demos, name, options)
        if len(demos) > MOST:
            return votes(values, case.near, len(options))
        found = await self._classifiers(case.points, name, lambda: Classifier(case.points, values, len(options)))
        return log_shares(found(case.near))

    async def _copied(self, ctx: Context, case: _Case, name: str) -> Weighed:
        """The likeliest phrase of the inputs, or that there is none: a finder proposes, the model has its say."""
        params = case.params
        nothing = Option(value_text(None), (params.scored or {})[name].absent)
        text = "\n".join(value for value in case.inputs.values() if isinstance(value, str))
        finder = await self._finders(params.demos, name, lambda: _finder(params.demos, name))
        ranked, none = finder.best(text, _PROPOSED)
        ranked = [one for one in ranked if one[0] != nothing.text]
        if not ranked:
            return Weighed((nothing,), (0.0,), None, (1.0,))
        options = (nothing, *(Option(one, one) for one, _ in ranked))
        near = log_shares([none, *(score for _, score in ranked)])
        if not case.asks(name):
            return case.weigh(name, options, None, near)
        texts = [f" {one.text}\n" for one in options]
        reply = await _asked(ctx, self._held(ctx, case, name, texts[1:]))
        return case.weigh(name, options, likelihoods(_tokens(reply), texts), near)

    def _held(self, ctx: Context, case: _Case, name: str, texts: Sequence[str]) -> Request:
        """The request for one field, whose reply is one of these texts."""
        request = self._request(ctx, case, [name])
        return replace(
            request,
            output=OutputSchema("value", {"enum": list(texts)}),
            decoding=Decoding(temperature=0.0, max_tokens=_TOKENS),
            top_logprobs=_PLAIN_ALTERNATIVES,
        )

    def _request(self, ctx: Context, case: _Case, names: Sequence[str]) -> Request:
        params = case.params
        stable = 0
        if params.nearest is None:
            before, stable = self._before(params, names), 1
        else:
            only = names[0] if len(names) == 1 and open_text(self._spec, names[0]) else None
            shown = [params.demos[at] for at in case.shown(only)]
            before = Message.of("user", _examples(self._spec, params, shown, names))
        last = Message.of("user", plain.asked(self._spec, params, case.inputs, names[0]))
        request = ctx.request(params.model or "", (before, last), stable=stable, options=_exactly(params))
        return replace(request, plain=True)

    def _before(self, params: Params, names: Sequence[str]) -> Message:
        key = (id(params), " ".join(names))
        known = self._stable.get(key)
        if known is None:
            if len(self._stable) >= _KEPT:
                self._stable.clear()
            made = Message.of("user", _examples(self._spec, params, params.pool, names))
            known = self._stable[key] = (params, made)
        return known[1]


@dataclass(frozen=True, slots=True)
class _Case:
    """One call: the params, the inputs, and how near each demo lies to them, where that is asked."""

    spec: Spec
    params: Params
    inputs: Mapping[str, Any]
    near: Sequence[float] | None
    points: Sequence[Sequence[float]]

    def shown(self, only: str | None = None) -> Sequence[int]:
        """The places of the demos to show; for a lone field of text half have a value for it, if so many do."""
        demos, count, near = self.params.demos, self.params.nearest, self.near
        every = list(range(len(demos)))
        if count is None or near is None:
            return every
        if only is None:
            return nearest(demos, near, self.points, count, every)
        filled = [at for at in every if demos[at].outputs.get(only)]
        empty = [at for at in every if not demos[at].outputs.get(only)]
        half = max(count - len(filled), min(count // 2, len(empty)))
        chosen = nearest(demos, near, self.points, count - half, filled)
        chosen += nearest(demos, near, self.points, half, empty)
        return sorted(chosen, key=lambda at: near[at])

    def asks(self, name: str) -> bool:
        """Whether the model has a say about a field's value: where its weight is 0 it need not be asked."""
        return bool((self.params.scored or {})[name].model)

    def weigh(
        self, name: str, options: tuple[Option, ...], likely: Sequence[float] | None, near: Sequence[float] | None
    ) -> Weighed:
        likely = [0.0] * len(options) if likely is None else likely
        weights = (self.params.scored or {}).get(name) or Weights()
        found = chances(weights, [one.text for one in options], likely, near)
        return Weighed(options, tuple(likely), None if near is None else tuple(near), tuple(found))


class Reading:
    """A Program that tells what a program's model finds likely, for whoever fits weights.

    Args:
        spec: the program's contract.
        own: the params that come before the defaults.
    """

    def __init__(self, spec: Spec, own: Params = NOTHING) -> None:
        made: Any = pydantic.Field()
        given = (replace(field, role="input", feeds=None) for field in (spec.inputs | spec.fed).values())
        fields = [*given, Field("weighed", "output", dict[str, Any], made)]
        self.spec = Spec(f"{spec.name}:weighed", spec.doc, fields)
        self._own, self._weigher = own, Weigher(spec)

    async def __call__(self, ctx: Context, /, **inputs: Any) -> Answer:
        """By field name: texts of the options, the log-probability and the share of each."""
        params = ctx.params(self.spec, self._own)
        try:
            _, weighed = await self._weigher.weighed(ctx, params, inputs)
        except Misfit as misfit:
            raise OutputInvalid(f"{self.spec.name}: {misfit.problem}", reply="", problem=misfit.problem) from None
        said = {
            name: {
                "texts": [option.text for option in one.options],
                "values": [option.value for option in one.options],
                "likely": list(one.likely),
                "near": None if one.near is None else list(one.near),
            }
            for name, one in weighed.items()
        }
        return Answer.of({"weighed": said}, inputs=inputs)


def _finder(demos: Sequence[Demo], name: str) -> SpanFinder:
    """What finds a field's value in a text, learned from the demos."""
    texts = ["\n".join(one for one in demo.inputs.values() if isinstance(one, str)) for demo in demos]
    return SpanFinder(texts, [_said(demo.outputs.get(name)) for demo in demos])


def _said(value: Any) -> str | None:
    return value if isinstance(value, str) and value_text(value).casefold() != value_text(None) else None


async def _asked(ctx: Context, request: Request) -> Reply:
    reply = await ctx.complete(request)
    if reply.finish == "content_filter":
        raise ContentFiltered("the provider withheld the answer on grounds of content", model=reply.model)
    return reply


def _tokens(reply: Reply) -> Sequence[Any]:
    if not reply.logprobs:
        rule = f"{reply.model} reports no log-probabilities, by which params.scored chooses"
        raise Unsupported(rule, rules=rule)
    return reply.logprobs


def _examples(spec: Spec, params: Params, demos: Sequence[Demo], names: Sequence[str]) -> str:
    return plain.opening(spec, params) + "".join(plain.example(spec, params, demo, names) for demo in demos)


def _can(spec: Spec, name: str, params: Params) -> bool:
    if name not in spec.written:
        return False
    return closed(spec, name) is not None or (params.layout == "plain" and open_text(spec, name))


def _exactly(params: Params) -> Any:
    """What is asked is read to the token: nothing may shorten it or answer something like it."""
    return replace(params.options or NO_OPTIONS, compress=False, semantic=False)
