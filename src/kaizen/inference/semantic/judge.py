"""Whether two answers agree, as far as that can be told without a model.

It decides what is evidence, so it errs towards "no": two right answers taken for different ones cost hits, two
different ones taken for the same would break the budget. It is good at JSON, labels, numbers and short answers, and
poor at long prose that says the same in other words (``benchmarks/semantic_cache.py`` measures that): where a model
words each answer anew, little is ever proved. A better judge can be given to the layer.
"""

from __future__ import annotations

import re
from typing import Any, Final, cast

from pydantic_core import from_json

from kaizen.core.protocols import Embedder
from kaizen.core.request import Reply
from kaizen.core.scope import Scope
from kaizen.inference.semantic.gate import difference, leftover, weight
from kaizen.inference.semantic.likeness import embedded
from kaizen.inference.semantic.reading import read

# Cosines from which texts that the gate lets pass agree. Of a phrase each word counts; of a long text some may differ.
SHORT: Final = 0.92
LONG: Final = 0.90
_SHORT_WORDS: Final = 8
_FENCE: Final = re.compile(r"^```\w*\n(.*)\n```$", re.DOTALL)


async def agree(embedder: Embedder, scope: Scope, one: Reply, other: Reply) -> bool | None:
    """Whether they say the same; None where that can't be told, since one of them was cut short.

    Tool calls have to have the same names and arguments, JSON the same values (of texts in it, the same meaning), text
    the same words or the same content.
    """
    if {"length", "content_filter"} & {one.finish, other.finish}:
        return None
    if len(one.tool_calls) != len(other.tool_calls):
        return False
    for mine, theirs in zip(one.tool_calls, other.tool_calls, strict=True):
        if mine.name != theirs.name or not await _same_value(
            embedder, scope, _value(mine.arguments), _value(theirs.arguments)
        ):
            return False
    return await _same_value(embedder, scope, _value(one.text), _value(other.text))


def _value(text: str) -> Any:
    """What a text holds: JSON if it is that, or else itself."""
    stripped = text.strip()
    fenced = _FENCE.match(stripped)
    body = fenced[1].strip() if fenced else stripped
    if body[:1] in ("{", "["):
        try:
            return from_json(body)
        except ValueError:
            pass
    return stripped


async def _same_value(embedder: Embedder, scope: Scope, one: Any, other: Any) -> bool:
    if isinstance(one, str) and isinstance(other, str):
        return await _same_text(embedder, scope, one, other)
    if isinstance(one, dict) and isinstance(other, dict):
        mine, theirs = cast("dict[str, Any]", one), cast("dict[str, Any]", other)
        return mine.keys() == theirs.keys() and await _all_same(
            embedder, scope, list(mine.values()), [theirs[key] for key in mine]
        )
    if isinstance(one, list) and isinstance(other, list):
        return await _all_same(embedder, scope, cast("list[Any]", one), cast("list[Any]", other))
    return isinstance(one, bool) is isinstance(other, bool) and one == other


async def _all_same(embedder: Embedder, scope: Scope, ones: list[Any], others: list[Any]) -> bool:
    if len(ones) != len(others):
        return False
    for one, other in zip(ones, others, strict=True):
        if not await _same_value(embedder, scope, one, other):
            return False
    return True


async def _same_text(embedder: Embedder, scope: Scope, one: str, other: str) -> bool:
    if " ".join(one.split()) == " ".join(other.split()):
        return True
    mine, theirs = read(one), read(other)
    if mine.plain.strip(" .!") == theirs.plain.strip(" .!"):
        return True
    if difference(mine, theirs, asked=False):
        return False
    left, right = leftover(mine, theirs)
    if min(len(mine.words), len(theirs.words)) <= _SHORT_WORDS and weight(left) + weight(right) > 0:
        return False  # a label or a name: another word is another answer
    points = await embedded(embedder, scope, [one, other])
    bar = SHORT if len(mine.words) <= _SHORT_WORDS else LONG
    return float(points[0] @ points[1]) >= bar
