from __future__ import annotations

import pickle
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from pydantic_core import to_json

from kaizen.core.errors import (
    AuthFailed,
    ContentFiltered,
    ContextTooLong,
    ProviderError,
    RateLimited,
    Timeout,
    Unavailable,
)
from kaizen.providers.errors import Origin, Secret, retry_after

KEY = "sk-a-key-nobody-may-see"
ORIGIN = Origin("mine", Secret(KEY))


# The vendors' own words, from their documentation and servers.
@pytest.mark.parametrize(
    ("status", "error", "kind"),
    [
        (
            400,
            {"message": "This model's maximum context length is 8192 tokens.", "code": "context_length_exceeded"},
            ContextTooLong,
        ),
        (
            400,  # vLLM
            {"object": "error", "message": "This model's maximum context length is 2048 tokens.", "type": "Bad"},
            ContextTooLong,
        ),
        (
            400,  # llama.cpp
            {"code": 400, "message": "5031 tokens exceed the context", "type": "exceed_context_size_error"},
            ContextTooLong,
        ),
        (400, {"message": "request (5031 tokens) exceeds the available context size (2048 tokens)"}, ContextTooLong),
        (400, {"message": "prompt is too long: 200001 tokens > 200000"}, ContextTooLong),
        (400, {"message": "input length and `max_tokens` exceed context limit: 190000 + 20000"}, ContextTooLong),
        (400, {"type": "invalid_request_error", "message": "temperature: must be at most 1"}, ProviderError),
        (400, {"code": "content_filter", "message": "The response was filtered"}, ContentFiltered),
        (400, {"code": "invalid_prompt", "message": "flagged"}, ContentFiltered),
        (404, {"code": "model_not_found", "message": "The model does not exist"}, ProviderError),
        (418, {"message": "I'm a teapot"}, ProviderError),
        (501, {"message": "not implemented"}, ProviderError),
        (524, {"message": "a timeout occurred"}, Unavailable),
    ],
)  # fmt: skip
def test_an_answer_becomes_its_class(status: int, error: dict[str, object], kind: type[ProviderError]) -> None:
    for body in ({"error": error}, error):
        caught = ORIGIN.answered("mine/m", status, {}, to_json(body))
        assert type(caught) is kind
        assert (caught.provider, caught.model, caught.upstream_status) == ("mine", "mine/m", status)
        assert f"answered {status} for mine/m: {error['message']}" in str(caught)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        ({"error": {"type": "overloaded_error", "message": "Overloaded"}}, Unavailable),
        ({"error": {"type": "rate_limit_error", "message": "slow"}}, RateLimited),
        ({"error": {"type": "authentication_error"}}, AuthFailed),
        ({"error": {"code": 429, "message": "slow"}}, RateLimited),
        ({"type": "error", "code": "server_error", "message": "sorry"}, Unavailable),
        ({"error": {"code": "image_content_policy_violation", "message": "no"}}, ContentFiltered),
        ({"error": {"code": "context_length_exceeded", "message": "long"}}, ContextTooLong),
        ({"error": {"code": 408}}, Timeout),
        ({"error": "out of memory"}, Unavailable),
        (["what"], Unavailable),
    ],
)
def test_an_error_inside_an_answer_becomes_its_class(error: object, kind: type[ProviderError]) -> None:
    caught = ORIGIN.reported("mine/m", error)
    assert type(caught) is kind
    assert caught.upstream_status is None


def test_a_page_is_told_without_its_markup() -> None:
    caught = ORIGIN.answered("mine/m", 502, {}, b"<html>\n<title>Bad\n Gateway</title>" + b"<p>x</p>" * 500)
    assert str(caught).startswith("mine answered 502 for mine/m: Bad Gateway x x")
    assert len(str(caught)) < 350


def test_hints() -> None:
    assert "no key is set" in str(Origin("mine").answered("mine/m", 401, {}, b"{}"))
    assert "no key is set" not in str(ORIGIN.answered("mine/m", 401, {}, b"{}"))
    assert "check base_url" in str(ORIGIN.answered("mine/m", 301, {}, b"{}"))


@pytest.mark.parametrize("before", [0, 270, 290, 299])
def test_the_key_is_never_shown(before: int) -> None:
    body = to_json({"error": {"message": "x" * before + KEY}})
    for caught in (
        ORIGIN.answered("mine/m", 401, {}, body),
        ORIGIN.reported("mine/m", {"error": {"code": KEY, "message": KEY}}),
        ORIGIN.broken("mine/m", KEY),
        ORIGIN.filtered("mine/m", KEY),
    ):
        # not a part of it either, where the message is cut
        assert KEY[:6] not in f"{caught!r}{caught}{caught.detail}{vars(caught)}"


def test_a_secret_hides() -> None:
    secret = Secret(KEY)
    assert secret.reveal() == KEY
    assert KEY not in f"{secret}{secret!r}{[secret]}"
    with pytest.raises(TypeError, match="not pickled"):
        pickle.dumps(secret)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "7"}, 7),
        ({"retry-after": "0"}, 0),
        ({"retry-after": "1.5"}, 1.5),
        ({"retry-after": "-1"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "Wed, 21 Oct 99999999999999999999 07:28:00 GMT"}, None),
        ({"retry-after": ""}, None),
        ({"retry-after": "7", "retry-after-ms": "250"}, 0.25),
        ({"x-ms-retry-after-ms": "100"}, 0.1),
        ({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}, 0),
        ({"retry-after": "Wed, 21 Oct 2015 07:28:00 -0000"}, 0),
    ],
)
def test_retry_after(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after(headers) == seconds
    assert ORIGIN.answered("mine/m", 429, headers, b"{}").retry_after == seconds


def test_retry_after_a_date_to_come() -> None:
    date = format_datetime(datetime.now(UTC) + timedelta(seconds=30), usegmt=True)
    assert 25 < (retry_after({"retry-after": date}) or 0) <= 30


def test_nothing_secret_and_no_terminal_control_is_shown() -> None:
    cleaned = Origin("mine", Secret("sk-1")).clean("a\x1b]0;x\x07 sk-1\nhttp://me:pa55@p:1/x at me@b.c \x9b31m")
    assert cleaned == "a]0;x *** http://***@p:1/x at me@b.c 31m"
