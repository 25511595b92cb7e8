"""Experiments, loops and searches: how they stand."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

from kaizen.core.params import NOTHING, Params
from kaizen.learn.experiment.experiments import Experiment
from kaizen.learn.loop.loop import Status
from kaizen.registry.params import load, readable
from kaizen.serve.doors import Optimized, Optimizing


def experiment_json(experiment: Experiment) -> dict[str, Any]:
    """An experiment as JSON-able values."""
    made = asdict(experiment.definition)
    return {
        "number": experiment.number,
        "version": experiment.version,
        "state": experiment.state,
        "reason": experiment.reason,
        "ended": experiment.ended,
        **{name: made[name] for name in ("program", "label", "metric", "begun", "rule")},
        "arms": [asdict(standing) for standing in experiment.standings],
        "other_scores": dict(experiment.others),
    }


def status_json(status: Status) -> dict[str, Any]:
    """How a loop stands, as JSON-able values."""
    return {
        "program": status.plan.program,
        "state": status.state,
        "version": status.version,
        "scores": status.recent[0],
        "mean": status.recent[1],
        "proposals": status.proposals,
        "usd": status.usd,
        "waiting": None if status.waiting is None else asdict(status.waiting),
        "last": None if status.last is None else asdict(status.last),
        "experiment": None if status.experiment is None else experiment_json(status.experiment),
        "plan": asdict(status.plan),
    }


def optimized_json(ended: Optimized, wanted: Optimizing) -> dict[str, Any]:
    """What a search found."""
    report = ended.report
    figures = report.test or report.chosen_on
    return {
        "improved": report.improved,
        "reason": report.reason,
        "how": report.how,
        "before": None if figures is None else figures.before,
        "after": None if figures is None else figures.after,
        "gain": None if figures is None else figures.gain,
        "low": None if figures is None else figures.low,
        "high": None if figures is None else figures.high,
        "n": 0 if figures is None else figures.rows,
        "on": "test" if report.test is not None else ("choice" if figures is not None else None),
        "test_rows": report.test_rows,
        "chosen_on": report.chosen_on,
        "chance": report.chance,
        "optimizer": report.optimizer,
        "metric": report.metric,
        "seed": report.seed,
        "calls": ended.calls,
        "budget": wanted.calls,
        "tokens": ended.tokens,
        "cost_usd": ended.usd,
        "seconds": round(ended.seconds, 1),
        "candidates": report.candidates,
        "front": report.front,
        "stopped": report.stopped,
        "run_id": ended.run_id,
        "params": {name: load(body) for name, body in report.params.items()},
        "versions": ended.versions,
        "released": ended.released,
        "diff": words_changed(report.params, wanted),
    }


def words_changed(params: Mapping[str, str], wanted: Optimizing) -> str:
    """What the winner changes, word for word."""
    lines: list[str] = []
    for name, body in params.items():
        known = wanted.start.get(name, NOTHING)
        if name == wanted.program.spec.name and known.instructions is None:
            known = replace(known, instructions=wanted.program.spec.doc or None)
        before, after = _readable(known), _readable(load(body).over(known))
        lines += difflib.unified_diff(before, after, f"params/{name}@base", f"params/{name}", lineterm="", n=1)
    return "\n".join(lines)


def _readable(params: Params) -> list[str]:
    return readable(replace(params, contract=None))[0].splitlines()
