"""What a bandit over live variants earns while it learns, against serving all alike and against knowing the best.

    python benchmarks/learn/bandit.py --seeds 100 --json benchmarks/results/learn_bandit.json

Simulated: 3,000 scored calls of three kinds of task and four variants, of which another one is best in each kind; one
variant is bad in all and under the floor. Regret is the sum of what the best variant of the call's kind would have
scored above what was served, in the mean. Beside the bandit stand the same without kinds of task, equal shares, and
the variant that is best over all. `coverage` is how often the doubly robust 95 % interval of a variant holds its true
mean, from records of the bandit's own draws.
"""

from __future__ import annotations

import argparse
import random
import statistics
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "src")]

from benchmarks.lab import interval, report  # noqa: E402 - the path has to be set first
from kaizen.learn.optimize.bandit import Bandit, Rails  # noqa: E402
from kaizen.ledger.intervals import wilson  # noqa: E402

CALLS, FLOOR = 3000, 0.5
RATES = {"billing": (0.7, 0.85, 0.6, 0.3), "travel": (0.7, 0.6, 0.82, 0.3), "other": (0.8, 0.65, 0.7, 0.3)}
TASKS = tuple(RATES)


def one(how: str, seed: int) -> dict[str, Any]:
    """One run: regret, calls of the bad variant, and how many intervals hold."""
    rng = random.Random(seed)
    bandit = Bandit(4, rails=Rails(least=0.02, floor=FLOOR), seed=seed)
    regret, bad, late = 0.0, 0, 0
    for number in range(CALLS):
        task = rng.choice(TASKS)
        rates = RATES[task]
        arm = {"equal": rng.randrange(4), "best over all": 0}.get(how, -1)
        if arm < 0:
            decision = bandit.choose(task if how == "bandit" else "")
            arm = decision.arm
            bandit.reward(decision, float(rng.random() < rates[arm]))
        regret += max(rates) - rates[arm]
        bad += arm == 3
        late += arm == 3 and number >= CALLS // 2
    held = 0
    if how == "bandit":
        for arm in range(4):
            truth = statistics.fmean(rates[arm] for rates in RATES.values())
            low, high = bandit.estimate(arm)[1]
            held += low <= truth <= high
    return {"regret": regret, "bad": bad, "late": late, "held": held}


def main() -> None:
    """Simulate and report."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seeds", type=int, default=100)
    parser.add_argument("--json", type=Path, help="where the figures go")
    args = parser.parse_args()
    begun = time.perf_counter()
    figures: dict[str, Any] = {"calls": CALLS, "rates": RATES, "floor": FLOOR, "seeds": args.seeds}
    with ProcessPoolExecutor() as pool:
        for how in ("bandit", "bandit without tasks", "equal", "best over all"):
            runs = list(pool.map(partial(one, how), range(args.seeds)))
            regrets = [run["regret"] for run in runs]
            low, high = interval(regrets, statistics.fmean)
            figures[how] = {
                "regret": round(statistics.fmean(regrets), 1),
                "low": round(low, 1),
                "high": round(high, 1),
                "bad_variant_calls": round(statistics.fmean(run["bad"] for run in runs), 1),
                "bad_variant_calls_in_the_second_half": round(statistics.fmean(run["late"] for run in runs), 2),
            }
            if how == "bandit":
                held = sum(run["held"] for run in runs)
                low, high = wilson(held, 4 * args.seeds)
                share = round(held / (4 * args.seeds), 3)
                figures[how] |= {"coverage": share, "coverage_low": round(low, 3), "coverage_high": round(high, 3)}
    figures["seconds"] = round(time.perf_counter() - begun, 1)
    report(figures, seed=0, file=args.json)


if __name__ == "__main__":
    main()
