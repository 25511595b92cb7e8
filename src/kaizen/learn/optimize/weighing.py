"""Which fields' values can be weighed, and what a model finds likely for rows whose values are known."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from pydantic_core import to_json

from kaizen.core.context import Context
from kaizen.core.errors import ConfigError, Unsupported
from kaizen.core.params import Demo, Params, Weights
from kaizen.core.spec import Spec
from kaizen.learn.data.rows import Row
from kaizen.learn.metrics.compare import blank, tidy
from kaizen.learn.optimize.board import Board
from kaizen.learn.optimize.fit import Case, Fitted, fit
from kaizen.learn.optimize.task import Part
from kaizen.learn.optimize.trial import without
from kaizen.programs.prompt.options import closed, open_text
from kaizen.programs.together import together
from kaizen.programs.weigh import Reading

_COPIED: Final = 0.8


@dataclass(frozen=True, slots=True)
class Fields:
    """The outputs of a program whose values can be weighed.

    Args:
        few: those with few values.
        copied: those of text whose values stand in the inputs, and what each holds where nothing does.
        others: the rest, which are written.
    """

    few: tuple[str, ...]
    copied: Mapping[str, str | None]
    others: tuple[str, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """Those that can be weighed."""
        return (*self.few, *self.copied)

    def weights(self) -> dict[str, Weights]:
        """As they are before anything is fitted."""
        return {name: Weights(near=0.0, absent=self.copied.get(name)) for name in self.names}


def fields_of(spec: Spec, rows: Sequence[Row]) -> Fields:
    """Which fields can be weighed, by their types and by what rows have for them."""
    few: list[str] = []
    copied: dict[str, str | None] = {}
    others: list[str] = []
    for name in spec.written:
        if closed(spec, name) is not None and any(name in row.outputs for row in rows):
            few.append(name)
            continue
        found = _absent(name, rows) if open_text(spec, name) else None
        if found is None:
            others.append(name)
        else:
            copied[name] = found[0]
    return Fields(tuple(few), copied, tuple(others))


def _absent(name: str, rows: Sequence[Row]) -> tuple[str | None] | None:
    """What a field holds where the inputs have nothing for it; None if its values don't stand in the inputs."""
    said: list[str] = []
    filled = inside = 0
    for row in rows:
        value = row.outputs.get(name)
        if value is None:
            continue
        if isinstance(value, str) and not blank(value) and _in(value, row):
            filled, inside = filled + 1, inside + 1
        elif blank(value) or (isinstance(value, str) and value.casefold() in _NOTHING):
            said.append(value)
        else:
            filled += 1
    if not filled or inside < _COPIED * filled:
        return None
    return (Counter(said).most_common(1)[0][0] if said else None,)


_NOTHING: Final = frozenset({"none", "null", "n/a", "-", "unknown", "not given", "not mentioned"})


def _in(value: str, row: Row) -> bool:
    return any(isinstance(text, str) and value in text for text in row.inputs.values())


def demo_for(row: Row, part: Part) -> Demo:
    """A labelled row as a demo; an output that it lacks counts as none."""
    inputs = {name: row.inputs[name] for name in part.spec.inputs if name in row.inputs}
    return Demo(inputs, {name: row.outputs.get(name) for name in part.spec.outputs})


async def weighed(
    ctx: Context, board: Board, part: Part, params: Params, rows: Sequence[Row]
) -> dict[str, list[Case]] | None:
    """What speaks for the values of rows, by field: a case for each row whose right value is among the options.

    Demos made of a row are left out where it is the one that is asked about.

    Args:
        ctx: the search's; each row is a step of it.
        board: which counts the calls.
        part: the program.
        params: all of them.
        rows: which.

    Returns:
        None where the model can't do it.
    """
    reading = Reading(part.spec)
    slots = asyncio.Semaphore(max(1, board.task.concurrency))
    branches = [ctx.fork() for _ in rows]

    async def one(branch: Context, row: Row) -> Mapping[str, Any] | Unsupported | None:
        async with slots:
            left = replace(without(params, row), contract=None)
            try:
                return await board.ask(branch, reading, left, dict(row.inputs))
            except Unsupported as error:
                return error  # as a value: raised here, it would cancel calls in the air before they are counted

    work = [one(branch, row) for branch, row in zip(branches, rows, strict=True)]
    try:
        # the first alone: a model that can't do it is not asked about all rows
        found = await together(work[:1])
        if not any(isinstance(said, Unsupported) for said in found):
            found += await together(work[1:])
    except ConfigError:
        return None
    finally:
        for each in work:
            each.close()  # what was not begun
    answers = [said for said in found if not isinstance(said, Unsupported)]
    if len(answers) < len(rows):
        return None
    cases: dict[str, list[Case]] = {name: [] for name in params.scored or {}}
    for row, said in zip(rows, answers, strict=True):
        for name, each in (said or {}).get("weighed", {}).items():
            case = _case(each, row.outputs.get(name), few=closed(part.spec, name) is not None)
            if case is not None:
                cases[name].append(case)
    return cases


def _case(said: Mapping[str, Any], wanted: Any, *, few: bool) -> Case | None:
    values, texts, near = said["values"], said["texts"], said["near"]
    if not few:
        wanted, texts = (values[0] if blank(wanted) else wanted), texts[:1]
    alike = to_json if few else _tidy
    right = next((at for at, value in enumerate(values) if alike(value) == alike(wanted)), None)
    if right is None or len(values) < 2:
        return None
    return Case(tuple(texts), tuple(said["likely"]), None if near is None else tuple(near), right)


def _tidy(value: Any) -> Any:
    return tidy(value) if isinstance(value, str) else value


def fitted(cases: Mapping[str, Sequence[Case]], fields: Fields, seed: int) -> dict[str, Fitted]:
    """Weights for each field that there are cases of."""
    return {name: fit(some, absent=fields.copied.get(name), seed=seed) for name, some in cases.items() if len(some) > 1}


def with_weights(params: Params, found: Mapping[str, Fitted]) -> Params:
    """The same params with fitted weights."""
    return replace(params, scored={**(params.scored or {}), **{name: one.weights for name, one in found.items()}})
