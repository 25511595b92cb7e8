"""What goes wrong, as a caller over HTTP sees it: a status, a code, and words that hold no secret."""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass
from typing import Final

import msgspec

from kaizen.core.errors import (
    AuthFailed,
    ConfigError,
    KaizenError,
    LimitReached,
    NotFound,
    ProviderError,
    StoreError,
    Unauthenticated,
    Unsupported,
)
from kaizen.serve.errors import one_line, outcome

_logger = logging.getLogger(__name__)

# What a provider says about the request itself is the caller's to hear, with the status it came with.
_CALLERS_OWN: Final = frozenset({400, 404, 409, 422})
_UNKNOWN_FIELD: Final = re.compile(r"unknown field `([^`]*)`")
_MISSING_FIELD: Final = re.compile(r"missing required field `([^`]*)`")
_PLACE: Final = re.compile(r" - at (?:the key in )?`\$\.?([^`]*)`")


@dataclass(frozen=True, slots=True)
class Problem:
    """An error on its way to a caller.

    Args:
        status: of HTTP.
        code: its stable name.
        message: one line, without secrets.
        param: the parameter it is about.
        retry_after: seconds after which the same call may pass.
        retryable: whether it may pass later at all.
    """

    status: int
    code: str
    message: str
    param: str | None = None
    retry_after: float | None = None
    retryable: bool = False


class Refused(Exception):
    """A call that HTTP itself refuses: no such route, a body that is too large or can't be read."""

    def __init__(self, status: int, code: str, message: str, *, param: str | None = None) -> None:
        super().__init__(message)
        self.problem = Problem(status, code, message, param)


def unsupported(param: str, why: str) -> Unsupported:
    """A parameter, or a value of it, that the gateway has no place for."""
    rule = f"{param} {why}"
    return Unsupported(rule, rules=rule, detail={"param": param})


def malformed(error: Exception, within: str = "") -> Exception:
    """What is wrong with a body that was not decoded.

    Args:
        error: what the decoder raised.
        within: the parameter that was decoded by itself, if one was.
    """
    if isinstance(error, RecursionError):
        return Refused(400, "malformed", "the JSON is nested too deep", param=within or None)
    text = str(error)
    if not isinstance(error, msgspec.ValidationError):
        return Refused(400, "malformed", f"the body is not valid JSON: {text}")
    found = _PLACE.search(text)
    place = within + ("." if within and found and not found[1].startswith("[") else "") + (found[1] if found else "")
    what = _PLACE.sub("", text)
    if unknown := _UNKNOWN_FIELD.search(text):
        param = f"{place}.{unknown[1]}" if place else unknown[1]
        return unsupported(param, "is no parameter that this endpoint supports")
    if missing := _MISSING_FIELD.search(text):
        param = f"{place}.{missing[1]}" if place else missing[1]
        return Refused(400, "invalid_request", f"{param} is missing", param=param)
    return Refused(400, "invalid_request", f"{place}: {what}" if place else what, param=place or None)


def problem_of(error: BaseException) -> Problem:
    """An error as the caller sees it. One that is not ours is logged and shown without its text."""
    match error:
        case Refused():
            return error.problem
        case ConfigError():
            # the message may name a path or an address that is nobody's business outside
            _logger.error("a call failed on the configuration: %s", one_line(error))
            return Problem(500, error.code, "the gateway is not set up for this; its log says more")
        case LimitReached():
            return _ours(error, retry_after=error.retry_after)
        case AuthFailed():
            _logger.error("a provider refused its key: %s", one_line(error))
            return Problem(502, error.code, error.message)
        case ProviderError() if error.upstream_status in _CALLERS_OWN:
            return Problem(error.upstream_status, error.code, one_line(error), _param(error))
        case ProviderError():
            return _ours(error, retry_after=error.retry_after)
        case StoreError():
            _logger.error("storage failed: %s", one_line(error))
            return Problem(503, error.code, "the gateway's storage can't be reached", retryable=True)
        case KaizenError():
            return _ours(error)
        case _:
            _logger.error("a call failed", exc_info=error)
            return Problem(500, "internal_error", "the gateway failed; its log says more")


def _ours(error: KaizenError, *, retry_after: float | None = None) -> Problem:
    message = error.message if isinstance(error, Unauthenticated | NotFound) else one_line(error)
    status = outcome(error).http_status
    return Problem(status, error.code, message, _param(error), retry_after, error.retryable)


def _param(error: KaizenError) -> str | None:
    param = error.detail.get("param")
    return param if isinstance(param, str) else None
