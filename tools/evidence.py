"""Switch each part off in a copy of the project, and see that an end-to-end test notices: ``make evidence``.

    python tools/evidence.py
    python tools/evidence.py exact hedge

A part counts only if what an end-to-end run does changes without it. Here a line of each is taken out, one at a time,
in a copy of ``src`` and ``tests``, and the tests named beside it are run on that copy, which have to fail.
``tests/house/test_evidence.py`` sees to it that every line is still there.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[1]


@dataclass(frozen=True)
class Part:
    """A part, and what takes it out.

    Args:
        name: what to call it.
        file: below ``src/kaizen``.
        line: what stands there once.
        instead: what stands there when it is off; None returns at once from the function whose head ``line`` is.
        tests: those that have to fail, below ``tests/e2e``.
        value: what such a function returns.
    """

    name: str
    file: str
    line: str
    instead: str | None
    tests: tuple[str, ...]
    value: str = ""

    def off(self, text: str) -> str:
        """The file without the part.

        Raises:
            ValueError: it is not there, or more than once.
        """
        if text.count(self.line) != 1:
            raise ValueError(
                f"{self.name}: {self.line!r} stands {text.count(self.line)} times in {self.file}, not once"
            )
        if self.instead is not None:
            return text.replace(self.line, self.instead)
        at = text.index(self.line) + len(self.line)
        doc = re.compile(r'\n( +)""".*?"""\n', re.DOTALL).match(text, at)
        if doc is None:
            raise ValueError(f"{self.name}: no docstring below {self.line!r}")
        return f"{text[: doc.end()]}{doc[1]}return {self.value}\n{text[doc.end() :]}"


def _layer(name: str, *tests: str) -> Part:
    return Part(name, "inference/onion.py", f"        layers.{name},\n", "", tests)


ONION: Final = "inference/onion.py"
RUNNER: Final = "programs/runner.py"
PARTS: Final = (
    _layer("exact", "test_exact.py"),
    _layer("semantic", "test_semantic.py"),
    _layer("compress", "test_compress.py"),
    _layer("route", "test_route.py"),
    _layer("batch", "test_batch.py"),
    _layer("failover", "test_failover.py"),
    _layer("hedge", "test_failover.py"),
    Part("circuit", ONION, "onion = Watch(onion, layers.health)", "pass", ("test_failover.py",)),
    Part("retry", ONION, "onion = Retry(onion, retries, patience=layers.patience)", "pass", ("test_evidence.py",)),
    Part("deadline", ONION, "onion = Deadline(onion)", "pass", ("test_evidence.py",)),
    Part(
        "meter",
        ONION,
        "return Meter(onion, prices) if layers.meter else onion",
        "return onion",
        ("test_evidence.py",),
    ),
    Part("policy", "programs/calls.py", "if policy is None:\n", "if True:\n", ("test_govern.py",)),
    Part(
        "ceiling of hedged calls",
        "inference/ceiling.py",
        "calls = 2 if (self._hedged if wish is None else wish) else 1",
        "calls = 1",
        ("test_failover.py",),
    ),
    Part(
        "ceiling of compared calls",
        "inference/ceiling.py",
        "if self._compared and may_compare(request.options):",
        "if False:",
        ("test_govern.py",),
    ),
    Part("telemetry", "app/telemetry.py", "if endpoint is None:", "if True:", ("gateway_extras/test_telemetry.py",)),
    Part("vectors in PostgreSQL", "app/semantic.py", "if url is None:", "if True:", ("test_semantic.py",)),
    Part(
        "step cache",
        RUNNER,
        "async def recall(self, ctx: Context, key: str) -> Kept:",
        None,
        ("test_evidence.py",),
        "Kept()",
    ),
    Part(
        "scores",
        RUNNER,
        "async def scores(self, ctx: Context, scores: Sequence[Score]) -> None:",
        None,
        ("command_line/test_evaluate.py",),
    ),
    Part(
        "score",
        RUNNER,
        "async def score(self, ctx: Context, name: str, about: Record, value: float) -> None:",
        None,
        ("test_evidence.py",),
    ),
    Part("packing", "programs/wrap/packing.py", "if weighs(params)", "if True", ("test_packing.py",)),
    Part("nearest demos", "programs/predict.py", "if params.nearest is not None:", "if False:", ("test_weigh.py",)),
    Part(
        "demos always shown",
        "core/params.py",
        "return self.demos if self.nearest is not None or self.shown is None else self.demos[: self.shown]",
        "return self.demos",
        ("test_weigh.py",),
    ),
    Part(
        "weighing",
        "programs/weigh.py",
        'return params.layout == "plain" or bool(params.scored)',
        "return False",
        ("test_weigh.py",),
    ),
    Part("leads", "programs/prompt/options.py", "weights.lead", "{}", ("test_weigh.py",)),
    Part(
        "nobody asked without a weight",
        "programs/weigh.py",
        "return bool((self.params.scored or {})[name].model)",
        "return True",
        ("test_weigh.py",),
    ),
    Part(
        "releases",
        "registry/releases.py",
        "return None if choice is None else choice.of(subject)",
        "return None",
        ("test_releases.py",),
    ),
    Part(
        "arms",
        "registry/releases.py",
        "return self._arms[bisect_right(self._edges, share(self._experiment, subject))]",
        "return self._arms[0]",
        ("test_experiment.py",),
    ),
    Part(
        "budget of a search",
        "inference/dispatch.py",
        "if request.allowance is not None:\n            return drawn(",
        "if False:\n            return drawn(",
        ("test_optimize.py",),
    ),
    Part("resuming a search", "app/learn/optimize.py", "replay=replay or None", "replay=None", ("test_optimize.py",)),
    Part(
        "rows kept for a test",
        "learn/data/guard.py",
        "async def refuse_tests(registry: Registry, scope: Scope, rows: Iterable[Row]) -> None:",
        None,
        ("command_line/test_dataset.py",),
    ),
    Part(
        "near duplicates",
        "learn/data/curate.py",
        "rows, counts.alike = unlike(rows)",
        "counts.alike = 0",
        ("command_line/test_dataset.py",),
    ),
    Part(
        "redaction",
        "learn/data/curate.py",
        "row, taken = redacted(row)",
        "taken = redacted(row)[1]",
        ("command_line/test_dataset.py",),
    ),
    Part(
        "votes",
        "programs/predict.py",
        "if (params.votes or 1) > 1:",
        "if False:",
        ("test_weigh.py",),
    ),
    Part(
        "bandit",
        "learn/optimize/bandit.py",
        "arm = self._rng.choices(self._arms, shares)[0]",
        "arm = 0",
        ("gateway_learn/test_adaptive.py",),
    ),
    Part("cascade", "app/routes.py", "cascade = _cascade(settings, prices)", "cascade = None", ("test_route.py",)),
    Part(
        "taking apart",
        "programs/wrap/decompose.py",
        "def plan(prompt: str, documents: int) -> Plan | None:",
        None,
        ("gateway/test_native.py",),
        "None",
    ),
    Part(
        "budget of an evaluation",
        "app/learn/evaluations.py",
        "allowance=allowance if plan.calls is not None else None",
        "allowance=None",
        ("command_line/test_evaluate.py",),
    ),
    Part(
        "choosing a model",
        "learn/optimize/models.py",
        "board.chosen = one.candidate",
        "pass",
        ("test_optimize.py",),
    ),
    Part(
        "the race",
        "learn/optimize/board.py",
        "if self.compared(other, candidate, some).high < 0:",
        "if False:",
        ("test_optimize.py",),
    ),
    Part(
        "streamed programs",
        "serve/http/learn/programs.py",
        'if query.get("stream") == "true":',
        "if False:",
        ("gateway_learn/test_streamed_programs.py",),
    ),
    Part(
        "experiments",
        "learn/experiment/experiments.py",
        "async def step(self, scope: Scope, program: str) -> Experiment | None:",
        None,
        ("test_experiment.py",),
        "None",
    ),
    Part(
        "taking back",
        "learn/loop/loop.py",
        "async def _take_back(self, scope: Scope, plan: Plan, seen: Seen) -> None:",
        None,
        ("test_loop.py",),
    ),
    Part(
        "the gateway's watch",
        "app/learn/served.py",
        "await asyncio.sleep(EVERY_S if every is None else every)",
        "await asyncio.sleep(1e6)",
        ("test_loop.py",),
    ),
)


def main() -> int:
    """Try the parts; 1 if one was not missed by any test."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="parts; all of them without")
    names = parser.parse_args().names
    if unknown := sorted(set(names) - {part.name for part in PARTS}):
        parser.error(f"no part {unknown[0]!r}; they are {', '.join(part.name for part in PARTS)}")
    unnoticed = 0
    with tempfile.TemporaryDirectory() as place:
        copy = Path(place) / "project"
        for folder in ("src", "tests", "examples", "benchmarks", "tools"):
            shutil.copytree(ROOT / folder, copy / folder, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(ROOT / "pyproject.toml", copy)
        for part in PARTS:
            if not names or part.name in names:
                begun = time.monotonic()
                found = _tried(part, copy)
                unnoticed += not found
                print(f"{part.name:30} {found or 'NOT NOTICED'} ({time.monotonic() - begun:.0f} s)", flush=True)
    return 1 if unnoticed else 0


def _tried(part: Part, copy: Path) -> str:
    """The first test that fails without the part; empty where none does."""
    file = copy / "src" / "kaizen" / part.file
    text = file.read_text("utf-8")
    file.write_text(part.off(text), "utf-8")
    try:
        words = ["-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *(f"tests/e2e/{test}" for test in part.tests)]
        env = {**os.environ, "PYTHONPATH": str(copy / "src")}
        done = subprocess.run([sys.executable, *words], cwd=copy, env=env, capture_output=True, text=True, check=False)
    finally:
        file.write_text(text, "utf-8")
    if done.returncode == 0:
        return ""
    failed = re.search(r"^FAILED tests/e2e/(\S+)", done.stdout, re.MULTILINE)
    if failed is None:
        raise SystemExit(
            f"{part.name}: pytest ended with {done.returncode}:\n{done.stdout[-2000:]}{done.stderr[-1000:]}"
        )
    return failed[1]


if __name__ == "__main__":
    sys.exit(main())
