"""One root, stable codes, and nothing of a caller's data where it can't be erased."""

from __future__ import annotations

import copy
import pickle
import re
from collections.abc import Iterator

import pytest

from kaizen.core import errors
from kaizen.core.errors import DefinitionError, InvalidInput, KaizenError, OutputInvalid, ProviderError, RateLimited


def tree(root: type[KaizenError]) -> Iterator[type[KaizenError]]:
    yield root
    for below in root.__subclasses__():
        yield from tree(below)


def own() -> list[type[KaizenError]]:
    return [cls for cls in tree(KaizenError) if cls.__module__ == errors.__name__]


def test_codes_are_unique_and_statuses_are_http() -> None:
    codes = [cls.code for cls in own()]
    assert len(set(codes)) == len(codes) == 20
    assert all(400 <= cls.status < 600 for cls in own())


def test_the_drawn_tree_is_the_tree() -> None:
    drawn = set(re.findall(r"─ (\w+)", errors.__doc__ or "")) | {"KaizenError"}
    assert drawn == {cls.__name__ for cls in own()}


def test_what_may_succeed_later_is_retryable() -> None:
    lasting = {cls.__name__ for cls in own() if cls.retryable}
    assert lasting == {"LimitReached", "StoreError", "RateLimited", "Timeout", "Unavailable"}
    assert not RateLimited("no", retryable=False).retryable


def test_a_provider_error_says_where_it_came_from() -> None:
    error = RateLimited("slow down", provider="mine", model="mine/large", upstream_status=429, retry_after=1.5)
    assert error.detail == {"provider": "mine", "model": "mine/large", "upstream_status": 429, "retry_after": 1.5}
    assert (error.provider, error.model, error.upstream_status, error.retry_after) == tuple(error.detail.values())
    assert ProviderError("no").detail == {}
    assert ProviderError("no", retry_after=0.0).detail == {"retry_after": 0.0}


def test_a_definition_error_shows_every_mistake_on_its_line() -> None:
    error = DefinitionError("m.Triage", ["one", "two"])
    assert str(error).splitlines() == ["m.Triage is not a valid declaration:", "  - one", "  - two"]
    assert (error.mistakes, error.detail) == (("one", "two"), {"mistakes": ["one", "two"]})


@pytest.mark.parametrize(
    "error",
    [
        DefinitionError("m.T", ["one"]),
        InvalidInput("x = 5: too big", rules="'x': too big", detail={"problems": ["x"]}),
        OutputInvalid("misfit", reply="the reply", problem="why", detail={"model": "m"}),
        RateLimited("slow", said="later", provider="p", retry_after=2.0),
    ],
)
def test_errors_cross_processes(error: KaizenError) -> None:
    for twin in (pickle.loads(pickle.dumps(error)), copy.copy(error)):  # noqa: S301 - our own bytes
        assert type(twin) is type(error)
        assert (str(twin), twin.__dict__) == (str(error), error.__dict__)


def test_records_keep_rules_but_no_values() -> None:
    assert InvalidInput("age = 'secret': no number", rules="'age': no number").kept == "'age': no number"
    assert "secret" not in InvalidInput("age = 'secret'").kept
    assert KaizenError("plain").kept == "plain"


def test_what_a_provider_said_is_shown_and_not_kept() -> None:
    error = ProviderError("mine answered 422", said="input: private")
    assert str(error) == "mine answered 422: input: private"
    assert error.kept == str(ProviderError("mine answered 422")) == "mine answered 422"


def test_the_reply_is_at_hand_but_neither_shown_nor_kept() -> None:
    error = OutputInvalid("does not fit", reply="private", problem="'team' is missing")
    assert str(error) == "does not fit: 'team' is missing"
    assert error.kept == "does not fit"
    assert "private" not in str(error) + repr(error)
    assert (error.reply, error.problem) == ("private", "'team' is missing")
