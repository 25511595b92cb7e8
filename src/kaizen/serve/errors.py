"""The one table of errors: class -> exit code and HTTP status. ``docs/reference/errors.md`` shows it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from kaizen.core.errors import (
    AuthFailed,
    BudgetExceeded,
    ConfigError,
    Conflict,
    ContentFiltered,
    ContextTooLong,
    DefinitionError,
    Denied,
    InvalidInput,
    KaizenError,
    LimitReached,
    NotFound,
    OutputInvalid,
    ProviderError,
    RateLimited,
    StoreError,
    Timeout,
    Unauthenticated,
    Unavailable,
    Unsupported,
)

OK: Final = 0
FINDINGS: Final = 1  # validate found mistakes, or rows of a batch failed
USAGE: Final = 2
UNEXPECTED: Final = 70  # EX_SOFTWARE of sysexits.h: not one of ours
INTERRUPTED: Final = 130  # 128 + SIGINT, as shells report it
CLOSED_PIPE: Final = 141  # 128 + SIGPIPE


@dataclass(frozen=True, slots=True)
class Outcome:
    """What an error class is, seen from outside."""

    exit_code: int
    http_status: int


TABLE: Final[Mapping[type[KaizenError], Outcome]] = {
    DefinitionError: Outcome(FINDINGS, 500),
    ConfigError: Outcome(USAGE, 500),
    InvalidInput: Outcome(3, 422),
    Unsupported: Outcome(3, 400),
    ProviderError: Outcome(4, 502),
    AuthFailed: Outcome(4, 502),
    RateLimited: Outcome(4, 429),
    Timeout: Outcome(4, 504),
    Unavailable: Outcome(4, 503),
    ContextTooLong: Outcome(4, 413),
    ContentFiltered: Outcome(4, 422),
    OutputInvalid: Outcome(5, 502),
    NotFound: Outcome(6, 404),
    Conflict: Outcome(7, 409),
    Unauthenticated: Outcome(8, 401),
    Denied: Outcome(8, 403),
    LimitReached: Outcome(8, 429),
    BudgetExceeded: Outcome(9, 402),
    StoreError: Outcome(10, 503),
    KaizenError: Outcome(UNEXPECTED, 500),
}


def outcome(error: BaseException) -> Outcome:
    """The row of an error's class, or of the nearest class above it that has one."""
    kinds: tuple[type, ...] = type(error).__mro__
    return next((TABLE[kind] for kind in kinds if kind in TABLE), TABLE[KaizenError])


def one_line(error: BaseException) -> str:
    """What went wrong, in one line. A foreign exception is shown with its type, since its text alone says little."""
    match error:
        case DefinitionError(where=where, mistakes=(first, *more)):
            rest = f" (and {len(more)} more; `kaizen validate` shows all)" if more else ""
            text = f"{where}: {first}{rest}"
        case KaizenError():
            text = str(error)
        case _:
            text = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    text = re.sub(r"\s*\n\s*", " ", text.strip())
    # what a server or a file said may hold a terminal's control sequences
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)
