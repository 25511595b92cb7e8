"""``kaizen eval --judge-check``: how a judge's words compare with people's."""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast

from kaizen.core.answer import Answer
from kaizen.core.context import Context, Program
from kaizen.core.errors import ConfigError, Denied, InvalidInput
from kaizen.core.protocols import Suspended
from kaizen.core.spec import Spec
from kaizen.learn.data.files import RowFile
from kaizen.learn.metrics.judge import Agreement, Judge, agreement
from kaizen.programs.together import together
from kaizen.serve.commands.tables import json_text
from kaizen.serve.doors import Doors, Runs, using
from kaizen.serve.errors import FINDINGS, OK

_HUMAN: Final = "human"


@dataclass(frozen=True, slots=True)
class _Labelled:
    """An answer that a person has scored."""

    inputs: Mapping[str, Any]
    expected: Mapping[str, Any]
    prediction: Mapping[str, Any] | None
    human: float


def check_judge(args: argparse.Namespace, judged: Program, doors: Doors) -> int:
    """Measure and keep a judge's agreement; the exit code."""
    if not isinstance(judged, Judge):
        raise ConfigError("--judge-check measures a judge: --metric judge:provider/model")
    rows = _labelled(args.data)[: args.limit]
    found = asyncio.run(using(doors.app(), lambda app: _measure(app, judged, rows, args.concurrency)))
    if args.json:
        sys.stdout.write(f"{json_text({name: getattr(found, name) for name in found.__slots__})}\n")
    else:
        sys.stdout.write(
            f"{found.judge}: agrees on {found.rate:.3f} ({found.low:.3f} to {found.high:.3f}) of {found.n} answers, "
            f"kappa {found.kappa:.2f}\nit {'may' if found.suffices else 'may not'} decide anything\n"
        )
    return OK if found.suffices else FINDINGS


def _labelled(path: Path) -> list[_Labelled]:
    """Lines as ``--predictions`` writes them, with people's scores added as ``human``.

    Raises:
        InvalidInput: naming the line that lacks something.
    """
    source = RowFile(path, {})
    rows: list[_Labelled] = []
    for row in source.rows():
        values = row.values
        human = values.get(_HUMAN)
        if human is None:
            continue
        if isinstance(human, bool) or not isinstance(human, int | float) or not 0 <= human <= 1:
            raise InvalidInput(f"{source.where(row)}: '{_HUMAN}' should be a number from 0 to 1")
        inputs, expected, prediction = (_object(values, name) for name in ("input", "expected", "prediction"))
        if inputs is None:
            raise InvalidInput(f"{source.where(row)}: 'input' should be an object")
        rows.append(_Labelled(inputs, expected or {}, prediction, float(human)))
    if not rows:
        raise InvalidInput(f"{path}: no line has '{_HUMAN}', a person's score from 0 to 1")
    return rows


def _object(values: Mapping[str, Any], name: str) -> Mapping[str, Any] | None:
    value = values.get(name)
    return cast("Mapping[str, Any]", value) if isinstance(value, dict) else None


class _Checking:
    """The check as one run."""

    def __init__(self, judged: Judge, rows: Sequence[_Labelled], concurrency: int) -> None:
        self.spec = Spec("kaizen.judge_check", "Compare a judge with people.", [], Answer)
        self.scores: list[float] = []
        self._judged, self._rows, self._concurrency = judged, rows, concurrency

    async def __call__(self, ctx: Context, /, **inputs: Any) -> Answer:
        """Judge every answer."""
        places = iter(enumerate(self._rows))
        scores = [0.0] * len(self._rows)

        async def work() -> None:
            for place, row in places:
                word = await ctx.call(self._judged, inputs=row.inputs, expected=row.expected, prediction=row.prediction)
                scores[place] = word.outputs["score"]

        await together(work() for _ in range(min(self._concurrency, len(self._rows))))
        self.scores = scores
        return Answer.of({})


async def _measure(app: Runs, judged: Judge, rows: Sequence[_Labelled], concurrency: int) -> Agreement:
    work = _Checking(judged, rows, concurrency)
    said = await app.start(work, {})
    if isinstance(said, Suspended):
        detail = {"run_id": said.run_id, "step": said.step}
        raise Denied(f"run {said.run_id} waits for approval: {said.question}", detail=detail)
    found = agreement(judged, work.scores, [row.human for row in rows])
    await app.registry.put(app.scope, found.artifact(), author="eval", reason=f"{found.n} answers scored by people")
    return found
