"""Rows out of the records: what a program was asked and answered, what was said about it, and who may use it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import fmean
from typing import Any, Final, cast

import pydantic
from pydantic_core import from_json

from kaizen.core.answer import Answer
from kaizen.core.context import Context
from kaizen.core.errors import InvalidInput
from kaizen.core.record import Record, RecordQuery
from kaizen.core.scope import Scope
from kaizen.core.spec import Field, Spec
from kaizen.learn.data.alike import farthest, text_of_row, unlike
from kaizen.learn.data.dataset import Dataset
from kaizen.learn.data.redact import KINDS, redacted
from kaizen.learn.data.rows import Row
from kaizen.learn.data.where import Where
from kaizen.ledger.ledger import Ledger
from kaizen.ledger.scores import FEEDBACK, said_with

OWN: Final = "kaizen:"
"""What the principal of a run begins with that is a test or a search, and no use of the program."""

_OWN_PROGRAMS: Final = "kaizen."

RECORD: Final = "_record"
SCORE: Final = "_score"


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What is wanted of a program's records.

    Args:
        program: its name.
        where: the condition on them; see ``values_of`` for the names.
        since: Unix seconds of the earliest.
        limit: rows at most, the newest; before ``diverse``.
        diverse: rows to choose so that they lie far apart.
        redact: whether personal data of known shapes is taken out.
        consent: on what ground the data may be used, in the words of whoever says so.
        group_by: what tells a row's group: ``subject``, ``principal``, ``run``, or the name of a value such as
            ``input.customer``; empty for none.
        keep_alike: whether near duplicates stay.
        contract: digest of the contract that the program has now; records made under another are left out.
    """

    program: str
    contract: str | None = None
    where: Where | None = None
    since: float | None = None
    limit: int | None = None
    diverse: int | None = None
    redact: bool = False
    consent: str = ""
    group_by: str = "subject"
    keep_alike: bool = False


@dataclass(slots=True)
class Counts:
    """What became of the records.

    Args:
        records: answered calls of the program.
        other: calls under another contract, not counted among the records.
        erased: of them, those whose contents are not kept, or erased.
        unfit: those for which the condition does not hold.
        alike: near duplicates left out.
        corrected: rows whose outputs somebody corrected.
        found: personal data taken out, by kind.
    """

    records: int = 0
    other: int = 0
    erased: int = 0
    unfit: int = 0
    alike: int = 0
    corrected: int = 0
    found: Counter[str] = field(default_factory=Counter[str])


@dataclass(slots=True)
class _Word:
    """What was said about one record."""

    values: dict[str, list[float]] = field(default_factory=dict[str, "list[float]"])
    said: list[Record] = field(default_factory=list[Record])


async def rows_from_runs(ledger: Ledger, scope: Scope, wish: Wish) -> tuple[tuple[Row, ...], Counts]:
    """The rows that a wish finds, the best scored and newest first, near duplicates left out; and what became of all.

    A correction takes the place of what was answered.

    Args:
        ledger: the records.
        scope: whose.
        wish: which.
    """
    words, tests = await _words(ledger, scope), await _tests(ledger, scope)
    counts = Counts()
    found: list[tuple[float, str, Row]] = []
    query = RecordQuery(kind="program", ref=wish.program, status="ok", since=wish.since, newest_first=True)
    async for record in ledger.records(scope, query):
        if record.principal.startswith(OWN) or record.run_id in tests:
            continue  # asked by an evaluation or an optimizer: rows to test on must not come back as rows to learn from
        if wish.contract not in (None, record.contract):
            counts.other += 1
            continue
        counts.records += 1
        word = words.get(record.id, _Word())
        made = await _row(ledger, record, word, wish, counts)
        if made is not None:
            found.append((_mean(word) or 0.0, record.id, made))
        if wish.limit is not None and len(found) >= wish.limit:
            break
    rows = tuple(row for _, _, row in sorted(found, key=lambda one: one[:2], reverse=True))
    if wish.keep_alike:
        return rows, counts
    rows, counts.alike = unlike(rows)
    return rows, counts


async def _tests(ledger: Ledger, scope: Scope) -> frozenset[str]:
    """The runs of Kaizen's own programs: evaluations, searches."""
    roots = ledger.records(scope, RecordQuery(kind="program", root_only=True))
    return frozenset([record.run_id async for record in roots if record.ref.startswith(_OWN_PROGRAMS)])


async def _words(ledger: Ledger, scope: Scope) -> dict[str, _Word]:
    words: dict[str, _Word] = {}
    async for score in ledger.records(scope, RecordQuery(kind="score")):
        if score.about is None or score.value is None:
            continue
        word = words.setdefault(score.about, _Word())
        word.values.setdefault(score.ref, []).append(score.value)
        if score.output_digest is not None:
            word.said.append(score)
    return words


def _mean(word: _Word) -> float | None:
    """What people said counts before what metrics said."""
    values = word.values.get(FEEDBACK) or [value for values in word.values.values() for value in values]
    return fmean(values) if values else None


async def _row(ledger: Ledger, record: Record, word: _Word, wish: Wish, counts: Counts) -> Row | None:
    contents = [await ledger.payload(record.scope, digest) for digest in (record.input_digest, record.output_digest)]
    if contents[0] is None or contents[1] is None:
        counts.erased += 1
        return None
    inputs, outputs = (cast("dict[str, Any]", from_json(data)) for data in contents if data is not None)
    correct: dict[str, Any] = {}
    for score in word.said:
        correct |= (await said_with(ledger, score)).correct or {}
    values = values_of(record, word.values, inputs, outputs, corrected=bool(correct))
    if wish.where is not None and not wish.where(values):
        counts.unfit += 1
        return None
    counts.corrected += bool(correct)
    others: dict[str, Any] = {RECORD: record.id}
    if (score := _mean(word)) is not None:
        others[SCORE] = score
    row = Row(inputs, outputs | correct, _group(wish.group_by, values), others)
    if wish.redact:
        row, taken = redacted(row)
        counts.found.update(taken)
        if row.group is not None:
            # a group is often an e-mail address. Keyed, since who has a list of addresses could try them one by one
            row = replace(row, group=ledger.seal(record.scope, f"group {row.group}".encode()).digest)
    return row


def values_of(
    record: Record,
    scores: Mapping[str, Sequence[float]],
    inputs: Mapping[str, Any],
    outputs: Mapping[str, Any],
    *,
    corrected: bool = False,
) -> dict[str, Any]:
    """What a condition may ask about.

    ``score`` (people's before metrics'), ``score.accuracy`` and the like (means), ``scores`` (how many), ``corrected``,
    ``input.NAME``, ``output.NAME``, and of the record ``model``, ``params``, ``version``, ``principal``, ``subject``,
    ``run``, ``latency_ms``, ``cost_usd``, ``tokens_in``, ``tokens_out`` and ``cache_tier``.
    """
    means = {name.rpartition(".")[2]: fmean(values) for name, values in scores.items()}
    whole = means.get(FEEDBACK)
    every = [value for values in scores.values() for value in values]
    return {
        "score": whole if whole is not None else fmean(every) if every else None,
        **{f"score.{name}": value for name, value in means.items()},
        "scores": len(every),
        "corrected": corrected,
        "input": inputs,
        "output": outputs,
        "model": record.model,
        "params": record.params,
        "version": record.version,
        "principal": record.principal,
        "subject": record.subject or record.principal,
        "run": record.run_id,
        "latency_ms": record.latency_ms,
        "cost_usd": record.cost_usd,
        "tokens_in": record.tokens_in,
        "tokens_out": record.tokens_out,
        "cache_tier": record.cache_tier,
    }


def _group(name: str, values: Mapping[str, Any]) -> str | None:
    head, _, rest = name.partition(".")
    found = values.get(head)
    if rest and isinstance(found, Mapping):
        found = cast("Mapping[str, Any]", found).get(rest)
    return None if found in (None, "") else str(found)


def curated(name: str, rows: Sequence[Row], wish: Wish, counts: Counts) -> Dataset:
    """A dataset of what was found, which says where it is from and what was done to it.

    Raises:
        InvalidInput: nothing was found.
    """
    if not rows:
        raise InvalidInput(
            f"nothing is left of {counts.records} calls of {wish.program}: {counts.erased} without contents, "
            f"{counts.unfit} for which the condition does not hold"
        )
    taken = {kind: counts.found[kind] for kind in KINDS if counts.found[kind]}
    about = {
        "source": "runs",
        "program": wish.program,
        "where": wish.where.text if wish.where is not None else "",
        "records": counts.records,
        "alike_left_out": counts.alike,
        "corrected": counts.corrected,
        "redaction": {"shapes": list(KINDS), "taken_out": taken} if wish.redact else "none",
        "consent": wish.consent or "not stated",
        "grouped_by": wish.group_by,
        "diverse": wish.diverse,
    }
    return Dataset.of(name, rows, about)


# -- diverse rows ---------------------------------------------------------------------------------


def _field(name: str, annotation: Any, role: Any) -> Field:
    info: Any = pydantic.Field()
    return Field(name, role, annotation, info)


_PICKING: Final = Spec(
    "kaizen.dataset.pick",
    "Choose rows that lie far apart.",
    [_field("rows", str, "input"), _field("n", int, "input"), _field("places", list[int], "output")],
)


class Picking:
    """Chooses rows that lie far apart, by the embedder; a Program, for the embedder is its Context's.

    Args:
        rows: to choose from.
    """

    def __init__(self, rows: Sequence[Row]) -> None:
        self.spec, self._rows = _PICKING, rows

    async def __call__(self, ctx: Context, /, **inputs: Any) -> Answer:
        """The places of the chosen rows."""
        points = await ctx.embed([text_of_row(row) for row in self._rows])
        return Answer.of({"places": sorted(farthest(points, inputs["n"]))}, inputs=inputs)
