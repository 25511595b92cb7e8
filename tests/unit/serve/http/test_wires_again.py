"""Bodies that come again are decoded once, each caller's for that caller alone."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest

from kaizen.core.identity import Identity
from kaizen.core.known import repeats
from kaizen.core.known.repeats import facts_of
from kaizen.core.message import Message
from kaizen.core.request import Options, Request
from kaizen.core.scope import Scope
from kaizen.inference.ceiling import Ceiling
from kaizen.inference.prices import PriceTable
from kaizen.serve.http.wires import again
from kaizen.serve.http.wires.again import Again
from kaizen.serve.http.wires.openai_chat import ChatCompletions
from kaizen.serve.http.wires.openai_responses import Responses
from kaizen.serve.http.wires.wire import Asked

CHAT, OURS, OPTIONS = ChatCompletions(), Identity(Scope("ours"), "key:a"), Options(exact=True)
BODY = b'{"model":"m/x"}'


def decoded(deadline: float | None = None) -> Asked:
    request = Request(scope=OURS.scope, model="m/x", messages=(Message.of("user", "hi"),), deadline=deadline)
    return Asked(request, True, 1, True, "echo")


def test_the_second_time_keeps_it_and_the_third_gives_it() -> None:
    known = Again()
    for _ in range(2):
        assert known.find(CHAT, OURS, OPTIONS, BODY) is None
        asked = decoded()
        known.note(CHAT, OURS, OPTIONS, BODY, asked)
    first, other = (known.find(CHAT, OURS, OPTIONS, BODY) for _ in range(2))
    assert first is not None
    assert other is not None
    assert first.request is other.request is asked.request
    assert (first.stream, first.count, first.usage, first.echo) == (True, 1, True, "echo")
    assert first is not other  # each has an id of its own
    assert facts_of(asked.request) == {}


def test_another_tenant_wire_or_wish_is_another_call() -> None:
    known = Again()
    for _ in range(2):
        known.note(CHAT, OURS, OPTIONS, BODY, decoded())
    assert known.find(CHAT, OURS, OPTIONS, BODY) is not None
    assert known.find(CHAT, replace(OURS, scope=Scope("theirs")), OPTIONS, BODY) is None
    assert known.find(CHAT, replace(OURS, scope=Scope("ours", "prod")), OPTIONS, BODY) is None
    assert known.find(CHAT, OURS, replace(OPTIONS), BODY) is None
    assert known.find(CHAT, OURS, OPTIONS, BODY + b" ") is None
    assert known.find(Responses(), OURS, OPTIONS, BODY) is None


def test_what_ends_at_a_moment_or_is_large_is_decoded_each_time() -> None:
    known = Again()
    for _ in range(3):
        known.note(CHAT, OURS, OPTIONS, BODY, decoded(time.monotonic() + 9))
        known.note(CHAT, OURS, OPTIONS, b"x" * 100_000, decoded())
    assert known.find(CHAT, OURS, OPTIONS, BODY) is None
    assert known.find(CHAT, OURS, OPTIONS, b"x" * 100_000) is None


def test_what_is_kept_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(again, "KEPT", 3)
    monkeypatch.setattr(again, "_SEEN", 4)
    known = Again()
    for number in range(20):
        for _ in range(2):
            known.note(CHAT, OURS, OPTIONS, b"%d" % number, decoded())
    assert len(known._kept) <= 3
    assert len(known._seen) <= 4
    assert known.find(CHAT, OURS, OPTIONS, b"19") is not None


def test_as_many_as_are_kept_have_facts_again_after_one_too_many_came(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(again, "KEPT", 4)
    monkeypatch.setattr(repeats, "KEPT", 4)
    monkeypatch.setattr(repeats, "_known", {})
    monkeypatch.setattr(repeats, "_named", set())
    known, ceiling = Again(), Ceiling(PriceTable({}, {}), {})
    bodies = [b"%d" % number for number in range(4)]

    def bounded(body: bytes) -> Request:
        asked = known.find(CHAT, OURS, OPTIONS, body)
        assert asked is not None
        return ceiling(asked.request)[0]

    for body in bodies:
        for _ in range(2):
            known.note(CHAT, OURS, OPTIONS, body, decoded())
    assert [facts_of(bounded(body)) for body in bodies] == [{}] * 4
    repeats.remember(decoded().request)  # another gateway's
    once = [bounded(body) for body in bodies[:3]]
    twice = [bounded(body) for body in bodies[:3]]
    assert all(one is other for one, other in zip(once, twice, strict=True))
    assert [facts_of(one) for one in once] == [{}] * 3
