from __future__ import annotations

from dataclasses import replace

import pytest

from kaizen.core.message import Message, Text, ToolCall
from kaizen.core.request import Request
from kaizen.core.scope import Scope
from kaizen.inference.compress.prefix import Prefixes, instructions_first
from tests.unit.inference.compress.requests import asking

LONG = Message.of("system", "Be exact. " * 600)


def marks(request: object) -> str:
    return "5m" if "mark='5m'" in repr(request) else ""


def test_a_prefix_is_marked_from_the_second_time_on_within_its_life() -> None:
    now = [0.0]
    prefixes = Prefixes(life=300, clock=lambda: now[0])
    seen: list[str] = []
    for at in (0, 10, 309, 1000):
        now[0] = at
        seen.append(marks(prefixes.marked(asking("q", LONG))))
    assert seen == ["", "5m", "5m", ""]


def test_the_mark_stands_at_the_end_of_what_is_stable() -> None:
    demo = (Message.of("user", "a"), Message("assistant", (Text("one"), Text("two"))))
    request = asking("q", LONG, *demo, stable=3)
    prefixes = Prefixes()
    prefixes.marked(request)
    marked = prefixes.marked(request)
    assert marked.messages[2].parts == (Text("one"), Text("two", mark="5m"))
    assert marked.messages[:2] == request.messages[:2]
    assert marked.messages[3:] == request.messages[3:]


@pytest.mark.parametrize(
    "request_",
    [
        asking("q", Message.of("system", "short")),
        asking("q"),
        asking("q", Message("system", (Text("Be exact. " * 600, mark="1h"),))),
        asking("q", LONG, Message("assistant", (ToolCall("1", "look", "{}"),)), stable=2),
    ],
)
def test_short_ones_marked_ones_and_calls_are_left_as_they_are(request_: Request) -> None:
    prefixes = Prefixes()
    assert prefixes.marked(request_) is prefixes.marked(request_) is request_


def test_tenants_and_models_are_apart() -> None:
    prefixes = Prefixes()
    request = asking("q", LONG)
    prefixes.marked(request)
    assert not marks(prefixes.marked(replace(request, scope=Scope("other"))))
    assert not marks(prefixes.marked(replace(request, model="mine/small")))


def test_it_forgets_the_oldest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kaizen.inference.compress.prefix._REMEMBERED", 1)
    prefixes = Prefixes()
    other = asking("q", Message.of("system", "Be brief. " * 600))
    assert [marks(prefixes.marked(one)) for one in (asking("q", LONG), other, asking("q", LONG))] == ["", "", ""]


def test_instructions_come_first_but_not_over_an_answer() -> None:
    user, system, answer = Message.of("user", "a"), Message.of("system", "s"), Message.of("assistant", "b")
    moved = instructions_first(replace(asking("q"), messages=(user, system, answer, system)))
    assert moved.messages == (system, user, answer, system)
    assert instructions_first(moved) is moved
    programs = replace(asking("q"), messages=(user, system), stable=1)
    assert instructions_first(programs) is programs
