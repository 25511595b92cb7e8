"""What all requests of a program share is kept once; reading gives the request as if it had been kept whole."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from typing import Any

import pytest
from pydantic_core import to_json

from kaizen.core.errors import StoreError
from kaizen.core.known.repeats import remember
from kaizen.core.message import Message
from kaizen.core.record import Payload, Record
from kaizen.core.request import Decoding, OutputSchema, Request, ToolSpec
from kaizen.core.scope import Scope
from kaizen.ledger import requests
from kaizen.ledger.ledger import Ledger
from kaizen.stores.memory import MemoryStore

OURS, THEIRS = Scope("ours"), Scope("theirs")
HEAD = (Message.of("system", "Sort the mail."), Message.of("user", "demo"), Message.of("assistant", "{}"))
OUTPUT = OutputSchema("mail", {"type": "object"})


class Counting(MemoryStore):
    """Counts the payloads it is given, and fails when told to."""

    def __init__(self) -> None:
        super().__init__()
        self.given: list[str] = []
        self.fails = False

    async def append(self, scope: Scope, records: object, payloads: object, /) -> None:
        if self.fails:
            raise StoreError("full")
        self.given += [one.digest for one in payloads]  # type: ignore[attr-defined]
        await super().append(scope, records, payloads)  # type: ignore[arg-type]


def asked(text: str, stable: int = 3) -> Request:
    messages = (*HEAD, Message.of("user", text))
    return Request(scope=OURS, model="a/b", messages=messages, stable=stable, output=OUTPUT)


async def keep(ledger: Ledger, request: Request, scope: Scope = OURS) -> str:
    payloads = ledger.seal_request(scope, request)
    await ledger.append(scope, list[Record](), payloads)
    return payloads[0].digest


async def test_the_shared_part_is_written_once_and_read_with_each() -> None:
    store = Counting()
    ledger = Ledger(store, bytes(32))
    first, second = await keep(ledger, asked("one")), await keep(ledger, asked("two"))
    assert len(store.given) == 3
    alone = Ledger(MemoryStore(), bytes(32))
    for text, address in (("one", first), ("two", second)):
        whole = await alone.payload(OURS, await keep(alone, asked(text, stable=0)))
        assert json.loads(await ledger.payload(OURS, address) or b"") == json.loads(whole or b"")


async def test_a_request_that_shares_nothing_is_kept_whole() -> None:
    ledger = Ledger(MemoryStore(), bytes(32))
    (only,) = ledger.seal_request(OURS, asked("one", stable=0))
    assert json.loads(only.data)["messages"][0]["parts"][0]["text"] == "Sort the mail."


async def test_equal_requests_have_one_address_and_other_params_another() -> None:
    ledger = Ledger(MemoryStore(), bytes(32))
    first, again = ledger.seal_request(OURS, asked("one")), ledger.seal_request(OURS, asked("one"))
    assert first == again
    assert ledger.seal_request(OURS, replace(asked("one"), model="a/c"))[0].digest != first[0].digest
    assert ledger.seal_request(THEIRS, asked("one"))[0].digest != first[0].digest


async def test_each_scope_has_its_own_shared_part() -> None:
    store = Counting()
    ledger = Ledger(store, bytes(32))
    ours, theirs = await keep(ledger, asked("one")), await keep(ledger, asked("one"), THEIRS)
    assert len(store.given) == 4
    assert await ledger.payload(THEIRS, ours) is None
    assert b"Sort the mail." in (await ledger.payload(THEIRS, theirs) or b"")


async def test_after_erasing_or_a_failure_it_is_written_again() -> None:
    store = Counting()
    ledger = Ledger(store, bytes(32))
    await keep(ledger, asked("one"))
    await ledger.erase(OURS)
    assert b"Sort the mail." in (await ledger.payload(OURS, await keep(ledger, asked("two"))) or b"")
    other = Ledger(store, bytes(32))
    store.fails = True
    with pytest.raises(StoreError):
        await keep(other, asked("three"), THEIRS)
    store.fails = False
    assert b"Sort the mail." in (await other.payload(THEIRS, await keep(other, asked("four"), THEIRS)) or b"")


async def test_another_process_that_erased_costs_a_minutes_shared_parts_at_most(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 100.0
    monkeypatch.setattr(requests.time, "monotonic", lambda: now)
    store = Counting()
    ledger = Ledger(store, bytes(32))
    await keep(ledger, asked("one"))
    await store.erase(OURS, None)
    lost = await ledger.payload(OURS, await keep(ledger, asked("two")))
    assert lost is not None
    assert b"two" in lost
    assert b"Sort the mail." not in lost
    now += 61
    assert b"Sort the mail." in (await ledger.payload(OURS, await keep(ledger, asked("three"))) or b"")


async def test_a_request_that_comes_again_is_sealed_and_written_once_a_minute() -> None:
    store = Counting()
    ledger = Ledger(store, bytes(32))
    request = asked("one", stable=0)
    remember(request)
    address = await keep(ledger, request)
    assert await keep(ledger, request) == address
    assert store.given == [address]
    assert b"Sort the mail." in (await ledger.payload(OURS, address) or b"")
    await ledger.erase(OURS)
    await keep(ledger, request)
    assert store.given == [address, address]
    assert await keep(ledger, request, THEIRS) != address  # another scope's is another one


@pytest.mark.parametrize(
    "more",
    [
        {"output": None},
        {"output": None, "tools": (ToolSpec("look", "up", {}),)},
        {"output": None, "user": "zoe", "json_object": True, "parallel_tools": False, "top_logprobs": 2},
        {"output": None, "decoding": Decoding(temperature=0.5, stop=("x",))},
        {},
    ],
)
def test_the_quick_json_is_the_plain_one(more: dict[str, Any]) -> None:
    request = replace(asked("one", stable=0), **more)
    rare = {name: getattr(request, name) for name in requests._RARE}
    fields = {name: value for name, value in rare.items() if value not in (None, False)}
    names = ("model", "messages", "output", "tools", "tool_choice", "decoding", "top_logprobs")
    assert requests.whole(request) == to_json(fields | {name: getattr(request, name) for name in names})


async def test_contents_of_a_users_that_look_alike_stay_as_they_are() -> None:
    ledger = Ledger(MemoryStore(), bytes(32))
    sealed: Payload = ledger.seal(OURS, b'{"shared":"0123","messages":[]}')
    await ledger.append(OURS, list[Record](), [sealed])
    assert await ledger.payload(OURS, sealed.digest) == sealed.data


async def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requests, "_KEPT", 2)
    ledger = Ledger(MemoryStore(), bytes(32))
    for number in range(5):
        request = replace(asked(f"{number}"), model=f"a/{number}")
        assert b"Sort the mail." in (await ledger.payload(OURS, await keep(ledger, request)) or b"")


class Slow(MemoryStore):
    """Says that something is kept, and begins to erase, only when it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.appended, self.may_erase = asyncio.Event(), asyncio.Event()
        self.appended.set()

    async def append(self, scope: Scope, records: object, payloads: object, /) -> None:
        await super().append(scope, records, payloads)  # type: ignore[arg-type] - passed on
        await self.appended.wait()

    async def erase(self, scope: Scope, digests: object = None, /) -> int:
        await self.may_erase.wait()
        return await super().erase(scope, digests)  # type: ignore[arg-type] - passed on


@pytest.mark.parametrize("late", [False, True])
async def test_what_is_written_while_something_is_erased_is_not_taken_for_kept(late: bool) -> None:
    store = Slow()
    ledger = Ledger(store, bytes(32))
    await keep(ledger, asked("one"))
    erasing = asyncio.ensure_future(ledger.erase(OURS))
    await asyncio.sleep(0)
    if late:  # its writer hears of it after the erasing
        store.appended.clear()
    writing = asyncio.ensure_future(keep(ledger, asked("two")))
    await asyncio.sleep(0)
    store.may_erase.set()
    await erasing
    store.appended.set()
    await writing
    assert b"Sort the mail." in (await ledger.payload(OURS, await keep(ledger, asked("three"))) or b"")
