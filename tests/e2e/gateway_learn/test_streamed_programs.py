"""``POST /api/v1/programs/{name}?stream=true``: events as a program writes, and what becomes of the model's call."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest

from kaizen import Signature, context, program
from kaizen.serve.http.learn.seams import Served
from kaizen.testing.fault_server import Fault, FaultServer
from tests.e2e.gateway.conftest import Running
from tests.e2e.gateway.http import Answer
from tests.e2e.gateway.http import ask as send
from tests.e2e.gateway_learn.conftest import ask

WORDS = {"mood": "worried", "text": "We are sorry about your refund and look into it now."}


class Reply(Signature):
    """Answer the customer."""

    message: str = context.input("what the customer wrote")
    mood: str = context.intermediate("the customer's mood")
    text: str = context.output("the answer")


@program
async def twice(message: str) -> str:
    """Two answers in a row."""
    first = await Reply(message=message)
    return (await Reply(message=first.text)).text


SERVED = {one.spec.name: Served(one, "tests:it") for one in (Reply, twice)}


@pytest.fixture
def here(gateway: Callable[..., Running], upstream: FaultServer) -> Running:
    upstream.reply = json.dumps(WORDS)
    return gateway(programs=SERVED, log={"level": "error"})


def streamed(here: Running, key: str, name: str, query: str = "stream=true") -> Answer:
    return ask(here, "POST", f"programs/{name}?{query}", key, {"message": "my refund"})


def events(answer: Answer) -> list[tuple[str, Any]]:
    assert (answer.status, answer.headers["content-type"].partition(";")[0]) == (200, "text/event-stream")
    parts = [part.split("\n", 1) for part in answer.body.decode().strip().split("\n\n")]
    return [(head.removeprefix("event: "), json.loads(data.removeprefix("data: "))) for head, data in parts]


def test_outputs_come_as_they_are_written_and_intermediates_do_not(here: Running) -> None:
    here.upstream.queue(Fault("drip", delay=0.02))
    *partials, (last, answer) = events(streamed(here, here.key(), "Reply"))
    assert {name for name, _ in partials} == {"partial"}
    texts = [(told["outputs"].get("text") or "") for _, told in partials]
    assert len(set(texts)) > 2
    assert all(WORDS["text"].startswith(text) for text in texts)
    assert texts == sorted(texts, key=len)
    assert not any("mood" in told["outputs"] for _, told in partials)
    whole = ask(here, "POST", "programs/Reply", here.key(), {"message": "my refund"}).json
    assert last == "answer"
    assert answer.keys() == whole.keys()
    assert answer["outputs"] == whole["outputs"] == {"text": WORDS["text"]}
    assert answer["record"] in {record.id for record in here.records()}
    assert json.loads(here.upstream.calls[0].body)["stream"] is True


def test_of_the_programs_below_only_their_steps_are_told(here: Running) -> None:
    told = events(streamed(here, here.key(), "twice"))
    names = [name for name, _ in told]
    assert names == ["step", "step", "answer"]
    assert [one["step"] for _, one in told[:2]] == ["0.0", "0.1"]
    assert [one.keys() for _, one in told[:2]] == [{"program", "step"}] * 2
    assert told[-1][1]["outputs"] == {"result": WORDS["text"]}


def test_what_fails_before_the_first_piece_has_a_status_of_its_own(here: Running) -> None:
    key = here.key()
    assert streamed(here, key, "Nobody").status == 404
    assert streamed(here, key, "Reply", "stream=maybe").status == 422
    wrong = ask(here, "POST", "programs/Reply?stream=true", key, {"text": "x"})
    assert (wrong.status, wrong.headers["content-type"]) == (422, "application/json")
    assert here.upstream.count == 0
    assert streamed(here, key, "Reply", "stream=false").json["outputs"] == {"text": WORDS["text"]}


def test_what_fails_after_it_ends_with_an_error_and_no_answer(here: Running) -> None:
    here.upstream.queue(Fault("truncated"))
    *_, (last, problem) = told = events(streamed(here, here.key(), "Reply"))
    assert told[0][0] == "partial"
    assert (last, "error" in problem) == ("error", True)
    assert "answer" not in {name for name, _ in told}
    assert {record.status for record in here.records()} == {"error"}


def test_who_goes_away_ends_the_call_upstream(here: Running) -> None:
    here.upstream.queue(Fault("drip", delay=0.2))
    with send(here, "/api/v1/programs/Reply?stream=true", {"message": "my refund"}, key=here.key()) as connection:
        seen = b""
        while b"event: partial" not in seen:
            seen += connection.recv(65_536)
    asyncio.run(here.upstream.until(lambda: here.upstream.cuts == 1))
    here.stop()
    assert {record.status for record in here.records()} == {"cancelled"}
