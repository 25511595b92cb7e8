"""Datasets: content addresses, differences, splits without leaks, and rows under seal."""

from __future__ import annotations

import random

import pytest

from kaizen.core.artifact import Artifact
from kaizen.core.context import Context
from kaizen.core.errors import ConfigError, Conflict, Denied, InvalidInput
from kaizen.core.scope import LOCAL, Scope
from kaizen.learn.data.dataset import Dataset, Sealed, diff
from kaizen.learn.data.guard import kept_for_tests, refuse_tests
from kaizen.learn.data.rows import Row
from kaizen.learn.data.split import split
from kaizen.registry.registry import Registry
from kaizen.stores.registry.memory import MemoryArchive
from tests.unit.programs.house import Open


def rows_of(n: int, groups: int = 0) -> list[Row]:
    return [
        Row({"text": f"message {place}"}, {"team": "ab"[place % 2]}, f"g{place % groups}" if groups else None)
        for place in range(n)
    ]


def test_a_dataset_is_its_content() -> None:
    dataset = Dataset.of("triage", rows_of(3, 2), {"consent": "given"})
    artifact = dataset.artifact(("params/x@1",))
    assert (artifact.kind, artifact.name, artifact.parents) == ("dataset", "triage", ("params/x@1",))
    assert Dataset.load(artifact) == dataset
    assert dataset.version == Dataset.of("other", rows_of(3, 2), {"consent": "given"}).version
    assert dataset.version != Dataset.of("triage", rows_of(3, 2)[::-1], {"consent": "given"}).version
    others = Dataset.of("triage", [Row({"a": 1}, {}, None, {"id": 3})])
    assert Dataset.load(others.artifact()).rows[0].others == {"id": 3}


@pytest.mark.parametrize("body", [b"no json", b"[]", b'{"rows": [{"inputs": {}}]}', b'{"rows": 3}'])
def test_what_is_no_dataset_is_refused(body: bytes) -> None:
    with pytest.raises(InvalidInput, match="is no dataset"):
        Dataset.load(Artifact("dataset", "x", body))


def test_a_difference_tells_relabelled_rows_from_new_ones() -> None:
    before = Dataset.of("a", [*rows_of(3), Row({"text": "gone"}, {"team": "a"})])
    after = Dataset.of("a", [*rows_of(2), Row({"text": "message 2"}, {"team": "b"}), Row({"text": "new"}, {})])
    found = diff(before, after)
    assert [row.inputs["text"] for row in found.added] == ["new"]
    assert [row.inputs["text"] for row in found.removed] == ["gone"]
    assert [(old.outputs, new.outputs) for old, new in found.relabelled] == [({"team": "a"}, {"team": "b"})]
    assert found.same == 2


def test_a_split_is_fixed_by_its_seed_and_not_by_the_order() -> None:
    rows = rows_of(100)
    shares = {"train": 0.6, "val": 0.2, "test": 0.2}
    parts = split(rows, seed=1, shares=shares)
    assert {name: len(part) for name, part in parts.items()} == {"train": 60, "val": 20, "test": 20}
    mixed = rows[:]
    random.Random(0).shuffle(mixed)
    again = split(mixed, seed=1, shares=shares)
    assert {name: {row.key for row in part} for name, part in again.items()} == {
        name: {row.key for row in part} for name, part in parts.items()
    }
    assert split(rows, seed=2, shares=shares)["test"] != parts["test"]


@pytest.mark.parametrize("seed", range(20))
def test_no_group_and_no_question_is_in_two_parts(seed: int) -> None:
    rng = random.Random(seed)
    grouped = [Row({"text": f"{place}"}, {}, f"g{rng.randrange(30)}") for place in range(150)]
    doubled = [Row({"text": f"same {place % 10}"}, {"team": f"{place}"}) for place in range(50)]
    parts = split([*grouped, *doubled], seed=seed, shares={"train": 0.5, "val": 0.25, "test": 0.25})
    groups = [{row.group or row.asked for row in part} for part in parts.values()]
    assert not groups[0] & groups[1]
    assert not groups[0] & groups[2]
    assert not groups[1] & groups[2]
    assert sum(len(part) for part in parts.values()) == 200
    assert abs(len(parts["train"]) - 100) <= 12  # the largest group


@pytest.mark.parametrize("seed", range(20))
def test_a_question_that_several_groups_ask_is_in_one_part(seed: int) -> None:
    rng = random.Random(seed)
    # of 60 customers, pairs ask the same now and then; and so do rows without a customer
    rows = [Row({"text": f"{place} {turn}"}, {}, f"g{place}") for place in range(60) for turn in range(2)]
    rows += [Row({"text": f"asked by two: {place % 10}"}, {}, f"g{place}") for place in range(20)]
    rows += [Row({"text": f"asked by two: {place}"}, {}) for place in range(10)]
    shares = {"train": 0.5, "val": 0.25, "test": 0.25}
    parts = split(rows, seed=seed, shares=shares)
    for names in (
        [{row.asked for row in part} for part in parts.values()],
        [{row.group for row in part if row.group} for part in parts.values()],
    ):
        assert not names[0] & names[1]
        assert not names[0] & names[2]
        assert not names[1] & names[2]
    rng.shuffle(rows)
    again = split(rows, seed=seed, shares=shares)
    assert {name: {row.key for row in part} for name, part in again.items()} == {
        name: {row.key for row in part} for name, part in parts.items()
    }


def test_groups_can_be_left_out_of_it_and_a_share_may_be_nothing() -> None:
    parts = split(rows_of(10, 1), seed=0, shares={"train": 0.5, "test": 0.5, "none": 0.0}, by_group=False)
    assert [len(part) for part in parts.values()] == [5, 5, 0]
    with pytest.raises(ConfigError, match="sum to 1"):
        split(rows_of(3), seed=0, shares={"train": 0.5})


async def test_sealed_rows_open_once_with_a_reason_that_is_on_record(house: Open) -> None:
    here = house()
    sealed = Sealed(rows_of(4))
    assert (len(sealed), repr(sealed)) == (4, "<4 sealed rows>")
    for read in (list, lambda rows: rows[0]):
        with pytest.raises(Denied, match="under seal"):
            read(sealed)  # type: ignore[operator]
    ctx = Context(await here.app.new_run())
    with sealed.shut(), pytest.raises(Denied, match="while an optimizer searches"):
        await sealed.open(ctx, "to peek")
    assert len(await sealed.open(ctx, "the test")) == 4
    assert len(await sealed.open(ctx, "the test")) == 4
    with pytest.raises(Denied, match=r"opened already \(the test\)"):
        await sealed.open(ctx, "another test")
    records = await here.records(ref="kaizen.learn.sealed")
    assert len(records) == 2
    kept = await here.kept(records[0].input_digest)
    assert kept is not None
    assert sealed.version.encode() in kept
    assert b"the test" in kept


async def test_the_runs_that_opened_the_same_rows_are_counted(house: Open) -> None:
    here = house()
    ledger, scope = here.app.ledger, here.app.scope
    runs = [await here.app.new_run() for _ in range(3)]
    for run, opened in zip(runs, (rows_of(4), rows_of(4)[::-1], rows_of(3)), strict=True):
        for _ in range(2):
            await Sealed(opened).open(Context(run), "the test")
    sealed = Sealed(rows_of(4))
    assert await sealed.openings(ledger, scope) == 2
    assert await sealed.openings(ledger, scope, besides=runs[0].run_id) == 1
    assert await sealed.openings(ledger, Scope("other", "dev")) == 0


def test_rows_under_seal_are_refused_among_those_to_learn_from() -> None:
    sealed = Sealed(rows_of(4))
    sealed.refuse([Row({"text": "another"}, {})])
    with pytest.raises(Conflict, match="1 of the rows to learn from is among the 4"):
        sealed.refuse([Row({"text": "message 1"}, {"team": "whatever"})])
    with pytest.raises(Conflict, match="2 of the rows to learn from are"):
        sealed.refuse(rows_of(2))


async def test_what_was_put_aside_for_a_test_is_known_again_in_any_file() -> None:
    registry = Registry(MemoryArchive())
    rows = rows_of(4)
    for part, mine in (("train", rows[:2]), ("test", rows[2:])):
        artifact = Dataset.of(f"triage/{part}", mine, {"part": part}).artifact()
        await registry.put(LOCAL, artifact, author="import", reason="a test")
    assert set((await kept_for_tests(registry, LOCAL)).values()) == {"triage/test"}
    await refuse_tests(registry, LOCAL, rows[:2])
    with pytest.raises(Denied, match="1 of the rows to learn from is kept for testing in dataset triage/test"):
        await refuse_tests(registry, LOCAL, [rows[0], rows[3]])
