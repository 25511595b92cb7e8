"""Searches that go on beside the watch."""

from __future__ import annotations

import asyncio

import pytest

from kaizen.core.errors import StoreError
from kaizen.core.scope import LOCAL
from kaizen.learn.loop.plan import Plan
from kaizen.learn.loop.seams import Proposal, Wanted
from kaizen.learn.loop.searches import Searches


def wanted(program: str, run_id: str) -> Wanted:
    plan = Plan(program=program, target="a.py:A", metric="accuracy", rows="dataset/a@1")
    return Wanted(plan=plan, run_id=run_id, start="base", usd=1.0, since=0.0)


async def turns() -> None:
    """Let what can go on do so."""
    for _ in range(10):
        await asyncio.sleep(0)


async def test_two_go_on_at_a_time_and_a_third_waits_its_turn() -> None:
    searches, going, begun = Searches(), asyncio.Event(), list[str]()

    async def propose(one: Wanted, /) -> Proposal:
        begun.append(one.plan.program)
        await going.wait()
        return Proposal(version=None, said=one.run_id)

    for program in ("a", "b", "c", "a"):
        assert await searches.found(LOCAL, wanted(program, f"run {program}"), propose, waits=False) is None
    await turns()
    assert begun == ["a", "b"]
    going.set()
    await turns()
    assert begun == ["a", "b", "c"]
    found = [await searches.found(LOCAL, wanted(one, f"run {one}"), propose, waits=False) for one in "abc"]
    assert [one.said for one in found if one is not None] == ["run a", "run b", "run c"]


async def test_loops_that_share_their_turns_search_two_at_a_time_together() -> None:
    shared, going, begun = asyncio.Semaphore(2), asyncio.Event(), list[str]()

    async def propose(one: Wanted, /) -> Proposal:
        begun.append(one.run_id)
        await going.wait()
        return Proposal(version=None, said=one.run_id)

    tenants = [Searches(shared) for _ in range(3)]
    for number, searches in enumerate(tenants):
        await searches.found(LOCAL, wanted("a", f"run {number}"), propose, waits=False)
    await turns()
    assert begun == ["run 0", "run 1"]
    going.set()
    await turns()
    assert begun == ["run 0", "run 1", "run 2"]


async def test_what_has_failed_is_begun_again_and_what_is_not_wanted_any_more_ends() -> None:
    searches, begun, ended = Searches(), list[str](), list[str]()

    async def propose(one: Wanted, /) -> Proposal:
        begun.append(one.run_id)
        if len(begun) == 1:
            raise StoreError("the disk is full")
        try:
            await asyncio.sleep(60)
        finally:
            ended.append(one.run_id)
        raise AssertionError("it is broken off")

    with pytest.raises(StoreError):
        await searches.found(LOCAL, wanted("a", "first"), propose, waits=True)
    for run_id in ("first", "second"):
        assert await searches.found(LOCAL, wanted("a", run_id), propose, waits=False) is None
        await turns()
    assert (begun, ended) == (["first", "first", "second"], ["first"])
    await searches.close()
    assert ended == ["first", "second"]
    await searches.end(LOCAL, "a")  # there is none
