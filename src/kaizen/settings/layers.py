"""Settings of the layers round the models, a table for each: ``[inference.<layer>]``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from pydantic import Field

from kaizen.settings.values import Positive, Ref, Seconds, Share, Table


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


class SemanticSettings(Table):
    """Questions of the same meaning answered from what was answered before, within a budget of false hits."""

    enabled: bool = False
    false_hits: Share = 0.01
    ttl: Seconds = 86_400.0


class CompressSettings(Table):
    """Fewer tokens where the measured risk to the answer allows it."""

    enabled: bool = False
    risk: Share = 0.01


class RouteSettings(Table):
    """Which model answers."""

    enabled: bool = False
    candidates: tuple[Ref, ...] = ()


class BatchSettings(Table):
    """Calls that wait for others, as far as their deadlines allow."""

    enabled: bool = False


class FailoverSettings(Table):
    """What happens when a provider fails. Attempts and waits stand in ``[inference]``."""

    enabled: bool = True
    fallbacks: Mapping[Ref, tuple[Ref, ...]] = Field(default_factory=dict)


class InferenceSettings(Table):
    """How models are asked."""

    attempts: Positive = 3
    backoff: Seconds = 0.5
    backoff_max: Seconds = 8.0
    retry_after_max: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 60.0
    meter: MeterSettings = MeterSettings()
    exact: ExactSettings = ExactSettings()
    semantic: SemanticSettings = SemanticSettings()
    compress: CompressSettings = CompressSettings()
    route: RouteSettings = RouteSettings()
    batch: BatchSettings = BatchSettings()
    failover: FailoverSettings = FailoverSettings()
