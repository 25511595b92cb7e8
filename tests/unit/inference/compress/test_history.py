from __future__ import annotations

from kaizen.core.message import Media, Message, Text, ToolCall
from kaizen.core.request import Request
from kaizen.core.scope import LOCAL
from kaizen.inference.compress.history import exchanges, last_question, old_turns

TURNS = tuple(Message.of("user" if at % 2 == 0 else "assistant", f"turn {at}") for at in range(9))


def request(*messages: Message, stable: int = 0) -> Request:
    return Request(scope=LOCAL, model="m/m", messages=messages, stable=stable)


def test_the_question_is_the_last_text_of_the_user() -> None:
    picture = Message("user", (Media("image", "image/png", data="x"),))
    assert last_question(request(*TURNS, picture)) == 8
    assert last_question(request(Message.of("user", "a demo"), stable=1)) == -1
    assert last_question(request(Message.of("system", "s"))) == -1


def test_the_window_and_the_first_message_are_never_old() -> None:
    system = Message.of("system", "s")
    assert list(old_turns(request(*TURNS), 8, 4)) == [1, 2, 3]
    assert list(old_turns(request(system, *TURNS), 9, 4)) == [2, 3, 4]
    assert list(old_turns(request(*TURNS), 8, 100)) == []


def test_an_exchange_goes_whole_and_never_half_of_a_call() -> None:
    assert exchanges(TURNS, range(1, 6)) == [(2, 3), (4, 5)]
    call = Message("assistant", (Text("let me see"), ToolCall("1", "look", "{}")))
    assert exchanges((TURNS[0], call), range(2)) == []
    assert exchanges((TURNS[0],), range(1)) == []
