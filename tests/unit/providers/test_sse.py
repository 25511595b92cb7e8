from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kaizen.providers.sse import EventDecoder, EventTooLong


def decode(stream: bytes, size: int = 10_000, limit: int = 1000) -> list[bytes]:
    decoder = EventDecoder(limit)
    events = [event for at in range(0, len(stream), size) for event in decoder.feed(stream[at : at + size])]
    return events + decoder.close()


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
def test_events_whatever_the_line_ends_and_chunks(end: bytes, size: int) -> None:
    lines = [
        b": hello",
        b"event: x",
        b"data: one",
        b"",
        b"id: 1",
        b"data:two",
        b"data:  three",
        b"",
        b"",
        b"retry: 5",
        b"",
    ]
    assert decode(end.join([*lines, b""]), size) == [b"one", b"two\n three"]


@given(st.lists(st.text(st.characters(exclude_characters="\r\n", codec="utf-8"), min_size=1)), st.integers(1, 9))
def test_whatever_is_written_is_read(texts: list[str], size: int) -> None:
    stream = b"".join(b"data: %b\n\n" % text.encode() for text in texts)
    assert decode(stream, size) == [text.encode() for text in texts]


def test_an_event_without_its_end_is_handed_on_at_the_close() -> None:
    assert decode(b"data: a\n\ndata: [DONE]") == [b"a", b"[DONE]"]
    assert decode(b"data: a\n\ndata: b\n") == [b"a", b"b"]
    assert decode(b"data: a\n\n: comment") == [b"a"]


def test_an_event_after_a_bare_cr_is_not_lost() -> None:
    decoder = EventDecoder(100)
    assert decoder.feed(b"data: a\r\r") == []
    assert decoder.feed(b"data: b\n\n") == [b"a", b"b"]


@pytest.mark.parametrize(
    "stream", [b"data: " + b"x" * 101, b"data: " + b"x" * 101 + b"\n\n", b"data: 0123456789\n" * 11]
)
def test_an_event_over_the_limit_is_refused(stream: bytes) -> None:
    with pytest.raises(EventTooLong):
        decode(stream, 10, limit=100)


def test_the_limit_is_for_one_event() -> None:
    assert decode(b"data: 0123456789\n\n" * 50, limit=20) == [b"0123456789"] * 50


def test_a_long_event_in_thousands_of_pieces_costs_time_by_its_length_only() -> None:
    decoder, piece = EventDecoder(1 << 24), b"x" * 1400
    began = time.process_time()
    assert decoder.feed(b"data: ") == []
    for _ in range(10_000):
        assert decoder.feed(piece) == []
    assert time.process_time() - began < 2  # 20 s where each piece was joined to all before it
    assert decoder.feed(b"\n\n") == [piece * 10_000]


def test_empty_lines_of_data_have_a_size() -> None:
    with pytest.raises(EventTooLong):
        decode(b"data:\n" * 200, 10, limit=100)
