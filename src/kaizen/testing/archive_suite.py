"""What every Archive promises, as tests. An adapter is done when it passes.

    from kaizen.testing.archive_suite import ArchiveSuite, Open

    class TestMyArchive(ArchiveSuite):
        @pytest.fixture
        async def open_archive(self): ...

``open_archive()`` opens one more view of the same versions and labels, as another process would; each test begins with
an empty one. The tests are ``async def``: run them with anyio's pytest plugin (``anyio_mode = "auto"``).
"""
# ruff: noqa: S101, D102 - these are tests, and their names say what they show

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Final, TypeAlias

import pytest

from kaizen.core.artifact import BASE, Arm, Artifact, Head, Move, Version
from kaizen.core.errors import Conflict
from kaizen.core.ids import new_id
from kaizen.core.protocols import Archive
from kaizen.core.scope import Scope

Open: TypeAlias = Callable[[], Archive]
OURS: Final = Scope("acme", "prod")
THEIRS: Final = (Scope("other", "prod"), Scope("acme", "dev"))
HARD: Final = "Zoë's '; DROP TABLE versions; -- \\0 \x00 🙂"


def artifact(
    body: str = "1", name: str = "bank.Triage", kind: str = "params", parents: tuple[str, ...] = ()
) -> Artifact:
    """A small one."""
    return Artifact(kind, name, body.encode(), parents)


async def put(archive: Archive, one: Artifact, scope: Scope = OURS, *, author: str = "ada", at: float = 1.5) -> Version:
    """Keep it."""
    return await archive.put(scope, one, author=author, reason="why", at=at)


def move(version: str, label: str = "prod", name: str = "bank.Triage", kind: str = "params") -> Move:
    """A move of a label to one version."""
    return Move(new_id(), kind, name, label, (Arm(version),), "ada", "why", 2.5)


class ArchiveSuite:
    """Subclass it, and give a fixture ``open_archive``."""

    # -- versions -----------------------------------------------------------------------------------

    async def test_a_version_comes_back_byte_for_byte_elsewhere(self, open_archive: Open) -> None:
        body = bytes(range(256)) * 300
        one = Artifact("params", HARD, body, ("dataset/mail@1", HARD))
        made = await open_archive().put(OURS, one, author=HARD, reason=HARD, at=1.25)
        assert made == Version(1, one, HARD, HARD, 1.25)
        other = open_archive()
        assert await other.find(OURS, "params", HARD, one.version) == made
        assert list(await other.heads(OURS)) == [
            Head(1, "params", HARD, one.version, one.parents, HARD, HARD, 1.25, len(body))
        ]

    async def test_numbers_count_from_one_for_each_kind_and_name(self, open_archive: Open) -> None:
        archive = open_archive()
        made = [await put(archive, artifact(body)) for body in "abc"]
        assert [version.number for version in made] == [1, 2, 3]
        assert (await put(archive, artifact("a", name="bank.Other"))).number == 1
        assert (await put(archive, artifact("a", kind="dataset"))).number == 1
        assert (await put(archive, artifact("d"))).number == 4

    async def test_the_same_body_is_the_version_there_is(self, open_archive: Open) -> None:
        archive = open_archive()
        first = await put(archive, artifact("a"))
        await put(archive, artifact("b"))
        again = await open_archive().put(OURS, artifact("a", parents=("x",)), author="bob", reason="?", at=9.0)
        assert again == first
        assert [head.number for head in await archive.heads(OURS)] == [1, 2]
        assert (await put(archive, artifact("c"))).number == 3

    async def test_puts_at_once_get_numbers_without_gaps(self, open_archive: Open) -> None:
        archives = [open_archive(), open_archive()]
        bodies = [f"{number % 10}" for number in range(20)]  # each one twice
        made = await asyncio.gather(*(put(archives[at % 2], artifact(body)) for at, body in enumerate(bodies)))
        assert sorted({version.number for version in made}) == list(range(1, 11))
        assert {version.artifact.body for version in made} == {body.encode() for body in bodies}
        by_body = {version.artifact.body: version for version in made}
        assert all(by_body[version.artifact.body] == version for version in made)

    async def test_heads_are_sorted_and_filtered(self, open_archive: Open) -> None:
        archive = open_archive()
        for one in (artifact("b", name="b"), artifact("a", name="a"), artifact("c", name="a"), artifact("d", "a", "z")):
            await put(archive, one)
        everything = [(head.kind, head.name, head.number) for head in await archive.heads(OURS)]
        assert everything == [("params", "a", 1), ("params", "a", 2), ("params", "b", 1), ("z", "a", 1)]
        assert [head.name for head in await archive.heads(OURS, "params")] == ["a", "a", "b"]
        assert [head.number for head in await archive.heads(OURS, "params", "a")] == [1, 2]
        assert list(await archive.heads(OURS, "none")) == []

    async def test_what_was_made_of_something_is_found(self, open_archive: Open) -> None:
        archive = open_archive()
        await put(archive, artifact("a"))
        tuned = await put(archive, artifact("b", parents=("params/x@1", "dataset/y@2")))
        score = await put(archive, artifact("c", kind="evaluation", parents=("params/x@1", "params/x@1")))
        assert list(await open_archive().children(OURS, "params/x@1")) == [tuned, score]
        assert list(await archive.children(OURS, "params/x@1", "evaluation")) == [score]
        assert list(await archive.children(OURS, "params/x")) == []

    # -- labels -------------------------------------------------------------------------------------

    async def test_moves_come_back_oldest_first(self, open_archive: Open) -> None:
        archive = open_archive()
        moves = [move("1"), move("2", "canary"), move("3", name=HARD), move("4", kind="policy"), move("5")]
        hard = replace(moves[0], id="0", arms=(Arm(BASE, 0.1), Arm("2", 0.9)), actor=HARD, reason=HARD, undoes="x")
        moves.append(hard)  # its id sorts first: what counts is when it came
        for one in moves:
            await archive.move(OURS, one)
        other = open_archive()
        assert list(await other.moves(OURS)) == moves
        assert list(await other.moves(OURS, "params")) == [*moves[:3], *moves[4:]]
        assert list(await other.moves(OURS, "params", "bank.Triage")) == [*moves[:2], *moves[4:]]

    async def test_a_label_that_has_moved_since_stays(self, open_archive: Open) -> None:
        archive, other = open_archive(), open_archive()
        first, second = move("1"), move("2")
        await archive.move(OURS, first, since="")
        await archive.move(OURS, move("9", "canary"))  # another label is no move of this one
        for since in ("", "no such move"):
            with pytest.raises(Conflict, match="moved meanwhile"):
                await other.move(OURS, second, since=since)
        await other.move(OURS, second, since=first.id)
        assert [one.arms[0].version for one in await archive.moves(OURS) if one.label == "prod"] == ["1", "2"]

    async def test_of_two_who_move_at_once_from_one_place_one_does(self, open_archive: Open) -> None:
        archive, other = open_archive(), open_archive()
        done = await asyncio.gather(
            *(one.move(OURS, move(f"{at}"), since="") for at, one in enumerate((archive, other) * 4)),
            return_exceptions=True,
        )
        assert sorted(type(one).__name__ for one in done) == ["Conflict"] * 7 + ["NoneType"]
        assert len(await archive.moves(OURS)) == 1

    # -- what readers poll --------------------------------------------------------------------------

    async def test_the_state_grows_with_each_change_of_the_kind(self, open_archive: Open) -> None:
        archive, other = open_archive(), open_archive()
        states = [await other.state(OURS, "params")]
        await put(archive, artifact("a"))
        states.append(await other.state(OURS, "params"))
        await archive.move(OURS, move("1"))
        states.append(await other.state(OURS, "params"))
        assert states == sorted(set(states))
        await put(archive, artifact("a"))  # there already
        await put(archive, artifact("b", kind="dataset"))
        await archive.move(OURS, move("1", kind="dataset"))
        with pytest.raises(Conflict):
            await archive.move(OURS, move("2"), since="")
        assert await other.state(OURS, "params") == states[-1]
        assert await other.state(OURS, "dataset") > 0

    # -- scopes -------------------------------------------------------------------------------------

    async def test_no_scope_sees_what_is_another_ones(self, open_archive: Open) -> None:
        archive = open_archive()
        ours = await put(archive, artifact("ours", parents=("p",)))
        await archive.move(OURS, move("1"))
        for scope in THEIRS:
            assert list(await archive.heads(scope)) == []
            assert await archive.find(scope, "params", "bank.Triage", ours.artifact.version) is None
            assert list(await archive.children(scope, "p")) == []
            assert list(await archive.moves(scope)) == []
            assert await archive.state(scope, "params") == 0
            await archive.move(scope, move("2"), since="")  # their label never moved
            assert (await put(archive, artifact("theirs"), scope)).number == 1
            assert (await put(archive, artifact("ours"), scope, author="bob")).author == "bob"
        assert [head.version for head in await archive.heads(OURS)] == [ours.artifact.version]
        assert len(await archive.moves(OURS)) == 1
