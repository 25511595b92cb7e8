"""CPU of starting: `import kaizen`, `from kaizen import signature` and `kaizen --help`, against importing pydantic.

    python benchmarks/startup.py --json out.json

Each statement runs in a fresh interpreter, over and over, in a new random order each round, so that whatever else the
machine does falls on all alike. Reported for each:

* `cpu_ms`: CPU milliseconds (user and system) of the whole process beyond a bare interpreter of the same round: median
  of the rounds, its 95 % bootstrap interval, the least.
* `ratio`: that over `from pydantic import BaseModel`, round by round, with its interval; `bar` is what it may be at
  most, and `met` whether the median keeps it.
* `modules`: for `import kaizen`, how many modules of ours it loads; the bar is one.
"""

import argparse
import random
import resource
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from lab import environment, interval, report, summary

BASELINE = "from pydantic import BaseModel"
WORDS = {
    "bare": ["-c", "pass"],
    BASELINE: ["-c", BASELINE],
    "import kaizen": ["-c", "import kaizen"],
    "from kaizen import signature": ["-c", "from kaizen import signature"],
    "kaizen --help": ["-m", "kaizen", "--help"],
}
BARS = {"from kaizen import signature": 1.5, "kaizen --help": 2.0}
MODULES = "import sys, kaizen; print(sum(name.split('.')[0] == 'kaizen' for name in sys.modules))"


def cpu_ms(words: list[str], env: dict[str, str]) -> float:
    """CPU of one interpreter, from its start to its end."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, *words], env=env, stdout=subprocess.DEVNULL, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime) * 1000


def measure(rounds: int, seed: int) -> dict[str, Any]:
    env, rng = environment(), random.Random(seed)
    figures: dict[str, list[float]] = {name: [] for name in WORDS}
    for name in WORDS:
        cpu_ms(WORDS[name], env)  # writes the bytecode
    for _ in range(rounds):
        for name in rng.sample(list(WORDS), len(WORDS)):
            figures[name].append(cpu_ms(WORDS[name], env))
    bare = figures.pop("bare")
    beyond = {name: [a - b for a, b in zip(cpu, bare, strict=True)] for name, cpu in figures.items()}
    result: dict[str, Any] = {"bare": {"cpu_ms": summary(bare)}}
    for name, cpu in beyond.items():
        result[name] = {"cpu_ms": summary(cpu)}
        if name != BASELINE:
            ratios = [a / b for a, b in zip(cpu, beyond[BASELINE], strict=True)]
            low, high = interval(ratios)
            result[name] |= {"ratio": {k: round(v, 3) for k, v in zip(("low", "high"), (low, high), strict=True)}}
            result[name]["ratio"]["median"] = round(statistics.median(ratios), 3)
        if name in BARS:
            result[name] |= {"bar": BARS[name], "met": result[name]["ratio"]["median"] <= BARS[name]}
    run = subprocess.run([sys.executable, "-c", MODULES], env=env, capture_output=True, text=True, check=True)
    result["import kaizen"] |= {"modules": int(run.stdout), "met": run.stdout.strip() == "1"}
    return result


def readme(result: dict[str, Any]) -> list[dict[str, str]]:
    return [
        {
            "what": f"`{name}`, CPU beyond a bare interpreter",
            "measured": f"{result[name]['cpu_ms']['median']:.0f} ms",
            "against": f"`{BASELINE}`: {result[BASELINE]['cpu_ms']['median']:.0f} ms",
        }
        for name in BARS
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="where the results go")
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--seed", type=int, default=7)
    options = parser.parse_args()
    result = measure(options.rounds, options.seed)
    met = all(row.get("met", True) for row in result.values())
    whole = {"rounds": options.rounds, "met": met, "readme": readme(result), **result}
    report(whole, seed=options.seed, file=options.json)
    return 0 if met else 1


if __name__ == "__main__":
    raise SystemExit(main())
