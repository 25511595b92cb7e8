"""The registry: names, numbers, labels and rollbacks."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from kaizen.core.artifact import BASE, Arm, Artifact, Move, Version
from kaizen.core.errors import Conflict, InvalidInput, NotFound
from kaizen.core.scope import LOCAL, Scope
from kaizen.registry.registry import Registry
from kaizen.stores.registry.memory import MemoryArchive

NAME = "bank.Triage"
OTHER = Scope("other")


class Shelf:
    """A registry with some versions of one program's params."""

    def __init__(self, registry: Registry) -> None:
        self.registry = registry

    async def put(self, body: str, kind: str = "params", name: str = NAME) -> Version:
        return await self.registry.put(LOCAL, Artifact(kind, name, body.encode()), author="human:ada", reason="why")

    async def label(self, *versions: Version | str, label: str = "prod", **how: Any) -> str:
        arms = [Arm(one if isinstance(one, str) else one.artifact.version, 1 / len(versions)) for one in versions]
        move = await self.registry.label(LOCAL, "params", NAME, label, arms, actor="ada", reason="r", **how)
        return move.id

    async def back(self, label: str = "prod", **how: Any) -> str:
        await self.registry.rollback(LOCAL, "params", NAME, label, actor="bob", reason="bad", **how)
        return await self.shown(label)

    async def shown(self, label: str = "prod") -> str:
        """The bodies, or ``base``, that a label shows."""
        arms = await self.registry.arms(LOCAL, "params", NAME, label)
        bodies = {head.version: head.number for head in await self.registry.heads(LOCAL)}
        return "+".join(f"{bodies.get(arm.version, arm.version)}" for arm in arms or ())


@pytest.fixture
def shelf() -> Shelf:
    return Shelf(Registry(MemoryArchive()))


async def test_to_create_a_version_moves_no_label(shelf: Shelf) -> None:
    first = await shelf.put("1")
    await shelf.label(first)
    await shelf.put("2")
    assert await shelf.shown() == "1"
    assert await shelf.registry.labels(LOCAL, "params", NAME) == {"prod": (Arm(first.artifact.version),)}


async def test_a_version_is_found_by_number_address_label_and_latest(shelf: Shelf) -> None:
    first, second = await shelf.put("1"), await shelf.put("2")
    await shelf.label(first)
    registry = shelf.registry
    for which in (1, "1", first.artifact.version, first.artifact.version[:8], "prod"):
        assert await registry.version(LOCAL, "params", NAME, which) == first
    assert await registry.version(LOCAL, "params", NAME) == second
    assert await registry.versions(LOCAL, "params", NAME) == [first, second]
    assert await registry.names(LOCAL) == [("params", NAME)]


@pytest.mark.parametrize(
    ("name", "which", "said"),
    [
        (NAME, "7", "params/bank.Triage has no version 7: its versions are 1 to 2, its labels prod, old, split"),
        (NAME, "abcdef", "has no version abcdef"),
        (NAME, "base", "has no version base"),
        (NAME, "old", "params/bank.Triage@old shows base, the params in the code"),
        ("bank.Triag", "1", "there is no params/bank.Triag; did you mean bank.Triage?"),
        ("qqq", "1", "there is no params/qqq; there is bank.Triage"),
    ],
)
async def test_what_is_not_there_says_what_is(shelf: Shelf, name: str, which: str, said: str) -> None:
    first, second = await shelf.put("1"), await shelf.put("2")
    await shelf.label(first)
    await shelf.label(BASE, label="old")
    await shelf.label(first, second, label="split")
    with pytest.raises(NotFound) as caught:
        await shelf.registry.version(LOCAL, "params", name, which)
    assert said in str(caught.value)
    with pytest.raises(Conflict, match="split by an experiment, 50% 1 and 50% 2: name one"):
        await shelf.registry.version(LOCAL, "params", NAME, "split")


async def test_one_version_without_a_label_says_so(shelf: Shelf) -> None:
    await shelf.put("1")
    with pytest.raises(NotFound, match="its versions are 1, and it has no label"):
        await shelf.registry.version(LOCAL, "params", NAME, "prod")
    with pytest.raises(NotFound, match="there is no policy/x, nor anything else of its kind"):
        await shelf.registry.version(LOCAL, "policy", "x")


async def test_an_address_that_several_begin_with_is_refused(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    numbers = iter(range(100, 200))
    monkeypatch.setattr("kaizen.core.artifact.digest", lambda body: f"abcdef{next(numbers)}")
    for body in "12":
        await shelf.put(body)
    heads = await shelf.registry.heads(LOCAL)
    assert all(head.version.startswith("abcdef") for head in heads)
    with pytest.raises(Conflict, match=r"2 versions of bank.Triage begin with abcdef: write more of it"):
        await shelf.registry.version(LOCAL, "params", NAME, "abcdef")


async def test_a_rollback_shows_what_was_shown_before_and_goes_further_each_time(shelf: Shelf) -> None:
    versions = [await shelf.put(body) for body in "123"]
    for version in versions:
        await shelf.label(version)
    assert [await shelf.back() for _ in range(3)] == ["2", "1", "base"]
    with pytest.raises(Conflict, match="nothing to roll back to"):
        await shelf.back()
    history = await shelf.registry.history(LOCAL, "params", NAME, "prod")
    assert len(history) == 6  # nothing was taken away
    assert [bool(move.undoes) for move in history] == [False] * 3 + [True] * 3
    assert {(move.actor, move.reason) for move in history[3:]} == {("bob", "bad")}


async def test_a_release_after_a_rollback_is_rolled_back_to_what_stood(shelf: Shelf) -> None:
    first, second, third = [await shelf.put(body) for body in "123"]
    await shelf.label(first)
    await shelf.label(second)
    assert await shelf.back() == "1"
    await shelf.label(third)
    assert await shelf.back() == "1"  # not 2, which was bad
    await shelf.label(second)
    await shelf.label(first)  # shown again on purpose
    assert await shelf.back() == "2"


async def test_a_rollback_passes_over_the_split_of_an_experiment(shelf: Shelf) -> None:
    first, second = await shelf.put("1"), await shelf.put("2")
    await shelf.label(first)
    await shelf.label(first, second)
    assert await shelf.shown() == "1+2"
    await shelf.label(second)
    assert await shelf.back() == "1"
    await shelf.label(first, second)
    assert await shelf.back() == "1"  # out of a running one


async def test_a_rollback_passes_over_an_experiment_without_a_winner(shelf: Shelf) -> None:
    first, second, third = [await shelf.put(body) for body in "123"]
    await shelf.label(first)
    await shelf.label(second)
    for _ in range(2):
        await shelf.label(second, third)
        await shelf.label(second)  # the control has the label back
    assert [await shelf.back() for _ in range(2)] == ["1", "base"]
    with pytest.raises(Conflict, match="nothing to roll back to"):
        await shelf.back()


async def test_of_a_version_that_was_released_twice_in_a_row_a_rollback_takes_back_both(shelf: Shelf) -> None:
    first, second = await shelf.put("1"), await shelf.put("2")
    for version in (first, second, second):
        await shelf.label(version)
    assert await shelf.back() == "1"


async def test_a_split_that_came_first_is_rolled_back_to_the_code(shelf: Shelf) -> None:
    await shelf.label(BASE, await shelf.put("1"))
    assert await shelf.back() == "base"


async def test_what_was_never_moved_has_nothing_to_roll_back(shelf: Shelf) -> None:
    await shelf.put("1")
    with pytest.raises(NotFound, match=r"params/bank.Triage has no label prod, and no other"):
        await shelf.back()
    await shelf.label("base")
    with pytest.raises(Conflict, match="nothing to roll back to"):
        await shelf.back()
    with pytest.raises(NotFound, match=r"has no label prd; did you mean prod?"):
        await shelf.back("prd")
    dataset = await shelf.put("1", "dataset", "mail")
    arms = [Arm(dataset.artifact.version)]
    await shelf.registry.label(LOCAL, "dataset", "mail", "prod", arms, actor="a", reason="")
    with pytest.raises(Conflict, match="nothing to roll back to"):  # a dataset has no base
        await shelf.registry.rollback(LOCAL, "dataset", "mail", "prod", actor="a", reason="")


async def test_of_two_rollbacks_at_once_one_is_refused(shelf: Shelf) -> None:
    for body in "123":
        await shelf.label(await shelf.put(body))
    last = (await shelf.registry.history(LOCAL, "params", NAME))[-1].id
    done = await asyncio.gather(*(shelf.back(since=last) for _ in range(3)), return_exceptions=True)
    assert sorted(type(one).__name__ for one in done) == ["Conflict", "Conflict", "str"]
    assert await shelf.shown() == "2"


async def test_a_label_moves_only_from_where_the_caller_saw_it(shelf: Shelf) -> None:
    first, second = await shelf.put("1"), await shelf.put("2")
    seen = await shelf.label(first, since="")
    await shelf.label(second, since=seen)
    with pytest.raises(Conflict, match="moved meanwhile"):
        await shelf.label(first, since=seen)
    assert await shelf.shown() == "2"


@pytest.mark.parametrize(
    ("label", "arms", "said"),
    [
        ("Prod", [Arm(BASE)], "can't be a label"),
        ("latest", [Arm(BASE)], "can't be a label"),
        ("base", [Arm(BASE)], "can't be a label"),
        ("deadbeef", [Arm(BASE)], "can't be a label"),
        ("prod", [], "there are no arms"),
        ("prod", [Arm(BASE, 0.5)], "sum to 1, not to 0.5"),
        ("prod", [Arm(BASE, 1.5), Arm("1", -0.5)], "above 0"),
        ("prod", [Arm(BASE, float("nan"))], "above 0"),
        ("prod", [Arm(BASE, 0.5), Arm(BASE, 0.5)], "the same version"),
    ],
)
async def test_labels_and_arms_that_can_not_be(shelf: Shelf, label: str, arms: list[Arm], said: str) -> None:
    await shelf.put("1")
    with pytest.raises(InvalidInput, match=said):
        await shelf.registry.label(LOCAL, "params", NAME, label, arms, actor="a", reason="")
    assert await shelf.registry.history(LOCAL, "params", NAME) == []


async def test_a_label_shows_only_what_is_there(shelf: Shelf) -> None:
    registry, one = shelf.registry, await shelf.put("1")
    with pytest.raises(NotFound, match="has no version none"):
        await registry.label(LOCAL, "params", NAME, "prod", [Arm("none")], actor="a", reason="")
    with pytest.raises(NotFound, match=r"there is no params/bank.Triag"):
        await registry.label(LOCAL, "params", "bank.Triag", "prod", [Arm(BASE)], actor="a", reason="")
    with pytest.raises(NotFound):  # another tenant's
        await registry.label(OTHER, "params", NAME, "prod", [Arm(one.artifact.version)], actor="a", reason="")
    await shelf.put("1", "policy", "x")
    with pytest.raises(InvalidInput, match="only params have a version base"):
        await registry.label(LOCAL, "policy", "x", "prod", [Arm(BASE)], actor="a", reason="")


@pytest.mark.parametrize(
    ("kind", "name"), [("Params", "x"), ("", "x"), ("k", ""), ("k", "a@b"), ("k", "a\nb"), ("k", "/a")]
)
async def test_kinds_and_names_that_can_not_be(shelf: Shelf, kind: str, name: str) -> None:
    with pytest.raises(InvalidInput, match=r"is no (kind|name)"):
        await shelf.put("1", kind, name)


async def test_a_label_that_shows_what_is_gone_is_an_error(shelf: Shelf) -> None:
    await shelf.put("1")
    gone = Move("m", "params", NAME, "prod", (Arm("f" * 32),), "a", "", 1.0)
    await shelf.registry.archive.move(LOCAL, gone)
    with pytest.raises(NotFound, match="the version it shows is not there"):
        await shelf.registry.version(LOCAL, "params", NAME, "prod")


async def test_changes_are_counted_for_whoever_keeps_a_view(shelf: Shelf) -> None:
    one = await shelf.put("1")
    await shelf.label(one)
    assert shelf.registry.changes == 2
    await shelf.registry.close()
