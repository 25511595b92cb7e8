"""The values a field can have, as a model writes them, and how likely it finds each."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time
from enum import Enum
from typing import Any, Final, cast

from pydantic_core import to_json

from kaizen.core.params import Demo, Weights
from kaizen.core.request import TokenLogprob
from kaizen.core.spec import Spec
from kaizen.programs.declare import bare_type

# How fast a demo's say falls with its distance: at a cosine lower by this its weight is lower by the factor e.
_REACH: Final = 0.05
_SMOOTH: Final = 0.02


@dataclass(frozen=True, slots=True)
class Option:
    """A value that a field can have.

    Args:
        text: as the model writes it.
        value: as the contract has it, JSON-able.
    """

    text: str
    value: Any


def value_text(value: Any) -> str:
    """A value as it stands in a plain text."""
    match value:
        case None:
            return "none"
        case bool():
            return "yes" if value else "no"
        case str():
            return value or "none"
        case Enum():
            return value_text(value.value)
        case datetime() | date() | time():
            return value.isoformat()
        case _:
            return to_json(value).decode()


def closed(spec: Spec, name: str) -> tuple[Option, ...] | None:
    """The options of a field that can have only a few values; None for any other."""
    schema = spec.output_schema["properties"].get(name, {})
    values = _values(schema, spec.output_schema.get("$defs", {}))
    if values is None or len(values) < 2:
        return None
    words = [value_text(value).replace("_", " ") if isinstance(value, str) else value_text(value) for value in values]
    if len(set(words)) < len(words):
        words = [to_json(value).decode() for value in values]
    return tuple(Option(word, value) for word, value in zip(words, values, strict=True))


def open_text(spec: Spec, name: str) -> bool:
    """Whether a field holds any text."""
    return bare_type(spec.written[name].annotation) is str and closed(spec, name) is None


def likelihoods(tokens: Sequence[TokenLogprob], texts: Sequence[str], start: int = 0) -> list[float]:
    """The log-probability of each text where a reply could have had it, in nats.

    The tokens that were written are followed as far as texts agree with them. A text that parts from them gets the
    probability of the longest alternative that it agrees with, shared equally with the others that have the same:
    nothing tells how it would go on. One that agrees with what was written gets that of a longer alternative added: a
    word can be written in one token, or as a space and what follows, and " 1" is mostly written so. One for which no
    alternative was reported gets that of the least likely one.

    Args:
        tokens: of the reply, with alternatives.
        texts: the options, none the beginning of another.
        start: where in the reply's text they begin.
    """
    mass: list[list[float]] = [[] for _ in texts]
    alive = list(range(len(texts)))
    place, passed, written = 0, 0.0, ""
    for token in tokens:
        begins, place = place, place + len(token.token)
        if place <= start:
            continue
        chosen = token.token[max(0, start - begins) :]
        rests = {at: texts[at][len(written) :] for at in alive}
        for at, lp in _elsewhere(token, chosen, rests).items():
            mass[at].append(passed + lp)
        alive = [at for at, rest in rests.items() if _agree(rest, chosen)]
        passed += token.logprob
        written += chosen
        if not alive or all(len(texts[at]) <= len(written) for at in alive):
            break
    for at in alive:
        mass[at].append(passed)
    return [_log_sum(each) for each in mass]


def _elsewhere(token: TokenLogprob, chosen: str, rests: Mapping[int, str]) -> dict[int, float]:
    """The log-probability that texts have by alternatives to a token."""
    skip = len(token.token) - len(chosen)
    top = token.top or ((token.token, token.logprob),)
    tails = {tail[skip:]: lp for tail, lp in reversed(top) if tail.startswith(token.token[:skip])}
    tails.pop(chosen, None)
    floor = min(lp for _, lp in top)
    longest: dict[int, str] = {}
    found: dict[int, float] = {}
    for at, rest in rests.items():
        stays = _agree(rest, chosen)
        agreeing = [tail for tail in tails if _agree(rest, tail) and not (stays and len(tail) <= len(chosen))]
        if agreeing:
            longest[at] = max(agreeing, key=len)
        elif not stays:
            found[at] = floor
    shared = Counter(longest.values())
    return found | {at: tails[tail] - math.log(shared[tail]) for at, tail in longest.items()}


def places(demos: Sequence[Demo], name: str, options: Sequence[Option]) -> list[int]:
    """The place of each demo's value among options; of any other value the last."""
    known = {to_json(option.value): at for at, option in enumerate(options)}
    return [known.get(to_json(demo.outputs.get(name)), len(options) - 1) for demo in demos]


def votes(values: Sequence[int], near: Sequence[float], count: int) -> list[float]:
    """The logarithm of each value's share among demos, each counted by how near it lies.

    Args:
        values: the place of each demo's value.
        near: the cosine of each to the inputs.
        count: how many values there are.
    """
    counts = [0.0] * count
    best = max(near, default=0.0)
    for value, cosine in zip(values, near, strict=True):
        counts[value] += math.exp((cosine - best) / _REACH)
    whole = sum(counts) or 1.0
    return [math.log((1 - _SMOOTH) * one / whole + _SMOOTH / count) for one in counts]


def log_shares(scores: Sequence[float]) -> list[float]:
    """Scores on a scale of log-probabilities: the shares they stand for sum to one."""
    whole = _log_sum(scores)
    return [one - whole for one in scores]


def chances(
    weights: Weights, texts: Sequence[str], likely: Sequence[float], near: Sequence[float] | None
) -> list[float]:
    """The probability of each option, all that speaks for it taken together."""
    sums = [weights.model * lp - weights.lead.get(text, 0.0) for text, lp in zip(texts, likely, strict=True)]
    if near is not None:
        sums = [one + weights.near * share for one, share in zip(sums, near, strict=True)]
    whole = _log_sum(sums)
    return [math.exp(one - whole) for one in sums]


def _agree(rest: str, token: str) -> bool:
    return bool(rest and token) and (rest.startswith(token) or token.startswith(rest))


def _log_sum(values: Sequence[float]) -> float:
    most = max(values)
    return most + math.log(sum(math.exp(value - most) for value in values))


def _values(schema: Mapping[str, Any], definitions: Mapping[str, Any]) -> list[Any] | None:
    if "$ref" in schema:
        return _values(definitions.get(str(schema["$ref"]).rsplit("/", 1)[-1], {}), definitions)
    if "anyOf" in schema:
        parts = [_values(one, definitions) for one in cast("list[Mapping[str, Any]]", schema["anyOf"])]
        return None if None in parts else [value for part in parts for value in part or ()]
    if "enum" in schema:
        return list(schema["enum"])
    if "const" in schema:
        return [schema["const"]]
    match schema.get("type"):
        case "boolean":
            return [True, False]
        case "null":
            return [None]
        case _:
            return None
