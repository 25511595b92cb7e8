"""How often an experiment promotes a version that is no better, and how many subjects it takes to find one that is.

    python benchmarks/learn/aa.py --seeds 1000 --json benchmarks/results/learn_aa.json

Simulated traffic: each subject has its own rate of good answers (beta, with the stated correlation between two calls of
one subject) and makes a geometric number of calls; a score comes late, each after its own time; calls of many subjects
are mixed. The shipped ``Trial`` takes in every call and every score, with its guard rails, and is judged after each. It
stands beside a z test on calls that is looked at after every score, as it is often done, on the very same scores.

The bar: at most 5 % of 1,000 experiments between equal arms promote.
"""

from __future__ import annotations

import argparse
import heapq
import math
import random
import statistics
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "src")]

from benchmarks.lab import report  # noqa: E402 - the path has to be set first
from kaizen.core.artifact import Arm  # noqa: E402
from kaizen.learn.experiment.definition import Definition, Rule  # noqa: E402
from kaizen.learn.experiment.trial import Call, Trial  # noqa: E402
from kaizen.ledger.intervals import wilson  # noqa: E402

BASE = 0.7  # rate of good answers of the control
CALLS = 3.0  # calls a subject, in the mean
DELAY_S, GAP_S, PAUSE_S = 600.0, 20.0, 90.0  # until a score comes; between subjects; between a subject's calls
EQUAL, BETTER = 1000, 2500  # subjects of an experiment, between equal arms and with a better one
Z = statistics.NormalDist().inv_cdf(0.975)

Event = tuple[float, int, int, float | None]


class Peeked:
    """A two-sided z test at 5 % on calls, looked at after every score from 100 an arm on."""

    def __init__(self) -> None:
        self.n, self.total = [0, 0], [0.0, 0.0]
        self.promoted = False

    def add(self, arm: int, value: float) -> None:
        """Take in a value and look."""
        self.n[arm] += 1
        self.total[arm] += value
        if min(self.n) >= 100 and not self.promoted:
            control, candidate = (total / n for total, n in zip(self.total, self.n, strict=True))
            variance = sum(p * (1 - p) / n for p, n in zip((control, candidate), self.n, strict=True))
            self.promoted = candidate - control > Z * math.sqrt(variance)


def traffic(rng: random.Random, gain: float, correlation: float, share: float) -> Iterator[Event]:
    """Calls (without a value) and scores as they come: when, of whom, of which arm, the score."""
    strength = (1 - correlation) / correlation
    waiting: list[Event] = []
    for subject in range(BETTER if gain else EQUAL):
        begun = subject * GAP_S
        while waiting and waiting[0][0] <= begun:
            yield heapq.heappop(waiting)
        arm = int(rng.random() < share)
        mean = BASE + gain * arm
        rate = rng.betavariate(mean * strength, (1 - mean) * strength)
        for call in range(1 + int(math.log(1 - rng.random()) / math.log(1 - 1 / CALLS))):
            at = begun + call * PAUSE_S
            heapq.heappush(waiting, (at, subject, arm, None))
            heapq.heappush(waiting, (at + rng.expovariate(1 / DELAY_S), subject, arm, float(rng.random() < rate)))
    while waiting:
        yield heapq.heappop(waiting)


def one(gain: float, correlation: float, share: float, seed: int) -> tuple[str, int, bool]:
    """One experiment: how it ended, after how many subjects, and whether the peeked test would have promoted."""
    rng = random.Random(seed)
    arms = (Arm("a" * 32, 1 - share), Arm("b" * 32, share))
    trial = Trial(Definition(program="simulated", arms=arms, metric="good", begun=0.0, rule=Rule(days=1e6)))
    peeked = Peeked()
    last = 0.0
    for at, subject, arm, value in traffic(rng, gain, correlation, share):
        last = at
        if value is None:
            failed, latency = rng.random() < 0.01, rng.lognormvariate(6, 0.7)
            trial.call(Call(str(subject), arm, at, failed, latency, rng.lognormvariate(-7, 0.5)))
        else:
            trial.score(str(subject), arm, value, at)
            if gain == 0:
                peeked.add(arm, value)
        if trial.verdict is not None and (gain or peeked.promoted):
            break
    trial.due(last + 1e5)
    return trial.state, sum(standing.subjects for standing in trial.standings()), peeked.promoted


def share_of(ended: list[tuple[str, int, bool]], state: str) -> dict[str, Any]:
    """How many ended so, with the interval."""
    count = sum(one[0] == state for one in ended)
    low, high = wilson(count, len(ended))
    return {"share": round(count / len(ended), 4), "low": round(low, 4), "high": round(high, 4)}


def table(pool: ProcessPoolExecutor, seeds: int, powers: int) -> dict[str, Any]:
    """All settings."""
    equal: list[dict[str, Any]] = []
    for correlation, share in ((0.05, 0.5), (0.3, 0.5), (0.6, 0.5), (0.3, 0.2)):
        ended = list(pool.map(partial(one, 0.0, correlation, share), range(seeds), chunksize=10))
        peeks = sum(one[2] for one in ended)
        states = {state: share_of(ended, state) for state in ("won", "lost", "stopped")}
        low, high = wilson(peeks, len(ended))
        peeked = {"share": round(peeks / len(ended), 4), "low": round(low, 4), "high": round(high, 4)}
        equal.append({"correlation": correlation, "share": share, **states, "peeked_z_on_calls": peeked})
    better: list[dict[str, Any]] = []
    for gain in (0.05, 0.1):
        for correlation in (0.05, 0.3):
            ended = list(pool.map(partial(one, gain, correlation, 0.5), range(powers), chunksize=10))
            took = sorted(subjects if state == "won" else BETTER + 1 for state, subjects, _ in ended)
            quantiles = {
                f"subjects_{name}": took[int(fraction * len(took))]
                if took[int(fraction * len(took))] <= BETTER
                else None
                for name, fraction in (("half", 0.5), ("80_percent", 0.8))
            }
            better.append({"gain": gain, "correlation": correlation, "won": share_of(ended, "won"), **quantiles})
    return {"equal_arms": equal, "better_by": better}


def main() -> None:
    """Simulate and report."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seeds", type=int, default=1000, help="experiments between equal arms, in each setting")
    parser.add_argument("--power-seeds", type=int, default=200, help="experiments with a better arm, in each setting")
    parser.add_argument("--json", type=Path, help="where the figures go")
    args = parser.parse_args()
    begun = time.perf_counter()
    with ProcessPoolExecutor() as pool:
        figures = table(pool, args.seeds, args.power_seeds)
    setting = {"base": BASE, "calls_a_subject": CALLS, "most_subjects": [EQUAL, BETTER], "rule": "default"}
    figures |= {"setting": setting, "seeds": args.seeds, "power_seeds": args.power_seeds}
    figures["seconds"] = round(time.perf_counter() - begun, 1)
    report(figures, seed=0, file=args.json)


if __name__ == "__main__":
    main()
