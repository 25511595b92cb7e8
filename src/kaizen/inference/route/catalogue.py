"""Whom a request may be answered by, by the name it gives as its model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from kaizen.core.errors import NotFound
from kaizen.core.request import Request, Routing
from kaizen.inference.health import Health

PROVIDER: Final = "route"
"""The first part of the refs that name a choice: ``route/auto``, ``route/<group>``, ``route/<bands>``."""

AUTO: Final = f"{PROVIDER}/auto"


@dataclass(frozen=True, slots=True)
class Band:
    """A model for a load.

    Args:
        model: its ref.
        calls: it is asked while it has fewer calls in the air; None is any number.
    """

    model: str
    calls: int | None = None


@dataclass(frozen=True, slots=True)
class Field:
    """Who is in question for one request.

    Args:
        routing: how the choice is made.
        own: the caller's own model, which savings are counted against.
        models: the candidates, that one among them.
    """

    routing: Routing
    own: str
    models: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Catalogue:
    """The models of the settings to choose from.

    Args:
        default: the model of callers who leave the choice to us.
        candidates: what guided and autopilot calls choose from.
        groups: by name, candidates for callers who name the group; the first is what they would ask without us.
        bands: by name, models by load, from the best on.
    """

    default: str
    candidates: tuple[str, ...] = ()
    groups: Mapping[str, tuple[str, ...]] = field(default_factory=dict[str, tuple[str, ...]])
    bands: Mapping[str, tuple[Band, ...]] = field(default_factory=dict[str, tuple[Band, ...]])

    def concerns(self, request: Request) -> bool:
        """Whether there is anything to choose or to check."""
        options = request.options
        return (
            options.routing in ("guided", "autopilot")
            or options.quality_threshold is not None
            or options.latency_budget_ms is not None
            or options.cost_budget_usd is not None
            or request.model.startswith(f"{PROVIDER}/")
        )

    def field(self, request: Request, health: Health) -> Field:
        """Who is in question for a request, now.

        Raises:
            NotFound: for a ``route/...`` that the settings don't have.
        """
        asked, routing = request.model, request.options.routing
        provider, _, name = asked.partition("/")
        if provider != PROVIDER:
            if routing in ("guided", "autopilot"):
                return Field(routing, asked, _with(asked, self.candidates))
            return Field("explicit", asked, (asked,))
        # who names a choice has left it to us, whatever else the call says
        if name in self.groups:
            group = self.groups[name]
            return Field("autopilot" if routing == "autopilot" else "guided", group[0], group)
        if name in self.bands:
            bands = self.bands[name]
            return Field("explicit", bands[0].model, (_by_load(bands, health),))
        if asked == AUTO:
            chosen = "guided" if routing == "guided" else "autopilot"
            return Field(chosen, self.default, _with(self.default, self.candidates))
        known = ", ".join([AUTO, *(f"{PROVIDER}/{one}" for one in (*self.groups, *self.bands))])
        raise NotFound(f"there is no {asked!r} to choose by; there are {known}", detail={"model": asked})

    def possible(self, request: Request) -> Sequence[str]:
        """Every model that may come to answer a request: what a budget has to be able to pay."""
        provider, _, name = request.model.partition("/")
        if provider == PROVIDER:
            bands = [one.model for one in self.bands.get(name, ())]
            return self.groups.get(name) or bands or _with(self.default, self.candidates)
        if request.options.routing in ("guided", "autopilot"):
            return _with(request.model, self.candidates)
        return (request.model,)


def _with(own: str, others: tuple[str, ...]) -> tuple[str, ...]:
    return others if own in others else (own, *others)


def _by_load(bands: Sequence[Band], health: Health) -> str:
    """The first model that has room; the last where none has."""
    for band in bands:
        if band.calls is None or (health.in_flight(band.model) < band.calls and health.state(band.model) != "open"):
            return band.model
    return bands[-1].model
