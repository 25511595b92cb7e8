"""Packing: several inputs of one program in a single model call, each answer checked and kept by itself."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Final, TypeAlias, TypeVar, cast

from pydantic_core import PydanticSerializationError, from_json, to_json

from kaizen.core.answer import Answer
from kaizen.core.context import Ask, Context
from kaizen.core.errors import ContentFiltered, ContextTooLong, DefinitionError, ProviderError, Unavailable
from kaizen.core.message import Message, Text
from kaizen.core.request import OutputSchema, Reply, Request, Stage
from kaizen.inference.batch.share import usages
from kaizen.programs.prompt.parse import Misfit, parse
from kaizen.programs.prompt.render import Plan, Plans, identifier, render
from kaizen.programs.runnable import Runnable
from kaizen.programs.signature import Signature
from kaizen.programs.weigh import weighs

A = TypeVar("A", bound=Answer)

_KEY: Final = "item_{}"
_RULE: Final = """

There are several items, each between tags such as <item_1> and </item_1>. Work on each by itself, as if it were alone.
Answer with one JSON object and nothing else: the key item_1 holds the answer to the first item in the form above,
item_2 to the second, and so on."""
# Of the time that a call has left, what it gives to being packed: the rest has to do for asking alone.
_PATIENCE: Final = 0.5

_Key: TypeAlias = tuple[object, ...]


class _Left(Unavailable):
    """A call could wait for its pack no longer."""


@dataclass(slots=True, eq=False)
class _Item:
    """One call in a pack."""

    request: Request
    text: str
    answered: asyncio.Future[Reply]


@dataclass(slots=True, eq=False)
class _Pack:
    """Calls that are asked together."""

    plan: Plan
    ask: Ask
    items: list[_Item] = field(default_factory=list[_Item])
    timer: asyncio.TimerHandle | None = None
    task: asyncio.Task[None] | None = None


class Packed(Runnable[..., A]):
    """See ``packed``."""

    def __init__(self, program: type[Signature], size: int, wait_ms: float) -> None:
        self.spec = program.spec.variant("packed")
        mistakes = [
            mistake
            for wrong, mistake in (
                (size < 2, f"size = {size}: a pack holds at least two"),
                (not 0 <= wait_ms < float("inf"), f"wait_ms = {wait_ms}: milliseconds, 0 or more, are wanted"),
                (bool(program.spec.fed), "its intermediates are filled by other programs: it can't be packed"),
            )
            if wrong
        ]
        if mistakes:
            raise DefinitionError(program.spec.name, mistakes)
        self._program, self._size, self._wait = program, size, wait_ms / 1000
        self._own = program.compile().params
        self._plans = Plans(program.spec)
        self._schemas: dict[int, OutputSchema] = {}
        self._open: dict[_Key, _Pack] = {}

    async def run(self, ctx: Context, inputs: dict[str, Any]) -> Answer:
        """The answer out of a pack, or, where that has none that fits, of a call of the program alone."""
        spec = self._program.spec
        params = ctx.params(spec, self._own)
        if weighs(params) or params.nearest is not None or (params.votes or 1) > 1:
            # there is no conversation to put several into, or each has examples of its own, or is asked several times
            return await ctx.call(self._program, **inputs)
        plan = self._plans(params)
        messages = render(plan, inputs)
        if not self._fits(ctx, plan, messages):
            return await ctx.call(self._program, **inputs)
        request = ctx.request(
            params.model or "",
            messages,
            stable=len(plan.prefix),
            output=plan.output,
            decoding=plan.decoding,
            options=plan.options,
        )
        # whose calls may go together: one App's, in one loop, of one caller, under the same params and wishes
        run, loop = ctx.run, asyncio.get_running_loop()
        key = (loop, run.runtime, ctx.scope, run.principal, params.version, request.options)
        try:
            reply = await ctx.complete(request, through=partial(self._through, key, plan))
            return spec.answer_type.of(parse(spec, reply.text, "json"), inputs=inputs)
        except (Misfit, _Left, ContextTooLong, ContentFiltered):
            pass
        except ProviderError as error:
            if type(error) is not ProviderError:
                raise  # the provider is down, limited or locked: alone it is the same
        return await ctx.call(self._program, **inputs)

    def _fits(self, ctx: Context, plan: Plan, messages: Sequence[Message]) -> bool:
        """Whether a call can be packed: what is shown as it is written, conversations and attachments can't."""
        deadline = ctx.run.deadline
        in_time = deadline is None or deadline - time.monotonic() > 4 * self._wait
        plain = all(isinstance(part, Text) for part in messages[-1].parts)
        return in_time and plain and not ctx.streaming and not plan.turns and plan.mode != "text"

    async def _through(self, key: _Key, plan: Plan, ask: Ask, request: Request) -> Reply:
        """Wait in a pack, as long as there is time to ask alone afterwards."""
        loop = asyncio.get_running_loop()
        pack = self._open.get(key)
        if pack is None:
            pack = self._open[key] = _Pack(plan, ask)
            pack.timer = loop.call_later(self._wait, self._close, key, pack)
        item = _Item(request, request.messages[-1].text, loop.create_future())
        pack.items.append(item)
        if len(pack.items) >= self._size:
            self._close(key, pack)
        budget = request.options.latency_budget_ms
        ends = [None if request.deadline is None else request.deadline - time.monotonic(), budget and budget / 1000]
        left = min((end for end in ends if end is not None), default=None)
        limit = asyncio.timeout(None if left is None else left * _PATIENCE)
        try:
            async with limit:
                return await item.answered
        except TimeoutError:
            if not limit.expired():
                raise
            raise _counted(_Left("the pack took too long", model=request.model), 0) from None
        finally:
            if pack.task is not None and all(one.answered.done() for one in pack.items):
                pack.task.cancel()  # nobody waits for it any more

    def _close(self, key: _Key, pack: _Pack) -> None:
        """No more calls: ask."""
        if self._open.get(key) is pack:
            del self._open[key]
        if pack.timer is not None:
            pack.timer.cancel()
        items = [item for item in pack.items if not item.answered.done()]
        if items:
            pack.task = asyncio.get_running_loop().create_task(self._ask(pack, items))

    async def _ask(self, pack: _Pack, items: list[_Item]) -> None:
        alone = len(items) == 1
        try:
            reply = await pack.ask(items[0].request if alone else self._request(pack.plan, items))
            parts = [reply] if alone else _parted(pack.plan, items, reply)
        except Exception as error:  # noqa: BLE001 - carried to those who wait, which raise it
            for at, item in enumerate(one for one in items if not one.answered.done()):
                item.answered.set_exception(_counted(copy(error), None if at == 0 else 0))
        else:
            # the parts of those who left meanwhile are the others': what was used is all accounted for
            for item, part in zip(items, parts, strict=True):
                if not item.answered.done():
                    item.answered.set_result(part)

    def _request(self, plan: Plan, items: list[_Item]) -> Request:
        """One request for all."""
        first = items[0].request
        prefix = _prefix(plan)
        texts = [item.text for item in items]
        bounds = [item.request.decoding.max_tokens or 0 for item in items]
        # where policy set the bound and not the program, it is one that a model can write
        most = sum(bounds) if plan.decoding.max_tokens is not None else max(bounds)
        deadlines = [item.request.deadline for item in items]
        ends = [one for one in deadlines if one is not None]
        return replace(
            first,
            messages=(*prefix, Message.of("user", _tagged(texts))),
            stable=len(prefix),
            output=self._schema(len(items)) if plan.mode == "schema" else None,
            decoding=replace(first.decoding, max_tokens=most or None),
            deadline=max(ends) if len(ends) == len(items) else None,
        )

    def _schema(self, size: int) -> OutputSchema:
        """An object with a key for each item: a provider that enforces it leaves none out."""
        known = self._schemas.get(size)
        if known is None:
            own = dict(self._program.spec.output_schema)
            definitions = dict(own.pop("$defs", {}))
            name = "Item"
            while name in definitions:
                name += "_"
            keys = [_KEY.format(at + 1) for at in range(size)]
            schema = {
                "type": "object",
                "properties": {key: {"$ref": f"#/$defs/{name}"} for key in keys},
                "required": keys,
                "additionalProperties": False,
                "$defs": {**definitions, name: own},
            }
            known = self._schemas[size] = OutputSchema(f"{identifier(self._program.spec)[:56]}_packed", schema)
        return known


def packed(program: type[A], /, *, size: int = 8, wait_ms: float = 20.0) -> Packed[A]:
    """The same program, of which calls made at the same time are asked together, in one model call.

    Only calls of one caller under the same params are put together. Each gets its own answer, validated by the
    contract; one that is missing or does not fit is asked for again by itself, with the program's own repairs, and so
    is each where the whole pack is refused. The tokens and the cost of the call are parted among them by their lengths
    (``tokens_estimated``), and add up to what was used. Alone and without a wait go calls that are streamed, hold
    attachments or a conversation, answer in the mode "text" or in a plain text, have values weighed, are asked several
    times (``votes``), or are shown the nearest of their examples. A call with a deadline gives the pack half of its
    time.

    The items of a pack are before the model's eyes together: an answer may lean on its neighbour's, more so with small
    models. Measure it on your task before you rely on it.

    Args:
        program: a signature whose fields are all the model's own.
        size: calls in a pack at most.
        wait_ms: how long the first call of a pack waits for others.

    Raises:
        DefinitionError: if it can't be packed.
    """
    return Packed[A](cast("type[Signature]", program), size, wait_ms)


def _prefix(plan: Plan) -> tuple[Message, ...]:
    """The stable part of a pack: the same for packs of all sizes, so that a provider may cache it."""
    system, *demos = plan.prefix
    prefix = [Message.of("system", system.text + _RULE)]
    if demos:
        answers = ",".join(f'"{_KEY.format(at + 1)}":{demo.text}' for at, demo in enumerate(demos[1::2]))
        prefix += (
            Message.of("user", _tagged([demo.text for demo in demos[::2]])),
            Message.of("assistant", f"{{{answers}}}"),
        )
    return tuple(prefix)


def _tagged(texts: Sequence[str]) -> str:
    """Items between tags that none of them can close."""
    lines: list[str] = []
    for at, text in enumerate(texts):
        name = _KEY.format(at + 1)
        closed = re.sub(r"<(?=\s*/?\s*item_\d)", r"<\\", text, flags=re.IGNORECASE)
        lines.append(f"<{name}>\n{closed}\n</{name}>")
    return "\n".join(lines)


def _parted(plan: Plan, items: Sequence[_Item], reply: Reply) -> list[Reply]:
    """Each item's own reply out of that of all, with its share of what was used.

    Raises:
        ContentFiltered: if the provider withheld the whole.
    """
    if reply.finish == "content_filter":
        raise ContentFiltered("the provider withheld the answer on grounds of content", model=reply.model)
    waiting = [at for at, item in enumerate(items) if not item.answered.done()]
    size = max(1, len(waiting))
    found = _answers(reply.text, cut=reply.finish == "length")
    texts = [found.get(_KEY.format(at + 1), "") for at in waiting]
    common = sum(len(message.text) for message in plan.prefix) / size
    read = [common + len(items[at].text) for at in waiting]
    used = usages(reply.usage, read, [1.0 + len(text) for text in texts])
    tokens = [one.tokens_in + one.tokens_out for one in used]
    parts: dict[int, Reply] = {}
    for number, at in enumerate(waiting):
        share = tokens[number] / sum(tokens) if sum(tokens) else 1 / size
        stages = tuple(
            replace(stage, ms=stage.ms, saved_usd=None if stage.saved_usd is None else stage.saved_usd * share)
            for stage in reply.stages
        )
        # what the call alone would have cost nobody has measured
        saved = 0.0 if reply.cost_usd == 0 else None
        pack = Stage("pack", saved_usd=saved, note={"items": len(items), "item": at + 1})
        parts[at] = replace(
            reply,
            text=texts[number],
            finish="stop",
            tool_calls=(),
            logprobs=(),
            usage=used[number],
            cost_usd=None if reply.cost_usd is None else reply.cost_usd * share,
            attempts=reply.attempts if number == 0 else 0,
            stages=(*stages, pack),
        )
    return [parts.get(at, reply) for at in range(len(items))]


class _Twice:
    """Stands for a value whose key is written twice, differently: neither is known to be meant."""


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for key, value in pairs:
        values[key] = _Twice() if key in values and values[key] != value else value
    return values


_DECODER: Final = json.JSONDecoder(object_pairs_hook=_once)


def _answers(text: str, *, cut: bool) -> dict[str, str]:
    """By key, the JSON of each answer that stands there whole."""
    body = text[max(0, text.find("{")) :]
    try:
        value = _DECODER.raw_decode(body)[0]
    except (ValueError, RecursionError):
        cut = True
        try:
            value = from_json(body, allow_partial=True)
        except ValueError:
            return {}
    if not isinstance(value, dict):
        return {}
    found = cast("dict[str, Any]", value)
    if cut and found:
        found.popitem()  # where the text ends, an answer may look whole that is not
    answers: dict[str, str] = {}
    for key, answer in found.items():
        try:
            answers[key] = to_json(answer).decode()
        except PydanticSerializationError:  # it holds what was written twice
            continue
    return answers


def _counted(error: Exception, attempts: int | None) -> Exception:
    """The same error, which tells another number of requests: those of a pack count once."""
    if attempts is not None and isinstance(error, ProviderError):
        error.detail = {**error.detail, "attempts": attempts}
    return error
