"""Ids sort in the order they were made; digests say nothing without their key."""

from __future__ import annotations

import os
import threading
import time
import uuid

from hypothesis import given
from hypothesis import strategies as st

from kaizen.core.ids import digest, new_id


def test_ids_are_uuids_of_version_7() -> None:
    made = uuid.UUID(new_id())
    assert (made.version, made.variant) == (7, uuid.RFC_4122)


def test_ids_of_one_process_sort_as_they_were_made() -> None:
    made = [new_id() for _ in range(20_000)]
    assert made == sorted(made)
    assert len(set(made)) == len(made)


def test_ids_of_several_threads_are_distinct_and_sorted_in_each() -> None:
    lists: list[list[str]] = [[] for _ in range(4)]
    threads = [threading.Thread(target=lambda own=own: own.extend(new_id() for _ in range(2000))) for own in lists]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(own == sorted(own) for own in lists)
    assert len({one for own in lists for one in own}) == 8000


def test_an_id_tells_when_it_was_made() -> None:
    before = time.time()
    made = uuid.UUID(new_id()).int >> 80
    assert before - 0.002 <= made / 1000 <= time.time() + 0.1


@given(st.binary(), st.binary(max_size=64), st.binary(max_size=64))
def test_digests_depend_on_data_and_key(data: bytes, one: bytes, other: bytes) -> None:
    assert len(digest(data)) == 32
    assert digest(data, key=one) == digest(data, key=one)
    # trailing zero bytes are BLAKE2's own padding of keys
    if one.rstrip(b"\0") != other.rstrip(b"\0"):
        assert digest(data, key=one) != digest(data, key=other)
    assert digest(data) != digest(data + b"x")


def test_a_forked_child_draws_bits_of_its_own() -> None:
    new_id()  # so that some are drawn before
    reading, writing = os.pipe()
    pid = os.fork()
    if not pid:
        os.write(writing, new_id().encode())
        os._exit(0)
    mine = new_id()
    os.waitpid(pid, 0)
    theirs = os.read(reading, 36).decode()
    for end in (reading, writing):
        os.close(end)
    assert len(theirs) == 36
    assert mine[-12:] != theirs[-12:]
