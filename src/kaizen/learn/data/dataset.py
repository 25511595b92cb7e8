"""A dataset: rows under a name, content-addressed, kept as an artifact; and test rows under seal."""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NoReturn

import pydantic
from pydantic_core import from_json

from kaizen.core.answer import Answer
from kaizen.core.artifact import Artifact
from kaizen.core.context import Context
from kaizen.core.errors import Conflict, Denied, InvalidInput
from kaizen.core.ids import digest
from kaizen.core.record import RecordQuery
from kaizen.core.scope import Scope
from kaizen.core.spec import Field, Spec
from kaizen.learn.data.rows import Row, canonical
from kaizen.ledger.ledger import Ledger

KIND: Final = "dataset"


@dataclass(frozen=True, slots=True)
class Dataset:
    """Rows under a name.

    Args:
        name: such as ``triage`` or ``triage/test``.
        rows: in order; the order is part of what it is.
        about: where they come from and what was done to them: filters, redaction, consent.
    """

    name: str
    rows: tuple[Row, ...]
    about: Mapping[str, Any] = field(default_factory=dict[str, Any])

    @classmethod
    def of(cls, name: str, rows: Iterable[Row], about: Mapping[str, Any] | None = None) -> Dataset:
        """A dataset of these rows."""
        return cls(name, tuple(rows), about or {})

    def artifact(self, parents: Sequence[str] = ()) -> Artifact:
        """What the registry keeps of it: everything.

        Args:
            parents: refs of the artifacts it was made from.
        """
        body = canonical({"about": self.about, "rows": [_written(row) for row in self.rows]})
        return Artifact(KIND, self.name, body, tuple(parents))

    @classmethod
    def load(cls, artifact: Artifact) -> Dataset:
        """What ``artifact`` made an artifact of.

        Raises:
            InvalidInput: if it is none of a dataset.
        """
        try:
            body = from_json(artifact.body)
            rows = tuple(
                Row(one["inputs"], one["outputs"], one.get("group"), one.get("others", {})) for one in body["rows"]
            )
            return cls(artifact.name, rows, body.get("about", {}))
        except (ValueError, KeyError, TypeError, AttributeError):
            raise InvalidInput(f"{artifact.ref} is no dataset") from None

    @property
    def version(self) -> str:
        """Content address."""
        return self.artifact().version

    def __len__(self) -> int:
        return len(self.rows)


def _written(row: Row) -> dict[str, Any]:
    written: dict[str, Any] = {"inputs": row.inputs, "outputs": row.outputs}
    if row.group is not None:
        written["group"] = row.group
    if row.others:
        written["others"] = row.others
    return written


@dataclass(frozen=True, slots=True)
class Changes:
    """How a dataset differs from another: rows by content, so that order says nothing.

    Args:
        added, removed: rows of only the one or the other.
        relabelled: rows of the same inputs whose outputs changed, before and after.
        same: how many are in both.
    """

    added: tuple[Row, ...]
    removed: tuple[Row, ...]
    relabelled: tuple[tuple[Row, Row], ...]
    same: int


def diff(before: Dataset, after: Dataset) -> Changes:
    """What changed from one dataset to the other."""
    kept = _bags(before.rows)
    added: list[Row] = []
    same = 0
    for row in after.rows:
        if left := kept.get(row.key):
            left.pop()
            same += 1
        else:
            added.append(row)
    removed = [row for left in kept.values() for row in left]
    asked: dict[str, list[Row]] = {}
    for row in removed:
        asked.setdefault(row.asked, []).append(row)
    relabelled: list[tuple[Row, Row]] = []
    new: list[Row] = []
    for row in added:
        if old := asked.get(row.asked):
            relabelled.append((old.pop(0), row))
        else:
            new.append(row)
    return Changes(tuple(new), tuple(row for left in asked.values() for row in left), tuple(relabelled), same)


def _bags(rows: Iterable[Row]) -> dict[str, list[Row]]:
    bags: dict[str, list[Row]] = {}
    for row in rows:
        bags.setdefault(row.key, []).append(row)
    return bags


# -- under seal -----------------------------------------------------------------------------------


def _field(name: str, annotation: Any, role: Any) -> Field:
    info: Any = pydantic.Field()
    return Field(name, role, annotation, info)


_OPENING: Final = Spec(
    "kaizen.learn.sealed",
    "Open rows that were kept under seal for one test.",
    [_field("rows", str, "input"), _field("reason", str, "input"), _field("n", int, "output")],
)


class _Opening:
    """The program whose record says that sealed rows were opened, by whom and why."""

    def __init__(self, n: int) -> None:
        self.spec, self._n = _OPENING, n

    async def __call__(self, ctx: Context, /, **inputs: Any) -> Answer:
        """Nothing but the record."""
        return Answer.of({"n": self._n}, inputs=inputs)


class Sealed:
    """Test rows that nobody reads before the test.

    An optimizer may be handed them, and learns how many they are and nothing else: reading is a ``Denied`` while it
    searches, and afterwards needs a reason and leaves a record. They open for one reason: who tests twice and keeps
    the better has trained on the test. Other runs may have opened the same rows before, which ``openings`` counts:
    what they then say is worth less each time.

    Args:
        rows: the rows.
    """

    def __init__(self, rows: Iterable[Row]) -> None:
        self._rows = tuple(rows)
        self._asked = frozenset(row.asked for row in self._rows)
        self._shut = 0
        self._opened: str | None = None
        self.version = digest("".join(sorted(row.key for row in self._rows)).encode())

    def __len__(self) -> int:
        return len(self._rows)

    def __repr__(self) -> str:
        return f"<{len(self)} sealed rows>"

    def __iter__(self) -> Iterator[NoReturn]:
        raise Denied(f"these {len(self)} rows are under seal for the test: nothing may be trained on them")

    def __getitem__(self, place: object) -> NoReturn:
        iter(self)
        raise AssertionError

    @contextlib.contextmanager
    def shut(self) -> Generator[None]:
        """As long as this lasts, nobody opens them: an optimizer's search runs inside."""
        self._shut += 1
        try:
            yield
        finally:
            self._shut -= 1

    def refuse(self, rows: Iterable[Row]) -> None:
        """Make sure that nothing is trained on that is tested on.

        Raises:
            Conflict: rows of the same inputs are under this seal.
        """
        leaked = sum(row.asked in self._asked for row in rows)
        if leaked:
            verb = "is" if leaked == 1 else "are"
            raise Conflict(f"{leaked} of the rows to learn from {verb} among the {len(self)} to test on: take them out")

    async def openings(self, ledger: Ledger, scope: Scope, *, besides: str = "") -> int:
        """How many runs have opened these very rows.

        Args:
            ledger: where that is on record. What was erased there is not counted.
            scope: whose.
            besides: a run that does not count.
        """
        runs: set[str] = set()
        async for record in ledger.records(scope, RecordQuery(kind="program", ref=_OPENING.name, status="ok")):
            if record.run_id not in (besides, *runs):
                data = await ledger.payload(scope, record.input_digest)
                if data is not None and from_json(data)["rows"] == self.version:
                    runs.add(record.run_id)
        return len(runs)

    async def open(self, ctx: Context, reason: str) -> tuple[Row, ...]:
        """The rows; the opening is a step of the run, on record.

        Args:
            ctx: the run's.
            reason: why, for the record.

        Raises:
            Denied: while an optimizer searches, or when they were opened for another reason already.
        """
        if self._shut:
            raise Denied(f"these {len(self)} rows are under seal while an optimizer searches")
        if self._opened not in (None, reason):
            raise Denied(f"these rows were opened already ({self._opened}): a second test would choose by the first")
        self._opened = reason
        await ctx.call(_Opening(len(self)), rows=self.version, reason=reason)
        return self._rows
