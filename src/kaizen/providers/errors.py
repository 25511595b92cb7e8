"""What a provider answers when it does not answer: one table from statuses, codes and words to the error tree."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Final, NoReturn, cast

from pydantic_core import from_json

from kaizen.core.errors import (
    AuthFailed,
    ContentFiltered,
    ContextTooLong,
    ProviderError,
    RateLimited,
    Timeout,
    Unavailable,
)

_SHOWN: Final = 300
_CREDENTIALS: Final = re.compile(r"(?<=//)[^/\s]*@")

_CONTEXT_CODES: Final = frozenset({"context_length_exceeded", "exceed_context_size_error", "request_too_large"})
# OpenAI and vLLM, Anthropic, llama.cpp, in this order; they change their codes more often than their words.
_CONTEXT_WORDS: Final = re.compile(
    r"maximum context length|context window|longer than the (maximum )?model'?s? (context )?length"
    r"|prompt is too long|exceeds? (the )?(available )?context|max_model_len",
    re.IGNORECASE,
)
_CONTENT_CODES: Final = frozenset(
    {
        "bio_policy",
        "content_filter",
        "content_policy_violation",
        "image_content_policy_violation",
        "invalid_prompt",  # OpenAI's: the prompt was flagged by its usage policy
        "misalignment_policy_violation",
        "moderation_blocked",
    }
)
_QUOTA_CODES: Final = frozenset({"insufficient_quota", "billing_error", "billing_hard_limit_reached"})
# Errors inside a stream come without a status of their own.
_STATUS_OF: Final[Mapping[str, int]] = {
    "api_error": 500,
    "authentication_error": 401,
    "billing_error": 402,
    "exceed_context_size_error": 400,
    "invalid_request_error": 400,
    "not_found_error": 404,
    "overloaded_error": 529,
    "permission_error": 403,
    "rate_limit_error": 429,
    "rate_limit_exceeded": 429,
    "insufficient_quota": 429,
    "request_too_large": 413,
    "server_error": 500,
    "timeout_error": 504,
    "unavailable_error": 503,
}
_NOT_IMPLEMENTED: Final = frozenset({501, 505})


class Secret:
    """A key. Neither ``repr`` nor ``str`` nor pickling shows it; ``reveal()`` does."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """The key itself, for the header that carries it."""
        return self._value

    def __repr__(self) -> str:
        return "Secret(***)"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Secret is not pickled")


class Origin:
    """Which provider an error comes from, and the key that no message may show.

    Args:
        name: the provider's name in the settings.
        key: what it is asked with, or None.
    """

    __slots__ = ("key", "name")

    def __init__(self, name: str, key: Secret | None = None) -> None:
        self.name = name
        self.key = key

    def answered(self, model: str, status: int, headers: Mapping[str, str], body: bytes) -> ProviderError:
        """The error for an HTTP answer that is none.

        Args:
            model: the model's ref.
            status: the HTTP status.
            headers: the answer's headers; names are looked up in lower case.
            body: as much of the body as was read.
        """
        try:
            error = _error_of(from_json(body))
        except ValueError:
            # a gateway's page; what its title says is worth showing, its markup is not
            error = {"message": re.sub(rb"<[^>]*>|\s+", b" ", body[:4000]).decode(errors="replace")}
        wait = retry_after(headers)
        return self._error(f"answered {status} for {model}", model, error, status, upstream_status=status, wait=wait)

    def reported(self, model: str, error: Any) -> ProviderError:
        """The error for an error object that came inside an answer of status 200."""
        found = _error_of(error)
        code, kind = found.get("code"), found.get("type")
        status = code if isinstance(code, int) else _STATUS_OF.get(str(code)) or _STATUS_OF.get(str(kind), 500)
        return self._error(f"reported {code or kind or 'an error'} for {model}", model, found, status)

    def broken(self, model: str, what: str) -> Unavailable:
        """The error for an answer that can't be read: ``what`` says why."""
        return Unavailable(f"{self.name} ({model}): {self.clean(what)}", provider=self.name, model=model)

    def filtered(self, model: str, what: str) -> ContentFiltered:
        """The error for an answer that the provider withheld: ``what`` gives its reason, if it gave one."""
        return ContentFiltered(
            f"{self.name} ({model}) withheld the answer on grounds of content",
            said=self.clean(what),
            provider=self.name,
            model=model,
        )

    def late(self, model: str, what: str) -> Timeout:
        """The error for an answer that did not come in time: ``what`` says which time."""
        return Timeout(f"{self.name} ({model}): {what}", provider=self.name, model=model)

    def clean(self, text: str) -> str:
        """One line without key, passwords in addresses and terminal controls, cut to 300 characters."""
        # The key goes first: cutting first could leave a part of it that is no longer found.
        if self.key is not None and (key := self.key.reveal()):
            text = text.replace(key, "***")
        text = " ".join(_CREDENTIALS.sub("***@", text).split())
        text = text if len(text) <= _SHOWN else f"{text[: _SHOWN - 1]}…"
        return "".join(char for char in text if char.isprintable())

    def _error(
        self,
        what: str,
        model: str,
        error: Mapping[str, Any],
        status: int,
        *,
        upstream_status: int | None = None,
        wait: float | None = None,
    ) -> ProviderError:
        message = str(error.get("message") or error.get("detail") or "")
        codes = {str(error.get("code") or ""), str(error.get("type") or "")}
        kind, retryable = _class_of(status, codes, message)
        hint = ""
        if kind is AuthFailed and self.key is None:
            hint = " (no key is set for this provider)"
        elif 300 <= status < 400:
            hint = " (a redirect, which is not followed: check base_url)"
        return kind(
            f"{self.name} {self.clean(what)}{hint}",
            said=self.clean(message),
            provider=self.name,
            model=model,
            upstream_status=upstream_status,
            retry_after=wait,
            retryable=retryable,
        )


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds the provider asks to wait: from ``retry-after-ms``, ``x-ms-retry-after-ms`` or ``retry-after``.

    The last holds seconds or an HTTP date (RFC 9110, section 10.2.3). None where none is given or readable.
    """
    for name in ("retry-after-ms", "x-ms-retry-after-ms"):
        if (wait := _number(headers.get(name))) is not None:
            return wait / 1000
    value = headers.get("retry-after")
    if value is None or (wait := _number(value)) is not None:
        return wait if value else None
    try:
        until = parsedate_to_datetime(value)
    except (ValueError, OverflowError):
        return None
    if until.tzinfo is None:
        until = until.replace(tzinfo=UTC)
    return max(0.0, (until - datetime.now(UTC)).total_seconds())


def _number(value: str | None) -> float | None:
    """A count of 0 or more, or None."""
    try:
        number = float(value or "")
    except ValueError:
        return None
    # false for nan as well
    return number if 0 <= number < float("inf") else None


def _error_of(body: Any) -> dict[str, Any]:
    """The error object of a body: ``{"error": {...}}``, ``{"error": "text"}``, vLLM's flat one, or a text."""
    error: Any = cast("Any", body).get("error", body) if isinstance(body, dict) else body
    if isinstance(error, dict):
        return cast("dict[str, Any]", error)
    return {"message": error if isinstance(error, str) else ""}


def _class_of(status: int, codes: set[str], message: str) -> tuple[type[ProviderError], bool | None]:
    """The class, and what overrides its ``retryable``."""
    if status in (400, 403, 413, 422, 500) and codes & _CONTENT_CODES:
        return ContentFiltered, None
    # 500 as well: older llama.cpp servers report a long prompt so
    if status == 413 or (status in (400, 422, 500) and (codes & _CONTEXT_CODES or _CONTEXT_WORDS.search(message))):
        return ContextTooLong, None
    match status:
        case 401 | 403:
            return AuthFailed, None
        case 408:
            return Timeout, None
        case 429:
            # a quota that is used up does not come back by waiting a second
            return RateLimited, False if codes & _QUOTA_CODES else None
        case _ if status >= 500 and status not in _NOT_IMPLEMENTED:
            return Unavailable, None
        case _:
            return ProviderError, None
