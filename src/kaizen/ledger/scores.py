"""Scores about records: a metric's word, or a person's, kept beside what it is about."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, cast

from pydantic_core import from_json, to_json

from kaizen.core.errors import InvalidInput
from kaizen.core.ids import new_id
from kaizen.core.record import Payload, Record, Score
from kaizen.core.scope import Scope
from kaizen.ledger.ledger import Ledger

FEEDBACK: Final = "feedback"
"""The name of people's scores."""

_LONGEST: Final = 10_000  # characters of a comment, and bytes of a correction
_STARS: Final = 5


def value_of(
    score: float | None = None,
    *,
    stars: float | None = None,
    thumbs: str | None = None,
    correct: Mapping[str, Any] | None = None,
) -> float:
    """A person's word as a number from 0 to 1, in whichever way it was given.

    Args:
        score: the number itself.
        stars: 1 to 5; 1 is 0.
        thumbs: ``up`` or ``down``.
        correct: a correction: by itself it says that the answer was wrong.

    Raises:
        InvalidInput: there is none, several that say something else, or one out of range.
    """
    said: dict[str, float] = {}
    if score is not None:
        said["score"] = score
    if stars is not None:
        said["stars"] = (stars - 1) / (_STARS - 1)
    if thumbs is not None:
        if thumbs not in ("up", "down"):
            raise InvalidInput(f"thumbs are up or down, not {thumbs!r}")
        said["thumbs"] = float(thumbs == "up")
    if not said and correct is None:
        raise InvalidInput(
            "say how good the answer was: a score from 0 to 1, 1 to 5 stars, thumbs up or down, or a correction"
        )
    if len(said) > 1:
        raise InvalidInput(f"say it in one way, not by {' and '.join(said)}")
    value = next(iter(said.values()), 0.0)
    if not 0.0 <= value <= 1.0:
        raise InvalidInput("stars go from 1 to 5" if stars is not None else f"a score goes from 0 to 1, not {value:g}")
    return value


async def keep_feedback(
    ledger: Ledger,
    about: Record,
    value: float,
    *,
    comment: str = "",
    correct: Mapping[str, Any] | None = None,
    by: str = "",
) -> Record:
    """Append a person's word on an answer; the score's record.

    Args:
        ledger: where to.
        about: the answer's record.
        value: 0 to 1.
        comment: in their words.
        correct: the right outputs, those that were wrong, by field name.
        by: who.

    Raises:
        InvalidInput: out of range or too long, about no answer, or a correction of what is no output.
        NotFound: the ledger has no such record.
    """
    if not 0.0 <= value <= 1.0:
        raise InvalidInput(f"a score goes from 0 to 1, not {value:g}")
    if len(comment) > _LONGEST:
        raise InvalidInput(f"a comment has at most {_LONGEST} characters")
    about = await ledger.record(about.scope, about.id)
    if about.kind not in ("program", "model"):
        raise InvalidInput(f"record {about.id} is a {about.kind}, not an answer")
    if correct is not None:
        await _check_correction(ledger, about, correct)
    score = Score(FEEDBACK, about, value, comment, correct)
    return (await keep_scores(ledger, about.scope, [score], by=by))[0]


async def _check_correction(ledger: Ledger, about: Record, correct: Mapping[str, Any]) -> None:
    if about.kind != "program":
        raise InvalidInput(f"record {about.id} is a model's reply: correct the answer of the program that asked for it")
    if not correct or len(to_json(correct)) > _LONGEST:
        raise InvalidInput(f"a correction names at least one output and has at most {_LONGEST} bytes")
    data = await ledger.payload(about.scope, about.output_digest)
    if data is None:  # erased, or never kept: nobody can tell
        return
    known = cast("Mapping[str, Any]", from_json(data))
    if strange := [name for name in correct if name not in known]:
        raise InvalidInput(f"{strange[0]!r} is no output of {about.ref}: it has {', '.join(known)}")


async def keep_scores(
    ledger: Ledger,
    scope: Scope,
    scores: Sequence[Score],
    *,
    run_id: str = "",
    by: str = "",
    above: str | None = None,
) -> tuple[Record, ...]:
    """Append scores, all or none.

    Args:
        ledger: where to.
        scope: whose.
        scores: what was said.
        run_id: the run that said it; without one, each score belongs to the run of what it is about.
        by: who.
        above: the record of the program call that said it.
    """
    now = time.time()
    records: list[Record] = []
    payloads: list[Payload] = []
    for score in scores:
        said = _said(score)
        content = None if said is None else ledger.seal(scope, said)
        if content is not None:
            payloads.append(content)
        about = score.about
        records.append(
            Record(
                id=new_id(),
                kind="score",
                ref=score.name,
                run_id=run_id or about.run_id,
                scope=scope,
                started_at=now,
                parent_id=above,
                principal=by,
                about=about.id,
                value=score.value,
                params=about.params,
                version=about.version,
                experiment=about.experiment,
                subject=about.subject,
                model=about.model,
                output_digest=None if content is None else content.digest,
            )
        )
    await ledger.append(scope, records, payloads)
    return tuple(records)


def _said(score: Score) -> bytes | None:
    said: dict[str, Any] = {}
    if score.comment:
        said["comment"] = score.comment
    if score.correct is not None:
        said["correct"] = score.correct
    return to_json(said) if said else None


@dataclass(frozen=True, slots=True)
class Said:
    """What was said with a score, as far as it is still there."""

    comment: str = ""
    correct: dict[str, Any] | None = None


async def said_with(ledger: Ledger, score: Record) -> Said:
    """The comment and the correction of a score record; nothing where there was none, or it is erased."""
    data = await ledger.payload(score.scope, score.output_digest)
    if data is None:
        return Said()
    kept = from_json(data)
    return Said(kept.get("comment", ""), kept.get("correct"))
