"""Sealing, appending, reading and walking records."""

from __future__ import annotations

import hashlib
import random

import pytest

from kaizen.core.errors import Conflict, NotFound
from kaizen.core.record import Record, RecordQuery
from kaizen.core.scope import LOCAL, Scope
from kaizen.ledger.ledger import Ledger, Node, trees
from kaizen.stores.memory import MemoryStore
from kaizen.testing.store_suite import OURS, make_record

KEY = bytes(range(32))


@pytest.fixture
def ledger() -> Ledger:
    return Ledger(MemoryStore(), KEY)


def shape(node: Node) -> object:
    return (node.record.id, [shape(child) for child in node.children])


# -- sealing ------------------------------------------------------------------------------------------


def test_an_address_belongs_to_one_scope_and_one_home(ledger: Ledger) -> None:
    scopes = [LOCAL, Scope("local", "prod"), Scope("other", "dev"), Scope("loc", "aldev"), Scope("localdev", "")]
    addresses = {ledger.seal(scope, b"yes").digest for scope in scopes}
    addresses.add(Ledger(MemoryStore(), bytes(32)).seal(LOCAL, b"yes").digest)
    addresses.add(ledger.seal(LOCAL, b"no").digest)
    assert len(addresses) == len(scopes) + 2


def test_equal_contents_have_one_address(ledger: Ledger) -> None:
    first, second = ledger.seal(LOCAL, b"yes"), Ledger(MemoryStore(), KEY).seal(LOCAL, b"yes")
    assert first == second
    assert first.data == b"yes"
    assert len(first.digest) == 32


def test_an_address_is_no_plain_digest(ledger: Ledger) -> None:
    address = ledger.seal(LOCAL, b"yes").digest
    assert address != hashlib.blake2b(b"yes", digest_size=16).hexdigest()
    assert address != hashlib.blake2b(b"yes", digest_size=16, key=KEY).hexdigest()


def test_the_secret_is_not_shown(ledger: Ledger) -> None:
    assert KEY.hex() not in repr(ledger)
    assert repr(KEY) not in repr(vars(ledger))


# -- keeping ------------------------------------------------------------------------------------------


async def test_records_and_contents_come_back(ledger: Ledger) -> None:
    payload = ledger.seal(OURS, b'{"a": 1}')
    record = make_record(input_digest=payload.digest)
    await ledger.append(OURS, [record], [payload])
    assert await ledger.record(OURS, record.id) == record
    assert await ledger.payload(OURS, record.input_digest) == b'{"a": 1}'
    assert await ledger.payload(OURS, record.output_digest) is None
    assert [found async for found in ledger.records(OURS)] == [record]
    assert [found async for found in ledger.records(OURS, RecordQuery(kind="model"))] == []
    assert await ledger.erase(OURS) == 1
    assert await ledger.payload(OURS, payload.digest) is None
    await ledger.close()


async def test_contents_are_left_out_when_they_are_not_wanted() -> None:
    store = MemoryStore()
    ledger = Ledger(store, KEY, payloads=False)
    payload = ledger.seal(OURS, b"private")
    record = make_record(input_digest=payload.digest)
    await ledger.append(OURS, [record], [payload])
    assert await store.record(OURS, record.id) == record
    assert await store.payload(OURS, payload.digest) is None


async def test_a_record_that_is_not_there_is_not_found(ledger: Ledger) -> None:
    record = make_record()
    await ledger.append(OURS, [record])
    with pytest.raises(NotFound, match="local/dev"):
        await ledger.record(LOCAL, record.id)


async def test_another_scopes_record_is_refused(ledger: Ledger) -> None:
    with pytest.raises(Conflict):
        await ledger.append(LOCAL, [make_record(OURS)])


# -- walking ------------------------------------------------------------------------------------------


async def test_a_run_is_a_tree_in_program_order(ledger: Ledger) -> None:
    records = [
        make_record(id="root"),
        make_record(id="z", parent_id="root", step="0.2"),
        make_record(id="y", parent_id="root", step="0.10"),
        make_record(id="x", parent_id="z", step="0.2.0", kind="model"),
        make_record(id="orphan", parent_id="never ended", step="0.3"),
        make_record(id="score", kind="score", about="root", value=1.0),
        make_record(id="elsewhere", run_id="another"),
    ]
    random.Random(3).shuffle(records)
    await ledger.append(OURS, records)
    found = await ledger.tree(OURS, "run")
    assert [shape(node) for node in found] == [
        ("root", [("z", [("x", [])]), ("y", [])]),
        ("orphan", []),
    ]
    assert await ledger.tree(OURS, "no such run") == ()


def test_a_deep_tree_needs_no_deep_stack() -> None:
    depth = 5_000
    chain = [make_record(id=f"{n:05}", parent_id=f"{n - 1:05}" if n else None, step=f"{n}") for n in range(depth)]
    (node,) = trees(chain)
    for number in range(depth):
        assert node.record.id == f"{number:05}"
        node = node.children[0] if node.children else node


async def test_steps_are_what_ended_well(ledger: Ledger) -> None:
    records: list[Record] = [
        make_record(id="1", step="0", status="error"),
        make_record(id="2", step="0"),
        make_record(id="3", step="1", kind="model"),
        make_record(id="4", step="2", status="cancelled"),
        make_record(id="5", step="2.0", status="suspended"),
        make_record(id="6", kind="score", about="2", value=1.0),
        make_record(id="7", step="1", kind="model"),
        make_record(id="8", step="9", run_id="another"),
        make_record(id="9", step="3", status="error", error_code="output_invalid"),
        make_record(id="a", step="3.0", kind="model", parent_id="9"),
        make_record(id="b", step="3.1", parent_id="9"),
    ]
    await ledger.append(OURS, records)
    steps = await ledger.steps(OURS, "run")
    assert {step: record.id for step, record in steps.items()} == {"0": "2", "1": "7", "3.1": "b"}
