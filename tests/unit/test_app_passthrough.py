"""What passes through the gateway is sent again only where that can't be a second call."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from kaizen.app import passthrough
from kaizen.app.passthrough import Forward
from kaizen.core.errors import Timeout, Unavailable
from kaizen.programs.forward import Posted
from kaizen.providers.errors import Origin
from kaizen.settings import load_settings


class Answer:
    """One call: it fails before or after it is sent, or has a status."""

    def __init__(self, outcome: Exception | int, *, sent: bool) -> None:
        self._outcome, self.sent = outcome, sent
        self.status, self.headers, self.left = 0, dict[str, str](), False

    async def __aenter__(self) -> Answer:
        if isinstance(self._outcome, Exception):
            raise self._outcome
        self.status = self._outcome
        return self

    async def __aexit__(self, *_: object) -> None:
        self.left = True

    async def read(self) -> bytes:
        return b"{}"


class Line:
    """A transport whose calls end as told."""

    origin = Origin("media")

    def __init__(self, *answers: Answer) -> None:
        self.answers, self.asked = list(answers), 0

    def open(self, path: str, body: bytes, request: Any, **more: Any) -> Answer:
        self.asked += 1
        return self.answers[self.asked - 1]


@pytest.fixture
def forward(tmp_path: Path) -> Forward:
    tree: Mapping[str, Any] = {
        "providers": {"media": {"kind": "openai", "base_url": "http://127.0.0.1:9/v1"}},
        "inference": {"attempts": 3, "backoff": 0.001},
    }
    return Forward(load_settings(tmp_path, {}, tree))


async def ask(
    forward: Forward, line: Line, monkeypatch: pytest.MonkeyPatch, *, repeatable: bool, deadline: float | None = None
) -> int:
    """Post a call; how often it was asked, by its answer."""
    monkeypatch.setattr(passthrough, "transport_of", lambda *_: line)
    posted = Posted(ref="media/m", path="/x", body=b"{}", repeatable=repeatable)
    async with forward(posted, deadline) as answer:
        assert await answer.read() == b"{}"
        assert answer.headers == {}
        return answer.attempts


async def test_what_never_left_is_sent_again(forward: Forward, monkeypatch: pytest.MonkeyPatch) -> None:
    refused = [Answer(Unavailable("refused"), sent=False) for _ in range(2)]
    line = Line(*refused, Answer(200, sent=True))
    assert await ask(forward, line, monkeypatch, repeatable=False) == line.asked == 3
    assert line.answers[-1].left


@pytest.mark.parametrize("failure", [Unavailable("cut"), Timeout("late"), 503])
async def test_what_left_and_makes_something_is_not_sent_again(
    forward: Forward, monkeypatch: pytest.MonkeyPatch, failure: Exception | int
) -> None:
    line = Line(Answer(failure, sent=True), Answer(200, sent=True))
    with pytest.raises((Unavailable, Timeout)) as caught:
        await ask(forward, line, monkeypatch, repeatable=False)
    assert (line.asked, caught.value.detail["attempts"]) == (1, 1)


@pytest.mark.parametrize("failure", [Unavailable("cut"), Timeout("late"), 503])
async def test_what_left_is_sent_again_where_it_can_be_repeated(
    forward: Forward, monkeypatch: pytest.MonkeyPatch, failure: Exception | int
) -> None:
    line = Line(Answer(failure, sent=True), Answer(200, sent=True))
    assert await ask(forward, line, monkeypatch, repeatable=True) == line.asked == 2


async def test_an_answer_that_says_no_is_not_asked_for_again(forward: Forward, monkeypatch: pytest.MonkeyPatch) -> None:
    line = Line(Answer(400, sent=True), Answer(200, sent=True))
    with pytest.raises(Exception, match="answered 400"):
        await ask(forward, line, monkeypatch, repeatable=True)
    assert line.asked == 1


async def test_a_deadline_leaves_no_time_to_wait(forward: Forward, monkeypatch: pytest.MonkeyPatch) -> None:
    line = Line(Answer(Unavailable("refused"), sent=False))
    with pytest.raises(Unavailable):
        await ask(forward, line, monkeypatch, repeatable=True, deadline=0.0)
    assert line.asked == 1
