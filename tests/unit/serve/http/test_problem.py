"""What a caller is told of each error, and what not."""

from __future__ import annotations

import msgspec
import pytest

from kaizen.core.errors import (
    AuthFailed,
    BudgetExceeded,
    ConfigError,
    Denied,
    InvalidInput,
    KaizenError,
    LimitReached,
    NotFound,
    ProviderError,
    RateLimited,
    StoreError,
    Unauthenticated,
    Unavailable,
    Unsupported,
)
from kaizen.serve.http.problem import Refused, malformed, problem_of, unsupported
from kaizen.serve.http.wires.wire import check_depth


@pytest.mark.parametrize(
    ("error", "status", "code", "retryable"),
    [
        (Refused(404, "not_found", "nothing"), 404, "not_found", False),
        (Unauthenticated("no"), 401, "unauthenticated", False),
        (Denied("no"), 403, "denied", False),
        (BudgetExceeded("spent"), 402, "budget_exceeded", False),
        (LimitReached("slow", retry_after=2.5), 429, "limit_reached", True),
        (RateLimited("slow", retry_after=1.0), 429, "rate_limited", True),
        (InvalidInput("no candidate"), 422, "invalid_input", False),
        (Unsupported("n"), 400, "unsupported", False),
        (NotFound("x"), 404, "not_found", False),
        (ProviderError("bad image", upstream_status=400), 400, "provider_error", False),
        (ProviderError("no model", upstream_status=404), 404, "provider_error", False),
        (ProviderError("odd", upstream_status=418), 502, "provider_error", False),
        (Unavailable("down"), 503, "unavailable", True),
        (AuthFailed("refused", upstream_status=401), 502, "auth_failed", False),
        (StoreError("/secret/path is full"), 503, "store_error", True),
        (ConfigError("/secret/path"), 500, "config_error", False),
        (KaizenError("x"), 500, "kaizen_error", False),
        (ZeroDivisionError("a secret"), 500, "internal_error", False),
    ],
)
def test_each_error_has_its_status(error: Exception, status: int, code: str, retryable: bool) -> None:
    problem = problem_of(error)
    assert (problem.status, problem.code, problem.retryable) == (status, code, retryable)
    assert "secret" not in problem.message


def test_waits_and_parameters_are_told() -> None:
    assert problem_of(LimitReached("slow", retry_after=2.5)).retry_after == 2.5
    assert problem_of(unsupported("tools[0].x", "is not known")).param == "tools[0].x"
    assert problem_of(KaizenError("x", detail={"param": 5})).param is None


@pytest.mark.parametrize(
    ("data", "within", "param", "words"),
    [
        (b'{"a": 1, "b": 2}', "", "b", "b is no parameter"),
        (b'{"a": 1, "b": 2}', "tools", "tools.b", "tools.b is no parameter"),
        (b"{}", "", "a", "a is missing"),
        (b"{}", "text", "text.a", "text.a is missing"),
        (b'{"a": "x"}', "", "a", "a: Expected `int`"),
        (b'{"a": "x"}', "text", "text.a", "text.a: Expected `int`"),
        (b"[]", "", None, "Expected `object`"),
        (b"{", "", None, "not valid JSON"),
    ],
)
def test_what_is_malformed_is_named(data: bytes, within: str, param: str | None, words: str) -> None:
    class Body(msgspec.Struct, forbid_unknown_fields=True):
        a: int

    with pytest.raises(msgspec.DecodeError) as caught:
        msgspec.json.decode(data, type=Body)
    problem = problem_of(malformed(caught.value, within))
    assert (problem.status, problem.param) == (400, param)
    assert words in problem.message
    assert problem_of(malformed(RecursionError(), within)).status == 400


def test_json_that_is_too_deep_is_refused() -> None:
    value: object = 1
    for _ in range(60):
        value = [value]
    check_depth({"a": value}, "schema")
    for _ in range(10):
        value = {"x": value}
    with pytest.raises(Refused, match="deeper than 64 levels"):
        check_depth(value, "schema")
