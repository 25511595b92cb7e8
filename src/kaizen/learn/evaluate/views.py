"""What an evaluation shows besides its score: what was taken for what, what went wrong, how parts of the rows do."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any, Final, cast

from kaizen.core.errors import ConfigError
from kaizen.core.spec import Spec, shorten
from kaizen.learn.evaluate.result import Evaluation, RowResult
from kaizen.learn.metrics.compare import f1, items, overlap, same
from kaizen.learn.stats import interval

NO_ANSWER: Final = "(no answer)"
_OTHERS: Final = "(others)"
_MOST_SLICES: Final = 50


@dataclass(frozen=True, slots=True)
class Confusion:
    """What was expected and what came, for a lone output of few values.

    Args:
        field: the output.
        labels: in the contract's order; rows are what was expected.
        got: the columns: ``labels``, and last, where there are any, rows without an answer.
        counts: rows by columns.
        macro_f1: the mean over the labels that were expected of their F1; rarer labels count as much as others.
    """

    field: str
    labels: tuple[str, ...]
    got: tuple[str, ...]
    counts: tuple[tuple[int, ...], ...]
    macro_f1: float

    def summary(self) -> dict[str, Any]:
        """As JSON-able values."""
        return {name: getattr(self, name) for name in self.__slots__}


def confusion(spec: Spec, evaluation: Evaluation) -> Confusion | None:
    """The confusion of a contract's lone Literal (enum, bool) output; None for any other contract."""
    field = labelled(spec)
    if field is None:
        return None
    name, labels = field
    pairs = [
        (one.row.outputs[name], NO_ANSWER if one.prediction is None else one.prediction.get(name))
        for one in evaluation.results
        if name in one.row.outputs
    ]
    shown = [(_text(wanted), _text(got)) for wanted, got in pairs]
    known = list(dict.fromkeys([*map(_text, labels), *(wanted for wanted, _ in shown)]))
    got = list(dict.fromkeys([*known, *(each for _, each in shown)]))
    counts = Counter(shown)
    table = tuple(tuple(counts[wanted, each] for each in got) for wanted in known)
    scores = [
        f1(hit, sum(counts[other, label] for other in known) - hit, sum(row) - hit)
        for label, row in zip(known, table, strict=True)
        if sum(row) and (hit := counts[label, label]) >= 0
    ]
    return Confusion(name, tuple(known), tuple(got), table, fmean(scores) if scores else 0.0)


def labelled(spec: Spec) -> tuple[str, tuple[Any, ...]] | None:
    """The one output of a contract and its values, where it has one output with a few values."""
    if len(spec.outputs) != 1:
        return None
    (name,) = spec.outputs
    values = _values(spec.output_schema["properties"][name], spec.output_schema.get("$defs", {}))
    return None if values is None else (name, values)


def _values(schema: Mapping[str, Any], definitions: Mapping[str, Any]) -> tuple[Any, ...] | None:
    """The values that a schema admits, None where they are many."""
    if "$ref" in schema:
        return _values(definitions.get(schema["$ref"].rpartition("/")[2], {}), definitions)
    if "enum" in schema:
        return tuple(cast("Sequence[Any]", schema["enum"]))
    if "const" in schema:
        return (schema["const"],)
    if schema.get("type") == "boolean":
        return (False, True)
    if "anyOf" in schema:
        parts = [
            (None,) if part.get("type") == "null" else _values(part, definitions)
            for part in cast("Sequence[Mapping[str, Any]]", schema["anyOf"])
        ]
        known = [part for part in parts if part is not None]
        return tuple(value for part in known for value in part) if len(known) == len(parts) else None
    return None


def _text(value: Any) -> str:
    return value if isinstance(value, str) else "null" if value is None else str(value).lower()


@dataclass(frozen=True, slots=True)
class FieldScore:
    """How one output field does.

    Args:
        name: the field.
        n: rows that say what it should be.
        right: share of them that are right.
        precision, recall, f1: of its filled values: over all rows together.
    """

    name: str
    n: int
    right: float
    precision: float
    recall: float
    f1: float

    def summary(self) -> dict[str, Any]:
        """As JSON-able values."""
        return {name: getattr(self, name) for name in self.__slots__}


def fields_of(spec: Spec, evaluation: Evaluation) -> list[FieldScore]:
    """Each output by itself, and under ``all`` the filled values of all of them together (micro-averaged)."""
    made: list[FieldScore] = []
    total = [0, 0, 0]
    n_all = right_all = 0
    for name in spec.outputs:
        rows = [one for one in evaluation.results if name in one.row.outputs]
        if not rows:
            continue
        counts = [0, 0, 0]
        right = 0
        for one in rows:
            wanted, got = one.row.outputs[name], (one.prediction or {}).get(name)
            right += one.prediction is not None and same(wanted, got)
            for place, count in enumerate(overlap(items(name, wanted), items(name, got))):
                counts[place] += count
                total[place] += count
        n_all, right_all = n_all + len(rows), right_all + right
        made.append(_field_score(name, len(rows), right, counts))
    return [*made, _field_score("all", n_all, right_all, total)] if len(made) > 1 else made


def _field_score(name: str, n: int, right: int, counts: Sequence[int]) -> FieldScore:
    both, extra, missed = counts
    precision = both / (both + extra) if both + extra else 1.0
    recall = both / (both + missed) if both + missed else 1.0
    return FieldScore(name, n, right / n, precision, recall, f1(both, extra, missed))


@dataclass(frozen=True, slots=True)
class Mistake:
    """A kind of mistake.

    Args:
        what: in the metric's words, or the error's code.
        rows: how many.
        example: the inputs of the first, shortened.
    """

    what: str
    rows: int
    example: str


def mistakes(evaluation: Evaluation, most: int = 20) -> list[Mistake]:
    """What went wrong, the commonest first."""
    found: dict[str, list[RowResult]] = {}
    for one in evaluation.results:
        if one.error is not None:
            found.setdefault(one.error, []).append(one)
        elif one.score is not None and one.score < 1 and one.comment:
            found.setdefault(one.comment, []).append(one)
    ordered = sorted(found.items(), key=lambda item: -len(item[1]))[:most]
    return [Mistake(what, len(rows), shorten(dict(rows[0].row.inputs))) for what, rows in ordered]


@dataclass(frozen=True, slots=True)
class Slice:
    """The rows that share a value.

    Args:
        value: which.
        n: how many were scored.
        score: their mean.
        low, high: its 95 % interval.
    """

    value: str
    n: int
    score: float
    low: float
    high: float

    def summary(self) -> dict[str, Any]:
        """As JSON-able values."""
        return {name: getattr(self, name) for name in self.__slots__}


def slices(evaluation: Evaluation, name: str) -> list[Slice]:
    """The score by the values of a column: an input, an expected output, or any other; largest first.

    Raises:
        ConfigError: no row has such a column.
    """
    found: dict[str, list[float]] = {}
    known: set[str] = set()
    for one in evaluation.results:
        row = one.row
        columns = {**row.others, **row.inputs, **row.outputs}
        known |= columns.keys()
        if name in columns and one.score is not None:
            found.setdefault(_text(columns[name]), []).append(one.score)
    if name not in known:
        raise ConfigError(f"--slice {name}: no row has such a column; columns: {', '.join(sorted(known))}")
    ordered = sorted(found.items(), key=lambda item: (-len(item[1]), item[0]))
    if len(ordered) > _MOST_SLICES:
        rest = [score for _, scores in ordered[_MOST_SLICES - 1 :] for score in scores]
        ordered = [*ordered[: _MOST_SLICES - 1], (_OTHERS, rest)]
    return [Slice(value, len(scores), fmean(scores), *interval(scores)) for value, scores in ordered]
