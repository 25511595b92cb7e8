"""Who is chosen among candidates, why, and what an unmet wish says."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from kaizen.core.errors import InvalidInput
from kaizen.inference.route.candidates import UNKNOWN, Candidate, Worth
from kaizen.inference.route.choice import PACE_WEIGHT, QUALITY_WEIGHT, Case, decide, note_of, replay


def candidate(model: str, cost: float | None = 1.0, quality: float | None = 4.0, **more: Any) -> Candidate:
    worth = UNKNOWN if quality is None else Worth(quality, 10, "scores")
    return Candidate(model=model, cost_usd=cost, worth=worth, **more)


def case(*candidates: Candidate, quality: float = QUALITY_WEIGHT["medium"], **more: Any) -> Case:
    fields: dict[str, Any] = {"routing": "guided", "own": "a/own", "pace": PACE_WEIGHT["normal"]} | more
    return Case(candidates=candidates, quality=quality, **fields)


def chosen(*candidates: Candidate, **more: Any) -> str:
    return decide(case(*candidates, **more)).chosen.model


def test_the_wish_for_quality_weighs_it_against_the_price() -> None:
    pair = (candidate("a/own", 1.0, 5.0), candidate("b/cheap", 0.1, 4.5))
    assert chosen(*pair, quality=QUALITY_WEIGHT["low"]) == "b/cheap"
    assert chosen(*pair, quality=QUALITY_WEIGHT["medium"]) == "b/cheap"
    assert chosen(*pair, quality=QUALITY_WEIGHT["high"]) == "a/own"
    assert chosen(candidate("a/own", 1.0, 5.0), candidate("b", 0.0, 4.99), quality=QUALITY_WEIGHT["max"]) == "a/own"


def test_the_wish_for_pace_weighs_latency() -> None:
    pair = (candidate("a/own", 0.5, 4.0, latency_ms=900.0), candidate("b/fast", 1.0, 4.0, latency_ms=100.0))
    assert chosen(*pair, pace=PACE_WEIGHT["slow"]) == "a/own"
    assert chosen(*pair, pace=PACE_WEIGHT["fast"]) == "b/fast"


def test_equal_utility_leaves_the_callers_own() -> None:
    assert chosen(candidate("b/other"), candidate("a/own")) == "a/own"


def test_an_unknown_price_counts_as_the_dearest() -> None:
    assert chosen(candidate("a/own", None, 4.0), candidate("b", 0.5, 4.0), candidate("c", 1.0, 4.0)) == "b"


def test_unknown_quality_replaces_nobody_unless_quality_matters_little() -> None:
    unknown = candidate("b/new", 0.01, None)
    assert chosen(candidate("a/own"), unknown) == "a/own"
    assert chosen(candidate("a/own", 1.0, None), unknown) == "a/own"
    assert chosen(candidate("a/own", 1.0, None), candidate("b", 0.01, 5.0)) == "a/own"
    assert chosen(candidate("a/own", 1.0, None), unknown, cheap=True) == "b/new"
    ruled_out = candidate("a/own", against={"context": 2.0})
    assert chosen(ruled_out, unknown, candidate("c/dear", 9.0, None)) == "b/new"


def test_what_is_degraded_has_to_be_better() -> None:
    assert chosen(candidate("a/own", degraded=True), candidate("b")) == "b"


def test_an_open_circuit_is_asked_only_where_all_are_open() -> None:
    open_one = candidate("a/own", against={"health": 1.0})
    assert chosen(open_one, candidate("b")) == "b"
    alone = decide(case(open_one, candidate("b", against={"health": 1.0, "tools": 1.0})))
    assert (alone.chosen.model, alone.why.startswith("no candidate is well")) == ("a/own", True)


def test_an_unmet_wish_is_named_with_the_nearest_candidate() -> None:
    far, near = candidate("a/own", against={"cost_budget_usd": 9.0}), candidate("b", against={"cost_budget_usd": 0.5})
    with pytest.raises(
        InvalidInput, match=r"no model meets cost_budget_usd; the nearest is b, .*1\.0+ estimated"
    ) as found:
        decide(case(far, near))
    assert found.value.detail == {
        "constraint": "cost_budget_usd",
        "constraints": ["cost_budget_usd"],
        "nearest": "b",
        "candidates": {"a/own": ["cost_budget_usd"], "b": ["cost_budget_usd"]},
    }
    assert found.value.kept == "no model meets cost_budget_usd"
    decision = decide(case(far, near, fallback=True))
    assert (decision.chosen.model, "cost_budget_usd" in decision.why) == ("b", True)


@pytest.mark.parametrize(
    ("one", "said"),
    [
        (candidate("b", None, against={"cost_budget_usd": None}), "price unknown"),
        (candidate("b", quality=None, against={"quality_threshold": None}), "quality unknown"),
        (candidate("b", quality=3.0, against={"quality_threshold": 0.2}), "3.00 of 5, n = 10"),
        (candidate("b", latency_ms=70.0, against={"latency_budget_ms": 0.2}), "median 70 ms measured"),
        (candidate("b", against={"health": 1.0, "latency_budget_ms": 1.0}), "health"),
    ],
)
def test_what_misses_is_said(one: Candidate, said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        decide(case(one))


def test_no_fallback_leads_past_policy_or_capability() -> None:
    with pytest.raises(InvalidInput) as found:
        decide(case(candidate("a/own", against={"policy": 1.0}), candidate("b", against={"media": 1.0}), fallback=True))
    assert found.value.detail["nearest"] is None
    assert found.value.detail["constraints"] == ["media", "policy"]
    with pytest.raises(InvalidInput, match="the settings name none"):
        decide(case())


def test_a_note_is_json_and_is_decided_again_the_same() -> None:
    made = case(
        candidate("a/own", 1.0, 5.0),
        candidate("b", 0.1, 4.9, latency_ms=3.0),
        candidate("c", None, None, against={"cost_budget_usd": None}),
        task="code",
        fallback=True,
    )
    decision = decide(made)
    note = json.loads(json.dumps(note_of(made, decision)))
    assert note["estimated_saving_usd"] == pytest.approx(0.9)
    assert [one["saving_usd"] for one in note["candidates"]] == [0.0, pytest.approx(0.9), None]
    assert replay(note) == decision
    assert replay(note, quality=1000.0).chosen.model == "a/own"
    assert note_of(replace(made, own="z/gone"), decision)["estimated_saving_usd"] is None
