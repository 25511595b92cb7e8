"""How the Kaizen loop does on simulated traffic: 30 days with a drift and a bad release, and 30 quiet days.

    python benchmarks/learn/loop.py --seeds 100 --json benchmarks/results/learn_loop.json

The shipped ``Monitor`` and ``Trial`` read every score; nothing of theirs is replaced. What is simulated is the traffic
(scored calls a day, subjects that come back, each with a rate of its own), the optimizer (its candidate is as good as
the program was before the drift) and who makes the bad release. Scores are 0 or 1.

- Day 8: all subjects' rates fall by ten points at once. Answered is when the loop asks for a proposal.
- From then on an experiment between the version and the candidate, each with half of the subjects.
- Day 20: a version that is ten points worse is released past the loop. It is taken back when the monitor says so.
- Beside it, with the same seeds, 30 days in which nothing changes, and 100 releases of a version that is just as good.

The bars: the drift is answered within 500 scored calls, the bad release is taken back within 200 (scored calls of the
version), and there is at most one false alarm in 30 quiet days.
"""

from __future__ import annotations

import argparse
import random
import statistics
import sys
import time
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from hashlib import blake2b
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "src")]

from benchmarks.lab import report  # noqa: E402 - the path has to be set first
from kaizen.core.artifact import Arm  # noqa: E402
from kaizen.learn.experiment.definition import Definition, Rule  # noqa: E402
from kaizen.learn.experiment.trial import Trial  # noqa: E402
from kaizen.learn.loop.monitor import Monitor, Signal  # noqa: E402
from kaizen.learn.loop.plan import Watch  # noqa: E402
from kaizen.ledger.intervals import wilson  # noqa: E402

DAY = 86_400.0
OLD, NEW, BAD, SAME = "a" * 32, "b" * 32, "c" * 32, "d" * 32


class Traffic:
    """Scored calls: who comes, and how an answer of a given quality is scored."""

    def __init__(self, seed: int, *, base: float, correlation: float, per_day: int, subjects: int) -> None:
        self.rng = random.Random(seed)
        strength = (1 - correlation) / correlation
        draw = partial(self.rng.betavariate, base * strength, (1 - base) * strength)
        self.rates = [draw() for _ in range(subjects)]
        self.base, self.per_day = base, per_day
        self.calls, self.clock = 0, 0.0

    def subject(self) -> int:
        """Who comes next: some come often, most seldom."""
        self.calls += 1
        self.clock += self.rng.expovariate(self.per_day / DAY)
        return int(len(self.rates) * self.rng.random() ** 2)

    def value(self, subject: int, shift: float) -> float:
        """A score of an answer, the subject's rate moved by ``shift`` in the mean over subjects."""
        rate = self.rates[subject]
        moved = rate * (1 + shift / self.base) if shift < 0 else rate + (1 - rate) * shift / (1 - self.base)
        return float(self.rng.random() < moved)


def arm_of(subject: int) -> int:
    """The subject's arm, as the registry would give it: by a hash."""
    return blake2b(str(subject).encode(), digest_size=1).digest()[0] & 1


def eventful(setting: Mapping[str, Any], seed: int) -> dict[str, Any]:
    """30 days with a drift and a bad release."""
    traffic, monitor = Traffic(seed, **setting), Monitor(Watch(), OLD)
    found: dict[str, Any] = {"drift": None, "promoted_day": None, "experiment": None, "bad": None, "false": 0}
    trial: Trial | None = None
    drifted = released = 0
    while traffic.clock < 30 * DAY:
        subject = traffic.subject()
        day = traffic.clock / DAY
        if day >= 20 and monitor.version != BAD and not released:
            trial = None
            kept = monitor.version
            monitor.released(BAD)
        version = NEW if trial is not None and trial.verdict is None and arm_of(subject) else monitor.version
        shift = 0.0 if day < 8 or version == NEW else -0.1
        if version == BAD:
            shift = -0.1 if found["experiment"] == "won" else -0.2
            released += 1
        value = traffic.value(subject, shift)
        signal = monitor.score(version, str(subject), value)
        drifted += day >= 8 and version == OLD and found["drift"] is None
        if trial is not None and trial.verdict is None:
            trial.score(str(subject), int(version == NEW), value, traffic.clock)
            if trial.verdict is not None:
                found["experiment"] = trial.state
                found["promoted_day"] = round(day - 8, 2)
                if trial.state == "won":
                    monitor.released(NEW)
        if signal is None:
            continue
        if signal.trigger == "bad release" and version == BAD:
            found["bad"] = released
            monitor.returned(kept)
        elif day >= 8 and found["drift"] is None and signal.trigger in ("drift", "floor"):
            found["drift"] = drifted
            arms = (Arm(OLD, 0.5), Arm(NEW, 0.5))
            trial = Trial(Definition(program="simulated", arms=arms, metric="good", begun=traffic.clock, rule=Rule()))
        else:
            found["false"] += 1
            if signal.trigger == "bad release":
                monitor.returned(monitor.version)
    return found


def quiet(setting: Mapping[str, Any], seed: int) -> int:
    """False alarms of 30 days in which nothing changes."""
    traffic, monitor = Traffic(seed, **setting), Monitor(Watch(), OLD)
    alarms = 0
    while traffic.clock < 30 * DAY:
        subject = traffic.subject()
        alarms += monitor.score(OLD, str(subject), traffic.value(subject, 0.0)) is not None
    return alarms


def taken_back(setting: Mapping[str, Any], days: float, gain: float, seed: int) -> Signal | None:
    """Whether a version that is no worse is taken back in the week after its release."""
    traffic, monitor = Traffic(seed, **setting), Monitor(Watch(), OLD)
    while traffic.clock < (days + 7) * DAY:
        subject = traffic.subject()
        if traffic.clock >= days * DAY:
            monitor.released(SAME)
        shift = gain if monitor.version == SAME else 0.0
        signal = monitor.score(monitor.version, str(subject), traffic.value(subject, shift))
        if signal is not None and signal.trigger == "bad release":
            return signal
    return None


def share(count: int, n: int) -> dict[str, float]:
    """A share with its interval."""
    low, high = wilson(count, n)
    return {"share": round(count / n, 3), "low": round(low, 3), "high": round(high, 3)}


def table(pool: ProcessPoolExecutor, setting: Mapping[str, Any], seeds: int) -> dict[str, Any]:
    """One kind of traffic."""
    runs = list(pool.map(partial(eventful, setting), range(seeds)))
    calm = list(pool.map(partial(quiet, setting), range(seeds)))
    equal = list(pool.map(partial(taken_back, setting, 14.0, 0.0), range(seeds)))
    better = list(pool.map(partial(taken_back, setting, 14.0, 0.05), range(seeds)))
    drift = [run["drift"] for run in runs if run["drift"] is not None]
    bad = [run["bad"] for run in runs if run["bad"] is not None]
    won = [run for run in runs if run["experiment"] == "won"]
    return {
        **setting,
        "drift_answered_within_500": share(sum(calls <= 500 for calls in drift), seeds),
        "drift_calls_median": statistics.median(drift) if drift else None,
        "candidate_promoted": share(len(won), seeds),
        "days_to_promotion_median": statistics.median(run["promoted_day"] for run in won) if won else None,
        "bad_release_taken_back_within_200": share(sum(calls <= 200 for calls in bad), seeds),
        "bad_release_taken_back_ever": share(len(bad), seeds),
        "bad_release_calls_median": statistics.median(bad) if bad else None,
        "quiet_days_at_most_one_alarm": share(sum(alarms <= 1 for alarms in calm), seeds),
        "quiet_days_alarms": {str(count): calm.count(count) for count in sorted(set(calm))},
        "other_alarms_in_eventful_days": sum(run["false"] for run in runs),
        "equal_release_taken_back": share(sum(one is not None for one in equal), seeds),
        "release_5_points_better_taken_back": share(sum(one is not None for one in better), seeds),
    }


def main() -> None:
    """Simulate and report."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seeds", type=int, default=100)
    parser.add_argument("--json", type=Path, help="where the figures go")
    args = parser.parse_args()
    begun = time.perf_counter()
    settings = [
        {"base": 0.8, "correlation": 0.2, "per_day": 300, "subjects": 3000},
        {"base": 0.8, "correlation": 0.5, "per_day": 300, "subjects": 400},
        {"base": 0.9, "correlation": 0.2, "per_day": 300, "subjects": 3000},
        {"base": 0.7, "correlation": 0.2, "per_day": 300, "subjects": 3000},
    ]
    with ProcessPoolExecutor() as pool:
        traffic = [table(pool, setting, args.seeds) for setting in settings]
    figures = {"traffic": traffic, "seeds": args.seeds, "seconds": round(time.perf_counter() - begun, 1)}
    report(figures, seed=0, file=args.json)


if __name__ == "__main__":
    main()
