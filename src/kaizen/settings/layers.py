"""Settings of the layers round the models, a table for each: ``[inference.<layer>]``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field

from kaizen.settings.values import Dollars, Name, Positive, Ref, RootedPath, Seconds, Share, Table, shared


class MeterSettings(Table):
    """What each answer cost and saved."""

    enabled: bool = True


class ExactSettings(Table):
    """Identical calls answered from what was answered before.

    ``enabled`` left out is on in the gateway, and in process only for calls that ask for it.
    """

    enabled: bool | None = None
    ttl: Seconds = 86_400.0
    max_bytes: Positive = 64 * 1024 * 1024
    disk_bytes: Annotated[int, Field(ge=0)] = 1024 * 1024 * 1024


class SemanticSettings(Table):
    """Questions of the same meaning answered from what was answered before, within a budget of false hits."""

    enabled: bool = False
    false_hits: Share = 0.01
    explore: Share = 0.05
    ttl: Seconds = 86_400.0
    max_entries: Positive = 100_000
    wrong_usd: Mapping[Annotated[str, Field(min_length=1)], Dollars] = Field(default_factory=dict)


class CompressSettings(Table):
    """Fewer tokens where the measured risk to the answer allows it."""

    enabled: bool = False
    risk: Share = 0.01
    sample: Share = 0.0
    history: Annotated[int, Field(ge=0)] = 4
    demos: Positive | None = None
    prompt_cache: bool = True
    surprisal: bool = False


class CascadeSettings(Table):
    """Models that are asked in order until one is sure of its answer, the cheapest first."""

    models: Annotated[tuple[Ref, ...], Field(min_length=2)]
    confidence: Share = 0.8
    measure: Literal["mean", "least", "product"] = "mean"


class BandSettings(Table):
    """A model, and how many calls it may have in the air before the next band's is asked."""

    model: Ref
    calls: Positive | None = None


class RouteSettings(Table):
    """Which model answers."""

    enabled: bool = False
    candidates: tuple[Ref, ...] = ()
    groups: Mapping[Name, Annotated[tuple[Ref, ...], Field(min_length=1)]] = Field(default_factory=dict)
    bands: Mapping[Name, Annotated[tuple[BandSettings, ...], Field(min_length=1)]] = Field(default_factory=dict)
    router: RootedPath | None = None
    dial: Share | None = None
    scores: tuple[Name, ...] = ()
    best_score: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0
    least_scores: Positive = 5
    refresh: Seconds = 30.0
    cascade: CascadeSettings | None = None


class BatchSettings(Table):
    """Calls that wait for others, as far as their deadlines allow."""

    enabled: bool = False
    least_wait: Seconds = 3600.0
    window: Seconds = 60.0
    max_calls: Annotated[int, Field(ge=1, le=50_000)] = 1000
    poll: Seconds = 60.0
    reserve: Seconds = 300.0
    embed_wait_ms: Annotated[float, Field(ge=0, le=1000)] = 2.0
    embed_texts: Positive = 64


class FailoverSettings(Table):
    """What happens when a provider fails. Attempts and waits stand in ``[inference]``."""

    enabled: bool = True
    fallbacks: Mapping[Ref | Literal["*"], tuple[Ref, ...]] = Field(default_factory=dict)
    patience: Seconds = 5.0
    hedge: bool = False
    window: Seconds = 30.0
    minimum: Positive = 10
    errors: Annotated[float, Field(gt=0, le=1)] = 0.5
    cooldown: Seconds = 15.0
    slow: Annotated[float, Field(gt=1, allow_inf_nan=False)] = 2.0
    drop: Share = 0.2


class InferenceSettings(Table):
    """How models are asked."""

    attempts: Positive = 3
    backoff: Seconds = 0.5
    backoff_max: Seconds = 8.0
    retry_after_max: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 60.0
    meter: MeterSettings = shared(MeterSettings())
    exact: ExactSettings = shared(ExactSettings())
    semantic: SemanticSettings = shared(SemanticSettings())
    compress: CompressSettings = shared(CompressSettings())
    route: RouteSettings = shared(RouteSettings())
    batch: BatchSettings = shared(BatchSettings())
    failover: FailoverSettings = shared(FailoverSettings())
