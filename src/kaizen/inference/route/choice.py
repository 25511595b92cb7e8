"""The choice among candidates: a pure function of what its note holds, so that the note can be decided again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, cast

from kaizen.core.errors import InvalidInput
from kaizen.core.request import Pace, Quality, Routing
from kaizen.inference.route.candidates import Candidate, Constraint, Worth

QUALITY_WEIGHT: Final[Mapping[Quality, float]] = {"low": 1.0, "medium": 5.0, "high": 20.0, "max": 1000.0}
"""What a whole scale of quality is worth, in prices of the dearest candidate."""

PACE_WEIGHT: Final[Mapping[Pace, float]] = {"slow": 0.0, "normal": 0.1, "fast": 1.0, "instant": 10.0}
"""What the slowest candidate's time is worth, in prices of the dearest one."""

# A candidate that is degraded has to be so much better.
_DEGRADED: Final = 0.5
# No wish of a caller's makes these right.
_FIRM: Final[frozenset[Constraint]] = frozenset({"policy", "context", "media", "tools", "schema"})
_UNKNOWN_MISS: Final = 1e6


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """All that a choice depends on.

    Args:
        routing: how the caller wants it made.
        own: the caller's own model: the first of several, where several were named.
        candidates: in the order of the settings.
        quality: the weight of predicted quality.
        pace: the weight of latency.
        cheap: whether a model whose quality is not known may take the place of the caller's own.
        fallback: whether the nearest candidate may be asked where none meets the wishes.
        task: the type of task, where it is known.
    """

    routing: Routing
    own: str
    candidates: tuple[Candidate, ...]
    quality: float
    pace: float
    cheap: bool = False
    fallback: bool = False
    task: str | None = None


@dataclass(frozen=True, slots=True)
class Decision:
    """Whom to ask, why, and what speaks against it where nobody is without fault."""

    chosen: Candidate
    why: str


def decide(case: Case) -> Decision:
    """The candidate of the highest utility among those that nothing rules out.

    ``utility = quality weight * quality / 5 - cost / dearest - pace weight * latency / slowest - 0.5 if degraded``

    A price that is not known counts as the dearest, a latency that was not measured as none. Quality decides only
    between candidates of which it is known: one of unknown quality takes the place of the caller's own model only
    where that is ruled out, or the caller said that quality matters little.

    Raises:
        InvalidInput: if nobody meets the wishes, with the constraint and the nearest candidate.
    """
    fit = [one for one in case.candidates if not one.against]
    if fit:
        return _best(case, fit)
    ill = [one for one in case.candidates if set(one.against) == {"health"}]
    if ill:
        best = _best(case, ill)
        return replace(best, why=f"no candidate is well; {best.why}")
    near = nearest(case.candidates)
    if near is None or not case.fallback:
        raise unmet(case.candidates, near)
    return Decision(near, f"fallback: nearest, although it misses {_missed(near)}")


def _best(case: Case, fit: Sequence[Candidate]) -> Decision:
    own = next((one for one in fit if one.model == case.own), None)
    if len(fit) == 1:
        why = "asked for" if case.routing == "explicit" else "the only candidate that meets the wishes"
        return Decision(fit[0], why)
    rivals = list(fit)
    if own is not None and not case.cheap:
        if own.worth.quality is None:
            return Decision(own, "no quality is known of the caller's own model, so nothing shows another to do")
        rivals = [one for one in fit if one.worth.quality is not None]
    worth_of = _utilities(case, rivals)
    best = max(rivals, key=lambda one: (worth_of[one.model], one is own))
    return Decision(best, _because(case, best, own, worth_of))


def _utilities(case: Case, rivals: Sequence[Candidate]) -> dict[str, float]:
    dearest = max((one.cost_usd or 0.0 for one in rivals), default=0.0) or 1.0
    slowest = max((one.latency_ms or 0.0 for one in rivals), default=0.0) or 1.0
    return {
        one.model: case.quality * (one.worth.quality or 0.0) / 5
        - (1.0 if one.cost_usd is None else one.cost_usd / dearest)
        - case.pace * (one.latency_ms or 0.0) / slowest
        - _DEGRADED * one.degraded
        for one in rivals
    }


def _because(case: Case, best: Candidate, own: Candidate | None, worth_of: Mapping[str, float]) -> str:
    if best is own:
        return f"the caller's own, of highest utility ({worth_of[best.model]:.3f})"
    if own is None or own.model not in worth_of:
        return f"of highest utility ({worth_of[best.model]:.3f})"
    return f"of higher utility ({worth_of[best.model]:.3f}) than the caller's own ({worth_of[own.model]:.3f})"


def nearest(candidates: Sequence[Candidate]) -> Candidate | None:
    """Which misses the wishes by least; None where something firmer than a wish speaks against all."""
    able = [one for one in candidates if not _FIRM & one.against.keys()]
    if not able:
        return None
    return min(able, key=lambda one: sum(_UNKNOWN_MISS if miss is None else miss for miss in one.against.values()))


def unmet(candidates: Sequence[Candidate], near: Candidate | None) -> InvalidInput:
    """The error that names what nobody meets."""
    names = [set(one.against) for one in candidates]
    shared = set[Constraint].intersection(*names) if names else set[Constraint]()
    constraint = sorted(shared or (near.against if near is not None else set[Constraint]().union(*names)))
    said = ", ".join(constraint) or "candidates: the settings name none"
    nearby = f"; the nearest is {near.model}, which misses {_missed(near)}" if near is not None else ""
    return InvalidInput(
        f"no model meets {said}{nearby}",
        rules=f"no model meets {said}",
        detail={
            "constraint": constraint[0] if constraint else "candidates",
            "constraints": constraint,
            "nearest": near and near.model,
            "candidates": {one.model: sorted(one.against) for one in candidates},
        },
    )


def _missed(candidate: Candidate) -> str:
    """In words, with the estimate that misses."""
    said: list[str] = []
    for constraint in sorted(candidate.against):
        match constraint:
            case "cost_budget_usd":
                shown = "price unknown" if candidate.cost_usd is None else f"${candidate.cost_usd:.6f} estimated"
            case "quality_threshold":
                quality = candidate.worth.quality
                shown = "quality unknown" if quality is None else f"{quality:.2f} of 5, n = {candidate.worth.n}"
            case "latency_budget_ms":
                shown = f"median {candidate.latency_ms or 0.0:.0f} ms measured"
            case _:
                shown = ""
        said.append(f"{constraint} ({shown})" if shown else constraint)
    return ", ".join(said)


# -- notes ----------------------------------------------------------------------------------------


def note_of(case: Case, decision: Decision) -> dict[str, Any]:
    """The case and what came of it as JSON-able values: the note of the layer's Stage."""
    chosen = decision.chosen
    own = next((one for one in case.candidates if one.model == case.own), None)
    saving = _less(own, chosen)
    note: dict[str, Any] = {
        "model": chosen.model,
        "why": decision.why,
        "routing": case.routing,
        "own": case.own,
        "quality_weight": case.quality,
        "pace_weight": case.pace,
        "estimated_saving_usd": saving,
        "candidates": [_candidate(one, own) for one in case.candidates],
    }
    if case.task is not None:
        note["task"] = case.task
    return note | {name: True for name in ("cheap", "fallback") if getattr(case, name)}


def _candidate(one: Candidate, own: Candidate | None) -> dict[str, Any]:
    return {
        "model": one.model,
        "cost_usd": one.cost_usd,
        "cost_by": one.cost_by,
        "saving_usd": _less(own, one),
        "latency_ms": one.latency_ms,
        "quality": one.worth.quality,
        "n": one.worth.n,
        "quality_by": one.worth.by,
        "against": dict(one.against),
        "degraded": one.degraded,
    }


def _less(own: Candidate | None, other: Candidate) -> float | None:
    """Dollars that a candidate is estimated to cost less than the caller's own."""
    if own is None or own.cost_usd is None or other.cost_usd is None:
        return None
    return own.cost_usd - other.cost_usd


def replay(note: Mapping[str, Any], **changed: Any) -> Decision:
    """Decide again what a note tells of, possibly with some of the case changed.

    Args:
        note: of a Stage of the route layer, as it was kept.
        changed: fields of ``Case`` to decide with instead, such as ``quality=20.0``.

    Raises:
        InvalidInput: as ``decide``.
    """
    candidates = tuple(
        Candidate(
            model=one["model"],
            cost_usd=one["cost_usd"],
            cost_by=one["cost_by"],
            latency_ms=one["latency_ms"],
            worth=Worth(one["quality"], one["n"], one["quality_by"]),
            against=cast("Mapping[Constraint, float | None]", one["against"]),
            degraded=one["degraded"],
        )
        for one in note["candidates"]
    )
    case = Case(
        routing=note["routing"],
        own=note["own"],
        candidates=candidates,
        quality=note["quality_weight"],
        pace=note["pace_weight"],
        cheap=note.get("cheap", False),
        fallback=note.get("fallback", False),
        task=note.get("task"),
    )
    return decide(replace(case, **changed))
