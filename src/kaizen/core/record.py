"""The record: one immutable fact about one unit of work. Trace, cost, metrics, audit and datasets are views of it."""

from __future__ import annotations

from collections.abc import Awaitable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from kaizen.core.quick.values import quick
from kaizen.core.request import Stage, Tier
from kaizen.core.scope import Scope
from kaizen.core.slot import current_app

Kind: TypeAlias = Literal["program", "model", "score", "span"]
Status: TypeAlias = Literal["ok", "error", "cancelled", "suspended"]


@quick
@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One program call, one model call, one score about another record, or one span of another application.

    A program call's tokens, cost and ``model_calls`` are summed over the model calls below it, repairs
    included; so sum one kind, never both. Contents stand apart, as payloads behind the two digests.

    Args:
        id: time-ordered UUID.
        kind: what was done.
        ref: the program's name, or the model's ref.
        run_id: the run it belongs to: one call from outside and everything below it.
        parent_id: the record of the program call this one happened in; None at the root. A span's is its parent's step.
        step: the path of this call inside its run, in program order, such as ``0.2.1``; a span's id in its trace.
        scope: whose it is.
        principal: who acted.
        status: how it ended.
        started_at: Unix seconds.
        latency_ms: wall milliseconds.
        model: ref of the (last) model that answered, None where none was asked.
        params: version of the params the program ran with.
        contract: digest of the program's contract.
        tokens_in, tokens_out, tokens_cached: as counted by the provider; ``tokens_cached`` is part of ``tokens_in``.
        tokens_estimated: True where any of the counts is our estimate.
        cost_usd: None where a price is not known, never 0 for that.
        cache_tier: which layer answered.
        attempts: requests sent to providers, retries included.
        model_calls: model calls below a program call; 1 for a model call.
        first_token_ms: milliseconds to the first token of a stream.
        input_digest, output_digest: addresses of the payloads.
        error_code, error: code and one-line message of the error it ended with.
        about: the record a score is about. The score's ``output_digest`` leads to its comment and correction.
        value: the score.
        task: type of the task, as the caller named or the router found it.
        saved_usd: dollars that the layers saved, see ``Stage``; None where one of them can't tell.
        stages: what the layers did.
        version: content address of the version of the program's params that ran, ``base`` for those in the code; None
            where it asked for none, or other params stood in their place. A score's is that of what it is about.
        experiment: the label's move that split it, where the version is an arm of an experiment.
        subject: whom the run was for, where that was said.
    """

    id: str
    kind: Kind
    ref: str
    run_id: str
    scope: Scope
    started_at: float
    parent_id: str | None = None
    step: str = ""
    principal: str = ""
    status: Status = "ok"
    latency_ms: float = 0.0
    model: str | None = None
    params: str | None = None
    contract: str | None = None
    tokens_in: int = 0
    tokens_out: int = 0
    tokens_cached: int = 0
    tokens_estimated: bool = False
    cost_usd: float | None = None
    cache_tier: Tier = "model"
    attempts: int = 0
    model_calls: int = 0
    first_token_ms: float | None = None
    input_digest: str | None = None
    output_digest: str | None = None
    error_code: str | None = None
    error: str | None = None
    about: str | None = None
    value: float | None = None
    task: str | None = None
    saved_usd: float | None = 0.0
    stages: tuple[Stage, ...] = ()
    version: str | None = None
    experiment: str | None = None
    subject: str = ""

    def score(self, value: float, comment: str = "", *, correct: Mapping[str, Any] | None = None) -> Awaitable[Record]:
        """Keep a person's word on this answer, in the process's App; the score's record.

        In plain code it is kept when this returns. Where an event loop runs it is kept when it is awaited.

        Args:
            value: 0 (wrong) to 1 (right).
            comment: why.
            correct: the right outputs, those that were wrong, by field name: a row to learn from.

        Raises:
            InvalidInput: out of range, too long, or a correction of what is no output.
            NotFound: the App's ledger has no such record.
        """
        return current_app().score(self, value, comment, correct)


@dataclass(frozen=True, slots=True)
class Score:
    """A word on what a record stands for, to be kept as a score record.

    Args:
        name: the metric, or ``feedback`` for a person's.
        about: the record it is about.
        value: 0 (wrong) to 1 (right), unless the metric says otherwise.
        comment: why. Kept as contents, so that it can be erased.
        correct: what should have come out, by field name, where somebody said so; kept likewise.
    """

    name: str
    about: Record
    value: float
    comment: str = ""
    correct: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Payload:
    """Contents a record points to: JSON bytes under their keyed digest. Erasable; the record stays."""

    digest: str
    data: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordQuery:
    """Which records to read; all given conditions hold at once.

    Args:
        kind, ref, run_id, status, model, params, about, version, experiment: equal to.
        root_only: only records without a parent.
        since, until: Unix seconds of ``started_at``, half open.
        after: only records with an id greater than this one (for paging oldest first).
        newest_first: order by id descending.
        limit: at most that many; None reads all.
    """

    kind: Kind | None = None
    ref: str | None = None
    run_id: str | None = None
    status: Status | None = None
    model: str | None = None
    params: str | None = None
    about: str | None = None
    version: str | None = None
    experiment: str | None = None
    root_only: bool = False
    since: float | None = None
    until: float | None = None
    after: str | None = None
    newest_first: bool = False
    limit: int | None = None

    def matches(self, record: Record) -> bool:
        """Whether a record fits every condition; order and ``limit`` say nothing about one record."""
        return (
            all(
                wanted is None or wanted == found
                for wanted, found in (
                    (self.kind, record.kind),
                    (self.ref, record.ref),
                    (self.run_id, record.run_id),
                    (self.status, record.status),
                    (self.model, record.model),
                    (self.params, record.params),
                    (self.about, record.about),
                    (self.version, record.version),
                    (self.experiment, record.experiment),
                )
            )
            and not (self.root_only and record.parent_id is not None)
            and (self.since is None or record.started_at >= self.since)
            and (self.until is None or record.started_at < self.until)
            and (self.after is None or record.id > self.after)
        )
