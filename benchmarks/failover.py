"""What failover costs where nothing fails, and what it brings where something does.

    python benchmarks/failover.py --json benchmarks/results/failover.json

Cost: microseconds of CPU a call that the layers (health, hedge, chain) add to a provider that answers at once, and that
a question about a model's health takes. Hedging: calls to a real server of which 3 % take 400 ms and the others 10 ms,
with and without `hedge`: median and p99 milliseconds, and requests a call. Circuit: a server that begins to answer 503:
seconds and faults until its circuit is open, calls that reach it while it is open, and the latency of the callers, who
get another model's answers. Degradation: a server that becomes three times as slow under a steady load: seconds until
the model counts as degraded.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from lab import interval, report

from kaizen.app import App, build
from kaizen.core.message import Message
from kaizen.core.protocols import Provider
from kaizen.core.request import Chunk, Options, Reply, Request
from kaizen.core.scope import LOCAL
from kaizen.inference.failover.chain import Failover, Fallbacks
from kaizen.inference.failover.health import Health
from kaizen.inference.failover.hedge import Hedge
from kaizen.inference.failover.watch import Watch
from kaizen.inference.prices import PriceTable
from kaizen.settings import load_settings
from kaizen.testing.fault_server import OK, Fault, FaultServer, slow, status

FIRST, SECOND = "mine/large", "other/large"
REQUEST = Request(scope=LOCAL, model=FIRST, messages=(Message.of("user", "hello"),))


class Instant:
    """Answers at once."""

    def __init__(self) -> None:
        self._reply = Reply(model=FIRST, text="hi")

    async def complete(self, request: Request, /) -> Reply:
        return self._reply

    async def stream(self, request: Request, /) -> Any:
        yield Chunk(reply=self._reply)


class Tailed(FaultServer):
    """A server of which a share of the calls takes long."""

    def __init__(self, seed: int, share: float, usual: float, long: float) -> None:
        super().__init__("hi")
        self._rng, self._share, self._usual, self._long = random.Random(seed), share, slow(usual), slow(long)

    def received(self, call: Any) -> Fault:
        super().received(call)
        return self._long if self._rng.random() < self._share else self._usual


# -- cost -----------------------------------------------------------------------------------------


async def cpu_us(provider: Provider, calls: int) -> float:
    begun = time.process_time()
    for _ in range(calls):
        await provider.complete(REQUEST)
    return (time.process_time() - begun) / calls * 1e6


async def cost(rounds: int, calls: int = 20_000) -> dict[str, Any]:
    bare, health = Instant(), Health()
    layers: Provider = Watch(bare, health)
    watched = layers
    fallbacks = Fallbacks({"*": (SECOND,)})
    layers = Failover(Hedge(layers, health, PriceTable({}, {}), second=fallbacks.after), fallbacks)
    added: dict[str, list[float]] = {"watch_us": [], "all_us": [], "state_us": [], "p95_us": []}
    for _ in range(rounds):
        without = await cpu_us(bare, calls)
        added["watch_us"].append(await cpu_us(watched, calls) - without)
        added["all_us"].append(await cpu_us(layers, calls) - without)
        for name, ask in (
            ("state_us", lambda: health.state(FIRST)),
            ("p95_us", lambda: health.latency_ms(FIRST, 0.95)),
        ):
            begun = time.process_time()
            for _ in range(calls):
                ask()
            added[name].append((time.process_time() - begun) / calls * 1e6)
    return {name: _summed(figures, 2) for name, figures in added.items()}


# -- with real servers ----------------------------------------------------------------------------


def app_of(home: str, servers: dict[str, FaultServer], **failover: Any) -> App:
    providers = {
        name: {"kind": "openai", "base_url": server.base_url, "api_key": "k"} for name, server in servers.items()
    }
    inference = {"attempts": 1, "failover": failover}
    tree = {"model": FIRST, "home": home, "providers": providers, "inference": inference}
    return build(load_settings(Path(home), {}, tree))


async def ask(app: App, *, hedge: bool | None = None) -> tuple[float, Reply]:
    begun = time.perf_counter()
    reply = await app.provider.complete(replace(REQUEST, options=Options(hedge=hedge)))
    return (time.perf_counter() - begun) * 1000, reply


async def hedging(seed: int, calls: int) -> dict[str, Any]:
    found: dict[str, Any] = {"calls": calls, "slow_share": 0.03, "usual_ms": 10, "slow_ms": 400}
    for name, wanted in (("alone", None), ("hedged", True)):
        with tempfile.TemporaryDirectory() as home, Tailed(seed, 0.03, 0.01, 0.4) as server:
            app = app_of(home, {"mine": server})
            gate = asyncio.Semaphore(4)

            async def one(app: App = app, gate: asyncio.Semaphore = gate, wanted: bool | None = wanted) -> float:
                async with gate:
                    return (await ask(app, hedge=wanted))[0]

            await asyncio.gather(*(one() for _ in range(100)))  # the p95 is measured
            before = server.count
            took = await asyncio.gather(*(one() for _ in range(calls)))
            p99: Callable[[Any], float] = lambda figures: sorted(figures)[int(0.99 * len(figures))]  # noqa: E731 - handed on
            low, high = interval(took, p99)
            found[name] = {
                "median_ms": round(statistics.median(took), 1),
                "p99_ms": round(p99(took), 1),
                "p99_95": [round(low, 1), round(high, 1)],
                "requests_a_call": round((server.count - before) / calls, 3),
            }
            await app.close()
    return found


async def circuit() -> dict[str, Any]:
    """Twenty calls a second; after three seconds the first server fails."""
    with tempfile.TemporaryDirectory() as home, FaultServer("hi") as mine, FaultServer("hi") as other:
        app = app_of(home, {"mine": mine, "other": other}, fallbacks={"*": [SECOND]})
        for _ in range(60):
            await ask(app)
            await asyncio.sleep(0.05)
        mine.default = status(503)
        begun, before, took = time.perf_counter(), mine.count, list[float]()
        while app.health.state(FIRST) != "open":
            took.append((await ask(app))[0])
            await asyncio.sleep(0.05)
        opened, faults = time.perf_counter() - begun, mine.count - before
        models: list[str] = []
        while time.perf_counter() - begun < opened + 5.0:
            ms, reply = await ask(app)
            took.append(ms)
            models.append(reply.model)
            await asyncio.sleep(0.05)
        await app.close()
        return {
            "open_after_s": round(opened, 2),
            "faults_until_then": faults,
            "reached_while_open": mine.count - before - faults,
            "calls": len(took),
            "answered_by_the_other_while_open": round(models.count(SECOND) / len(models), 3),
            "p99_ms": round(sorted(took)[int(0.99 * len(took))], 1),
        }


async def degradation() -> dict[str, Any]:
    """Twenty calls a second, 50 ms each for 40 s and 150 ms from then on."""
    with tempfile.TemporaryDirectory() as home, FaultServer("hi", default=slow(0.05)) as mine:
        app = app_of(home, {"mine": mine})
        ending = time.perf_counter() + 40.0
        calls: set[asyncio.Task[Any]] = set()

        async def second() -> None:
            calls.add(asyncio.ensure_future(ask(app)))
            await asyncio.sleep(0.05)

        states: list[str] = []
        while time.perf_counter() < ending:
            await second()
            states.append(app.health.state(FIRST))
        mine.default = slow(0.15)
        begun = time.perf_counter()
        while app.health.state(FIRST) == "ok" and time.perf_counter() - begun < 60:
            await second()
        noticed = time.perf_counter() - begun
        await asyncio.gather(*calls)
        mine.default = OK
        why = app.health.why(FIRST)
        await app.close()
    return {"noticed_after_s": round(noticed, 1), "why": why, "degraded_before": states.count("degraded")}


def _summed(figures: list[float], digits: int) -> dict[str, Any]:
    low, high = interval(figures)
    return {"median": round(statistics.median(figures), digits), "95": [round(low, digits), round(high, digits)]}


async def measure(options: argparse.Namespace) -> dict[str, Any]:
    return {
        "cost": await cost(options.rounds),
        "hedging": await hedging(options.seed, options.calls),
        "circuit": await circuit(),
        "degradation": await degradation(),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="where the results go")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--calls", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=7)
    options = parser.parse_args()
    report(asyncio.run(measure(options)), seed=options.seed, file=options.json)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
