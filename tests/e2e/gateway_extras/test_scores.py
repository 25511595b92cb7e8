"""Feedback over HTTP: scores about the answers of the key's own tenant."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from pydantic_core import to_json

from kaizen.core.record import Record
from tests.e2e.gateway.conftest import Running
from tests.e2e.gateway.http import Answer, post

Start = Callable[..., Running]


@pytest.fixture
def here(gateway: Start) -> Running:
    return gateway()


def asked(here: Running, key: str) -> str:
    """The record of a call."""
    body = {"model": "mine/large", "messages": [{"role": "user", "content": "hi"}]}
    return post(here, "/v1/chat/completions", body, key=key).headers["x-kaizen-record"]


def score(here: Running, key: str | None, record: str, body: Any) -> Answer:
    return post(here, f"/api/v1/records/{record}/score", body, key=key)


def scores(here: Running, tenant: str = "acme") -> list[Record]:
    return [record for record in here.records(tenant) if record.kind == "score"]


def test_a_score_is_kept_about_the_answer(here: Running) -> None:
    key = here.key()
    record = asked(here, key)
    told = score(here, key, record, {"score": 0.25, "comment": "not my card"})
    assert told.status == 201
    (kept,) = scores(here)
    assert (kept.id, kept.about, kept.value) == (told.json["id"], record, 0.25)
    assert told.json == {"id": kept.id, "about": record, "score": 0.25}
    assert kept.principal.startswith("key:")
    assert kept.output_digest is not None
    assert score(here, key, record, {"thumbs": "up"}).status == 201
    assert score(here, key, record, {"stars": 2}).json["score"] == 0.25
    assert len(scores(here)) == 3


def test_another_tenants_record_is_not_there(here: Running) -> None:
    record = asked(here, here.key())
    assert score(here, here.key("globex"), record, {"score": 1}).status == 404
    assert score(here, None, record, {"score": 1}).status == 401
    assert score(here, here.key(scopes=frozenset({"metrics"})), record, {"score": 1}).status == 403
    assert scores(here) == scores(here, "globex") == []


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({}, 422),
        ({"score": 2}, 422),
        ({"score": "high"}, 422),
        ({"score": 1, "stars": 3}, 422),
        ({"score": 1, "mood": "good"}, 422),
        ({"correct": {"team": "cards"}}, 422),  # it is a model's reply, not a program's answer
        ({"score": 1, "comment": "x" * 100_000}, 413),
    ],
)
def test_what_is_no_score_is_refused(here: Running, body: dict[str, Any], status: int) -> None:
    key = here.key()
    assert score(here, key, asked(here, key), body).status == status
    assert scores(here) == []


def test_paths_and_records_that_are_not_there(here: Running) -> None:
    key = here.key()
    assert score(here, key, "01a1f91f-b183-79dd-8c68-57dda5293b1c", {"score": 1}).status == 404
    for path in ("/api/v1/records/x", "/api/v1/records//score", "/api/v1/records/a/b/score"):
        assert post(here, path, {"score": 1}, key=key).status == 404


def test_scores_count_as_calls_against_the_keys_limits(here: Running) -> None:
    record = asked(here, here.key())
    key = here.key(limits={"requests_per_minute": 2})
    answers = [score(here, key, record, {"score": 1}).status for _ in range(3)]
    assert answers == [201, 201, 429]
    assert len(scores(here)) == 2
    assert to_json(answers)
