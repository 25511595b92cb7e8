"""What it costs a request to learn which version of its program runs: ``python benchmarks/learn/resolve.py``.

Measured: ``Releases.ready`` while the view is fresh and ``resolve``, with one arm and with two; the poll that looks for
moves, of a file that did not change and of one that did; and the whole of it on a run, with and without a release. The
bar is 10 microseconds for resolving on the hot path.
"""

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from lab import RESULTS, report, summary

from kaizen import Signature, context
from kaizen.app import App, build
from kaizen.core.artifact import BASE, Arm
from kaizen.core.params import Demo, Params
from kaizen.core.request import Request
from kaizen.registry.params import params_artifact
from kaizen.settings import load_settings
from kaizen.stores.memory import MemoryStore
from kaizen.testing.scripted import ScriptedProvider

PROGRAMS, VERSIONS = 50, 5


class Triage(Signature):
    """Name the team."""

    message: str = context.input("what the customer wrote")
    team: str = context.output("the team")


NAME = Triage.spec.name


def answer(_: Request) -> str:
    return json.dumps({"team": "cards"})


async def filled(folder: Path) -> App:
    """An App whose registry holds many programs, one of them split."""
    tree = {"model": "p/m", "home": str(folder), "defaults": {"output_mode": "json"}}
    app = build(load_settings(folder, {}, tree), provider=ScriptedProvider(answer), store=MemoryStore())
    demos = tuple(Demo({"message": f"message {number}"}, {"team": "cards"}) for number in range(8))
    for number in range(PROGRAMS):
        for version in range(VERSIONS):
            artifact = params_artifact(Triage.spec, Params(instructions=f"Version {version}.", demos=demos))
            name = NAME if not number else f"bank.Program{number}"
            made = await app.registry.put(
                app.scope, type(artifact)("params", name, artifact.body), author="bench", reason=""
            )
        await label(app, Arm(made.artifact.version), name=name)
    return app


async def label(app: App, *arms: Arm, name: str = NAME) -> None:
    await app.registry.label(app.scope, "params", name, "prod", arms, actor="bench", reason="")


class Figures:
    """Microseconds by name, a figure a round.

    What computes is timed by the processor's clock, which other processes on the machine don't move; what waits for a
    file, or stands for what a caller waits for, by the wall's.
    """

    def __init__(self, rounds: int) -> None:
        self.rounds, self.found = rounds, dict[str, list[float]]()

    async def note(self, name: str, count: int, act: Callable[[], Awaitable[object]], *, wall: bool = False) -> None:
        """Time one of ``count``, in each round."""
        clock = time.perf_counter if wall else time.thread_time
        for _ in range(self.rounds):
            begun = clock()
            for _ in range(count):
                await act()
            self.found.setdefault(name, []).append((clock() - begun) / count * 1e6)


async def hot_path(app: App, figures: Figures, newest: str) -> None:
    """What each run pays."""

    async def nothing() -> object:
        return None

    async def resolve() -> object:
        return view.resolve(NAME, "user 1")

    async def both() -> object:
        return (await app.releases.ready(app.scope)).resolve(NAME, "user 1")

    await figures.note("an empty coroutine", 20_000, nothing)
    for arms, what in (([Arm(newest)], "one arm"), ([Arm(BASE, 0.5), Arm(newest, 0.5)], "two arms")):
        await label(app, *arms)
        view = await app.releases.ready(app.scope)
        await figures.note(f"resolve, {what}", 20_000, resolve)
        await figures.note(f"ready and resolve, {what}", 20_000, both)


async def whole_runs(app: App, figures: Figures, newest: str) -> None:
    """A run on a model that answers at once, with and without a release."""

    async def run() -> object:
        return await app.start(Triage, {"message": "x"})

    for version, what in ((BASE, "nothing released"), (newest, "a version released")):
        await label(app, Arm(version))
        await run()
        await figures.note(f"a run, scripted model, {what}", 300, run)


async def polls(app: App, figures: Figures, newest: str) -> None:
    """What is paid at most twice a second."""

    async def state() -> object:
        return await app.registry.archive.state(app.scope, "params")

    async def changed() -> object:
        view = await app.releases.ready(app.scope)
        assert view is not None
        return view

    rounds, figures.rounds = figures.rounds, 1
    for _ in range(rounds):
        await label(app, Arm(newest))
        await figures.note(f"the view read anew, {PROGRAMS} programs", 1, changed, wall=True)
        await figures.note("the poll, file just changed", 20, state, wall=True)
    figures.rounds = rounds
    await asyncio.sleep(1.1)
    await state()
    await figures.note("the poll, file as it was", 2_000, state)


async def measured(app: App, rounds: int) -> dict[str, Any]:
    """All of it."""
    figures = Figures(rounds)
    newest = (await app.registry.version(app.scope, "params", NAME)).artifact.version
    await hot_path(app, figures, newest)
    await whole_runs(app, figures, newest)
    await polls(app, figures, newest)
    hot = statistics.median(figures.found["ready and resolve, two arms"])
    return {
        "unit": "microseconds; of the processor, for the poll of a changed file and the view read anew of the wall",
        "programs": PROGRAMS,
        "versions of each": VERSIONS,
        "figures": {name: summary(found, 2) for name, found in figures.found.items()},
        "bar": {"hot path, us": 10.0, "measured, us": round(hot, 2), "holds": hot < 10.0},
    }


async def main(rounds: int, file: Path) -> int:
    with tempfile.TemporaryDirectory() as folder:
        app = await filled(Path(folder))
        figures = await measured(app, rounds)
        await app.close()
    report(figures, seed=0, file=file)
    return 0 if figures["bar"]["holds"] else 1


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--json", type=Path, default=RESULTS / "learn_resolve.json")
    given = parser.parse_args()
    sys.exit(asyncio.run(main(given.rounds, given.json)))
