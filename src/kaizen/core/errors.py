"""The error tree: every error Kaizen raises on purpose, one class each.

    KaizenError
     ├─ DefinitionError        a class or function is declared wrongly (all its mistakes at once)
     ├─ ConfigError            a setting is unknown, wrong or missing
     ├─ InvalidInput           what a caller passed breaks the contract; no model was asked
     │   └─ Unsupported        what a caller asked for has no place where it would have to go
     ├─ OutputInvalid          what the model wrote breaks the contract, also after repair
     ├─ NotFound               a ref, record or file that does not exist
     ├─ Conflict               two things that can't both be (a replayed step with other inputs, say)
     ├─ Unauthenticated        no credential, or one that is not known
     ├─ Denied                 policy said no
     ├─ LimitReached           too many requests, tokens or calls at once; ``retry_after`` says when to come again
     ├─ BudgetExceeded         the run's budget is spent
     ├─ StoreError             storage failed
     └─ ProviderError          a model could not be asked, or answered with an error
         ├─ AuthFailed         ├─ RateLimited       ├─ Timeout
         ├─ Unavailable        ├─ ContextTooLong    └─ ContentFiltered

Every class carries ``code`` (a stable name), ``retryable`` (may the same call succeed later?) and
``status`` (the HTTP status it maps to); an instance adds ``detail``, a mapping for machines. Messages
never hold a secret; what a caller passed in is shortened.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, ClassVar, Final

if TYPE_CHECKING:
    from kaizen.core.record import Record

_RECORD: Final = "_kaizen_record"


def note_record(error: BaseException, record: Record) -> None:
    """Note which program call's record an error ended in; calls further out note theirs over it."""
    with suppress(AttributeError):  # an exception of a user's own may be frozen
        setattr(error, _RECORD, record)


def record_of(error: BaseException) -> Record | None:
    """The record of the outermost program call that an error ended, any error, once the runner has kept it."""
    return getattr(error, _RECORD, None)


class KaizenError(Exception):
    """The root of the tree."""

    code: ClassVar[str] = "kaizen_error"
    status: ClassVar[int] = 500
    retryable: bool = False

    def __init__(self, message: str, *, detail: Mapping[str, object] | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.detail: Mapping[str, object] = detail or {}

    def __str__(self) -> str:
        return self.message

    @property
    def record(self) -> Record | None:
        """The record of the program call it ended; None where it ended none."""
        return record_of(self)

    @property
    def kept(self) -> str:
        """What a record keeps of the message: no value that a caller passed in, since records can't be erased."""
        return self.message


class DefinitionError(KaizenError):
    """A declaration is wrong. ``mistakes`` holds one line for each: where, what, what to write instead."""

    code = "definition_error"

    def __init__(self, where: str, mistakes: Sequence[str]) -> None:
        self.where = where
        self.mistakes = tuple(mistakes)
        lines = "".join(f"\n  - {mistake}" for mistake in mistakes)
        super().__init__(f"{where} is not a valid declaration:{lines}", detail={"mistakes": list(mistakes)})

    def __reduce__(self) -> tuple[type[DefinitionError], tuple[str, tuple[str, ...]]]:
        return type(self), (self.where, self.mistakes)


class ConfigError(KaizenError):
    """A setting is unknown, wrong or missing; the message names its key."""

    code = "config_error"


class InvalidInput(KaizenError):
    """An input is missing, unknown, of the wrong type or breaks a constraint. No model was asked.

    The message shows each value, shortened; ``rules`` says the same without values.
    """

    code = "invalid_input"
    status = 422

    def __init__(self, message: str, *, rules: str = "", detail: Mapping[str, object] | None = None) -> None:
        super().__init__(message, detail=detail)
        self.rules = rules

    @property
    def kept(self) -> str:
        """The rules that were broken, without the values that broke them."""
        return self.rules or "an input breaks the contract"


class Unsupported(InvalidInput):
    """A parameter that the model, its wire or the gateway has no place for. It is named, never dropped.

    ``detail["param"]`` is its name, where the caller has one for it.
    """

    code = "unsupported"
    status = 400


class OutputInvalid(KaizenError):
    """The model's reply does not fit the contract, nor did its repair.

    ``reply`` is what the model wrote last, ``problem`` why it does not fit. Both may hold a user's data:
    the problem is shown with the message, and neither is kept in a record.
    """

    code = "output_invalid"
    status = 502

    def __init__(self, message: str, *, reply: str, problem: str, detail: Mapping[str, object] | None = None) -> None:
        super().__init__(message, detail=detail)
        self.reply = reply
        self.problem = problem

    def __str__(self) -> str:
        return f"{self.message}: {self.problem}"

    def __reduce__(self) -> tuple[Callable[..., OutputInvalid], tuple[object, ...]]:
        return partial(type(self), reply=self.reply, problem=self.problem, detail=self.detail), (self.message,)


class NotFound(KaizenError):
    """What a ref, an id or a path names does not exist."""

    code = "not_found"
    status = 404


class Conflict(KaizenError):
    """Two facts that exclude each other, such as a replayed step with other inputs."""

    code = "conflict"
    status = 409


class Denied(KaizenError):
    """Policy refused the action."""

    code = "denied"
    status = 403


class Unauthenticated(KaizenError):
    """There is no credential, or it is not known, expired or revoked."""

    code = "unauthenticated"
    status = 401


class LimitReached(KaizenError):
    """A limit of the caller's key or tenant: requests or tokens a minute, or calls at once.

    Args:
        retry_after: seconds after which the same call may pass.
    """

    code = "limit_reached"
    retryable = True
    status = 429

    def __init__(self, message: str, *, retry_after: float, detail: Mapping[str, object] | None = None) -> None:
        super().__init__(message, detail=detail)
        self.retry_after = retry_after


class BudgetExceeded(KaizenError):
    """The run has spent what it was given; nothing more was asked of a model."""

    code = "budget_exceeded"
    status = 402


class StoreError(KaizenError):
    """Storage refused or failed. What was reported as stored before stays stored."""

    code = "store_error"
    retryable = True
    status = 503


class ProviderError(KaizenError):
    """A model could not be asked or answered with an error.

    Args:
        message: one line, without secrets and without the prompt.
        said: what the far side said, in one line without secrets. It may repeat the prompt (a validation error's
            ``input``, a refusal), so it is shown with the message but not kept in a record.
        provider: the provider's name in the settings.
        model: the model's ref.
        upstream_status: the HTTP status the provider sent, if one came.
        retry_after: seconds the provider asked to wait, if it did.
        retryable: overrides the class's answer for this one error.
    """

    code = "provider_error"
    status = 502

    def __init__(
        self,
        message: str,
        *,
        said: str = "",
        provider: str = "",
        model: str = "",
        upstream_status: int | None = None,
        retry_after: float | None = None,
        retryable: bool | None = None,
    ) -> None:
        super().__init__(
            message,
            detail={
                key: value
                for key, value in (
                    ("provider", provider),
                    ("model", model),
                    ("upstream_status", upstream_status),
                    ("retry_after", retry_after),
                )
                if value not in (None, "")
            },
        )
        self.said = said
        self.provider = provider
        self.model = model
        self.upstream_status = upstream_status
        self.retry_after = retry_after
        if retryable is not None:
            self.retryable = retryable

    def __str__(self) -> str:
        return f"{self.message}: {self.said}" if self.said else self.message


class AuthFailed(ProviderError):
    """The provider did not accept the credential (401, 403)."""

    code = "auth_failed"


class RateLimited(ProviderError):
    """The provider asks to slow down (429); ``retry_after`` says for how long, when it said so."""

    code = "rate_limited"
    retryable = True
    status = 429


class Timeout(ProviderError):
    """No answer came in time: the provider's, the setting's or the run's deadline."""

    code = "timeout"
    retryable = True
    status = 504


class Unavailable(ProviderError):
    """The provider can't be reached, or says that it can't serve now (connect errors, 5xx, a broken body)."""

    code = "unavailable"
    retryable = True
    status = 503


class ContextTooLong(ProviderError):
    """The request does not fit the model's context window."""

    code = "context_too_long"
    status = 413


class ContentFiltered(ProviderError):
    """The provider refused the request or its answer on grounds of content."""

    code = "content_filtered"
    status = 422
