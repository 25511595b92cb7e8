"""``POST /api/v1/infer``: every wish that the layers know, and an answer that says what each of them did."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from kaizen.core.errors import InvalidInput
from kaizen.core.message import Message
from kaizen.core.record import Record
from kaizen.core.request import Options, OutputSchema, Reply, Request, Stage
from kaizen.serve.http.problem import Problem, Refused, unsupported
from kaizen.serve.http.wires.chat_body import choice_of, tools_of
from kaizen.serve.http.wires.native_body import BODY, CacheSwitches, NativeBody
from kaizen.serve.http.wires.openai_chat import message_of
from kaizen.serve.http.wires.wire import (
    Asked,
    Caller,
    Parsed,
    check_depth,
    checked_request,
    decoded,
    decoding,
    given,
    named_tool,
    tier_name,
    to_text,
)

# By wish, the layer that can meet it.
_LAYER_OF: Final[Mapping[str, str]] = {
    "routing_mode": "route",
    "quality_preference": "route",
    "latency_preference": "route",
    "quality_threshold": "route",
    "latency_budget_ms": "route",
    "cost_budget_usd": "route",
    "optimize_tokens": "compress",
    "batch": "batch",
    "hedge": "failover",
}
_NO_SWITCHES: Final = CacheSwitches()
_NO_NOTE: Final[Mapping[str, Any]] = {}
# What goes to every step when a prompt is taken apart; anything else is about one call.
_OF_STEPS: Final = frozenset({"prompt", "documents", "document_id", "decompose", "model", "routing_mode", "deadline"})


class Native:
    """The wire. ``Asked.echo`` is the body.

    Args:
        layers: the keys of those that are on. A wish that none of them can meet is refused by its name, unless the
            caller allows a fallback.
    """

    name = "infer"

    def __init__(self, layers: Collection[str]) -> None:
        self._layers = frozenset(layers)
        self._tools = Parsed(tools_of)
        self._choices = Parsed(choice_of)

    def decode(self, body: bytes, caller: Caller) -> Asked:
        """See ``Wire.decode``."""
        said = decoded(BODY, body)
        routing = said.routing_mode or ("explicit" if said.model is not None else "guided")
        if routing == "explicit" and said.model is None:
            raise Refused(400, "invalid_request", "model is missing: routing_mode explicit needs it", param="model")
        if routing == "autopilot" and said.model is not None:
            raise unsupported("model", "is chosen by autopilot: leave it out, or say routing_mode explicit")
        self._check(said, routing)
        tools = self._tools(said.tools) if given(said.tools) else ()
        choice, tool = self._choices(said.tool_choice) if given(said.tool_choice) else ("auto", None)
        if tool is not None:
            named_tool(tools, tool, "tool_choice.function.name")
        if said.output_schema is not None:
            check_depth(said.output_schema, "output_schema")
        stop = said.stop
        request = Request(
            scope=caller.scope,
            model=caller.resolve(said.model or "default", "openai"),
            messages=_messages(said),
            output=None if said.output_schema is None else OutputSchema("answer", said.output_schema),
            tools=tools,
            tool_choice=choice,
            tool=tool,
            decoding=decoding(
                said.temperature,
                said.top_p,
                said.max_tokens,
                said.seed,
                () if not stop else (stop,) if isinstance(stop, str) else tuple(stop),
                said.top_k,
                said.presence_penalty,
                said.frequency_penalty,
                effort=said.reasoning_effort,
            ),
            deadline=None if said.deadline is None else time.monotonic() + said.deadline,
            options=_options(said, routing, caller.options, self._layers),
            user=said.user,
        )
        return Asked(checked_request(request, "messages"), said.stream, echo=said)

    def encode(self, asked: Asked, replies: Sequence[Reply]) -> bytes:
        """See ``Wire.encode``."""
        return to_text(answer_of(asked, replies[0]))

    def writing(self, asked: Asked) -> NativeWriting:
        """See ``Wire.writing``."""
        return NativeWriting(asked)

    def error(self, problem: Problem, call_id: str) -> bytes:
        """See ``Wire.error``."""
        return to_text({"error": _error(problem), "request_id": call_id})

    def _check(self, said: NativeBody, routing: str) -> None:
        """Refuse a wish that no layer can meet here."""
        if (said.prompt is None) == (said.messages is None):
            raise Refused(400, "invalid_request", "give either prompt or messages", param="prompt")
        if said.prompt is None and (said.system is not None or said.documents is not None):
            param = "documents" if said.system is None else "system"
            raise unsupported(param, "goes with prompt; with messages it is one of them")
        if said.fallback:
            return
        cache = said.cache or _NO_SWITCHES
        wishes = {name: getattr(said, name) for name in _LAYER_OF}
        wishes["routing_mode"] = None if routing == "explicit" or said.routing_mode is None else routing
        lacking = [(name, layer) for name, layer in _LAYER_OF.items() if wishes[name] and layer not in self._layers]
        for name, wished in (("exact", cache.exact), ("semantic", cache.semantic)):
            if wished and name not in self._layers:
                lacking.append((f"cache.{name}", name))
        if lacking:
            name, layer = lacking[0]
            rule = f"{name} can't be met: the layer {layer!r} is off on this gateway (fallback: true does without)"
            raise InvalidInput(rule, rules=rule, detail={"param": name})


def documents_of(said: NativeBody) -> Mapping[str, str]:
    """Texts by id; that of a document which is only named stands in the prompt already."""
    if said.documents is not None:
        return said.documents
    return {said.document_id: ""} if isinstance(said.document_id, str) else {}


def takes_apart(asked: Asked) -> bool:
    """Whether a prompt's parts are to be done one by one, as far as the call's other wishes allow.

    Raises:
        Unsupported: if that is asked for together with something that is about one call.
    """
    said: NativeBody = asked.echo
    if said.prompt is None or said.decompose is False:
        return False
    if isinstance(said.document_id, list) or (said.document_id and said.documents):
        return False
    cache = said.cache or _NO_SWITCHES
    if cache.steps is False and said.decompose is None:
        return False
    usual = NativeBody()
    others = [
        name
        for name in said.__struct_fields__
        if name not in _OF_STEPS and name != "cache" and getattr(said, name) != getattr(usual, name)
    ]
    if replace_switches(cache) != _NO_SWITCHES:
        others.append("cache")
    if said.routing_mode not in (None, "explicit"):
        others.append("routing_mode")
    if others and said.decompose:
        raise unsupported(others[0], "is about one call; with decompose there are several")
    return not others


def replace_switches(cache: CacheSwitches) -> CacheSwitches:
    """The switches without that of the steps."""
    return CacheSwitches(cache.exact, cache.semantic, None, cache.refresh, cache.ttl)


class NativeWriting:
    """A streamed native answer: pieces of text, then the answer with all that is said about it."""

    def __init__(self, asked: Asked) -> None:
        self._asked = asked

    def begin(self) -> bytes:
        """Which record it will have."""
        return _event("begin", {"record": self._asked.id, "model": self._asked.request.model})

    def text(self, text: str) -> bytes:
        """A piece of the text."""
        return b'event: text\ndata: {"text":%b}\n\n' % to_text(text)

    def end(self, reply: Reply) -> bytes:
        """The whole answer."""
        return _event("answer", answer_of(self._asked, reply))

    def fail(self, problem: Problem) -> bytes:
        """The error, and no answer."""
        return _event("error", {"error": _error(problem)})


def answer_of(asked: Asked, reply: Reply) -> dict[str, Any]:
    """What is said of a model's answer."""
    route = _note(reply.stages, "route")
    usage = reply.usage
    return {
        "text": reply.text,
        "tool_calls": [{"id": c.id, "name": c.name, "arguments": c.arguments} for c in reply.tool_calls],
        "finish": reply.finish,
        "record": reply.record_id,
        "model": reply.model,
        "why": {
            "routing_mode": asked.request.options.routing,
            **{k: v for k, v in route.items() if k != "alternatives"},
        },
        "alternatives": route.get("alternatives", []),
        "task_type": asked.request.options.task or route.get("task"),
        "cache": {"tier": tier_name(reply), "similarity": _note(reply.stages, "semantic").get("similarity")},
        "tokens": {
            "in": usage.tokens_in,
            "out": usage.tokens_out,
            "cached": usage.tokens_cached,
            "reasoning": usage.tokens_reasoning,
            "estimated": usage.estimated,
        },
        "cost_usd": reply.cost_usd,
        "saved_usd": reply.saved_usd,
        "layers": [_layer(stage, reply.cost_usd) for stage in reply.stages],
        "latency_ms": _latency(asked, reply),
        "attempts": reply.attempts,
    }


def steps_answer(text: str, record: Record, steps: Sequence[Record]) -> dict[str, Any]:
    """What is said of an answer that was made of several steps."""
    return {
        "text": text,
        "tool_calls": [],
        "finish": "stop",
        "record": record.id,
        "model": record.model,
        "why": {"decomposed": len(steps)},
        "alternatives": [],
        "task_type": record.task,
        "cache": {"tier": "miss" if record.cache_tier == "model" else record.cache_tier, "similarity": None},
        "tokens": {
            "in": record.tokens_in,
            "out": record.tokens_out,
            "cached": record.tokens_cached,
            "reasoning": 0,
            "estimated": record.tokens_estimated,
        },
        "cost_usd": record.cost_usd,
        "saved_usd": record.saved_usd,
        "layers": [],
        "steps": [
            {
                "step": one.step,
                "program": one.ref,
                "record": one.id,
                "cache": "miss" if one.cache_tier == "model" else one.cache_tier,
                "cost_usd": one.cost_usd,
                "latency_ms": one.latency_ms,
            }
            for one in steps
        ],
        "latency_ms": {"total": record.latency_ms},
        "attempts": record.attempts,
    }


def _layer(stage: Stage, cost: float | None) -> dict[str, Any]:
    saved = stage.saved_usd
    without = None if saved is None or cost is None else cost + saved
    return {
        "layer": stage.layer,
        "ms": stage.ms,
        "saved_usd": saved,
        "cost_without_usd": without,
        "note": dict(stage.note),
    }


def _latency(asked: Asked, reply: Reply) -> dict[str, Any]:
    """By stage, and in all since the call was decoded."""
    stages = {stage.layer: stage.ms for stage in reply.stages}
    return {"total": (time.perf_counter() - asked.begun) * 1000, "first_token": reply.first_token_ms, "stages": stages}


def _note(stages: Sequence[Stage], layer: str) -> Mapping[str, Any]:
    return next((stage.note for stage in stages if stage.layer == layer), _NO_NOTE)


def _error(problem: Problem) -> dict[str, Any]:
    said = {"code": problem.code, "message": problem.message, "param": problem.param}
    return said if problem.retry_after is None else {**said, "retry_after": problem.retry_after}


def _event(name: str, data: Mapping[str, Any]) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (name.encode(), to_text(data))


def _messages(said: NativeBody) -> tuple[Message, ...]:
    if said.messages is not None:
        return tuple([message_of(one, at) for at, one in enumerate(said.messages)])
    first = (Message.of("system", said.system),) if said.system else ()
    shown = "\n\n".join((said.documents or {}).values())
    prompt = said.prompt or ""
    return (*first, Message.of("user", f"{shown}\n\n{prompt}" if shown else prompt))


def _options(said: NativeBody, routing: Any, base: Options, layers: Collection[str]) -> Options:
    cache = said.cache or _NO_SWITCHES
    names = [said.document_id] if isinstance(said.document_id, str) else [*(said.document_id or ())]
    documents = [f"document:{name}" for name in (*names, *(said.documents or ()))]
    return replace(
        base,
        # the key's word goes first: a caller may do without the cache, never switch on what its key forbids
        exact=False if cache.exact is False or base.exact is False else cache.exact or base.exact,
        refresh=base.refresh or cache.refresh,
        semantic=cache.semantic,
        compress=said.optimize_tokens,
        batch=said.batch,
        hedge=said.hedge,
        routing=routing if "route" in layers else "explicit",
        quality=said.quality_preference,
        pace=said.latency_preference,
        quality_threshold=said.quality_threshold,
        latency_budget_ms=said.latency_budget_ms,
        cost_budget_usd=said.cost_budget_usd,
        task=said.task_type,
        fallback=said.fallback,
        ttl=cache.ttl,
        tags=(*documents, *(said.tags or ())),
    )
