"""The gateway's CPU a call and the latency it adds, beside LiteLLM's proxy.

    python benchmarks/gateway/throughput.py [--calls 4000] [--rounds 5] [--peers litellm] [--json FILE]

Upstream, gateway and load generator are processes of their own on loopback. The upstream answers at once. Ours runs as
`kaizen serve` starts it, the full product on: a key that is checked, its rate limit and its daily budget, a price, a
record with contents kept before the answer leaves, the exact cache, metrics. CPU is what the system has charged to the
gateway's process and all its threads (`/proc/<pid>/task/*/schedstat`), divided by the calls. Every miss asks something
new; every hit asks the same. A streamed answer has 44 events. Added latency is the gateway's minus that of the upstream
asked directly by the same load.

A closed load (each connection asks as soon as it is answered) keeps every core busy with all three processes, so that a
latency is time in a queue. ``open`` is the other figure: 64 connections, requests due at random moments at 30 % of what
the gateway answers in the closed load, latency from the moment when each was due; gateway and upstream turn about.
"""

import argparse
import asyncio
import contextlib
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from lab import MODEL, RESULTS, environment, python_of, report, server_saying, summary

LITELLM = ("litellm[proxy]==1.106.2",)
EVENTS = 44
TEXT = "word" * (EVENTS - 4)  # pieces of four letters; the role, the finish, the counts and the mark are the other four
_SHARE = 0.3
_OPEN_S = 4.0
SHAPES = (("miss", 1), ("miss", 8), ("miss", 64), ("hit", 8), ("stream", 8))


def cpu_ms(pid: int) -> float:
    """Milliseconds of CPU that a process has had, its threads and children included."""
    total = 0
    for one in [pid, *_below(pid)]:
        for path in Path(f"/proc/{one}/task").glob("*/schedstat"):
            with contextlib.suppress(OSError):
                total += int(path.read_text().split()[0])
    return total / 1e6


def _below(pid: int) -> list[int]:
    found: list[int] = []
    with contextlib.suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in (task / "children").read_text().split():
                found += [int(child), *_below(int(child))]
    return found


class Load:
    """The load generator on one address."""

    def __init__(self, address: str) -> None:
        words = [sys.executable, str(Path(__file__).parent / "load.py"), address]
        self._process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def run(
        self, shape: str, connections: int, calls: int, key: str, path: str, rate: float | None = None
    ) -> dict[str, Any]:
        """Measure so many calls, at so many a second or as fast as they are answered."""
        run = os.urandom(6).hex()

        def body(number: int) -> str:
            messages = [
                {"role": "system", "content": "You are a helpful assistant."},
                {"role": "user", "content": f"Question {number} of run {run}: what is the capital of France?"},
            ]
            more: dict[str, Any] = {"stream": True} if shape == "stream" else {}
            return json.dumps({"model": MODEL, "messages": messages, "max_tokens": 100, **more})

        todo = {
            "path": path,
            "headers": {"authorization": f"Bearer {key}", "content-type": "application/json"},
            "bodies": [body(number) for number in range(1 if shape == "hit" else calls)],
            "connections": connections,
            "requests": calls,
            **({} if rate is None else {"rate": rate}),
        }
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(todo) + "\n")
        self._process.stdin.flush()
        got: dict[str, Any] = json.loads(self._process.stdout.readline())
        if got["statuses"] != {"200": calls} or got["cut"]:
            raise RuntimeError(f"{shape} at {connections}: {got}")
        return got

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()


# -- gateways ---


@contextlib.contextmanager
def kaizen(upstream: str) -> Iterator[tuple[str, str, int]]:
    """Address, key and process of ours."""
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "kaizen.toml"
        config.write_text(
            f'model = "mine/{MODEL}"\nhome = "home"\n[providers.mine]\nkind = "openai"\nbase_url = "{upstream}/v1"\n'
            f'api_key = "k"\n[models."mine/{MODEL}"]\ninput_usd_per_mtok = 0.15\noutput_usd_per_mtok = 0.6\n'
        )
        key = asyncio.run(_our_key(config))
        words = [sys.executable, "-m", "kaizen", "serve", "--config", str(config), "--port", "0"]
        process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True, env=environment())
        try:
            assert process.stdout is not None
            found = re.search(r"http://\S+", process.stdout.readline())
            assert found is not None
            _until_up(f"{found[0]}/health/live")
            yield found[0], key, process.pid
        finally:
            process.terminate()
            process.wait(20)


async def _our_key(config: Path) -> str:
    """A key with a rate limit and a daily budget, both of which every call has to be counted against."""
    from kaizen.app.govern import make_keys
    from kaizen.core.identity import Limits, nano_usd
    from kaizen.core.scope import Scope
    from kaizen.settings import load_settings

    keys = make_keys(load_settings(config.parent, {}, {}, config=config))
    limits = Limits(requests_per_minute=100_000_000, usd_per_day=nano_usd(100_000))
    made = await keys.create(Scope("bench", "prod"), limits=limits)
    await keys.close()
    return made.secret


@contextlib.contextmanager
def litellm(upstream: str) -> Iterator[tuple[str, str, int]]:
    """Address, key and process of LiteLLM's proxy: one worker, a master key, no database, quiet."""
    python = python_of("litellm-proxy", LITELLM)
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "config.yaml"
        model = {"model": f"openai/{MODEL}", "api_base": f"{upstream}/v1", "api_key": "k"}
        # JSON is YAML
        config.write_text(
            json.dumps(
                {
                    "model_list": [{"model_name": MODEL, "litellm_params": model}],
                    "general_settings": {"master_key": "sk-bench"},
                    "litellm_settings": {"telemetry": False, "set_verbose": False},
                }
            )
        )
        port = 18_000 + os.getpid() % 1000
        words = [
            str(Path(python).parent / "litellm"),
            "--config",
            str(config),
            "--port",
            str(port),
            "--num_workers",
            "1",
        ]
        quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        env = environment(LITELLM_LOG="ERROR", LITELLM_LOCAL_MODEL_COST_MAP="True")
        env.pop("PYTHONPATH")
        process = subprocess.Popen(words, env=env, cwd=folder, **quiet)
        try:
            address = f"http://127.0.0.1:{port}"
            _until_up(f"{address}/health/liveliness", 180)
            yield address, "sk-bench", process.pid
        finally:
            process.terminate()
            process.wait(20)


GATEWAYS = {"kaizen": kaizen, "litellm": litellm}


def _until_up(url: str, seconds: float = 60.0) -> None:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    end = time.monotonic() + seconds
    while True:
        try:
            with opener.open(url, timeout=5):
                return
        except OSError:
            if time.monotonic() > end:
                raise
            time.sleep(0.05)


# -- measuring ---


def measured(name: str, upstream: str, calls: int, rounds: int) -> dict[str, Any]:
    """By shape: CPU a call, calls a second and latency, over the rounds."""
    figures: dict[str, list[dict[str, float]]] = {}
    with GATEWAYS[name](upstream) as (address, key, pid):
        load = Load(address)
        opened: dict[str, Any] = {}
        try:
            for shape, connections in SHAPES:
                load.run(shape, connections, max(50, calls // 20), key, "/v1/chat/completions")  # warm
            for _ in range(rounds):
                for shape, connections in SHAPES:
                    some = calls if shape != "stream" else max(50, calls // 4)
                    before = cpu_ms(pid)
                    got = load.run(shape, connections, some, key, "/v1/chat/completions")
                    got["cpu_ms"] = (cpu_ms(pid) - before) / some
                    figures.setdefault(f"{shape} at {connections}", []).append(got)
            whole = {shape: _summed(got) for shape, got in figures.items()}
            opened = _opened(load, upstream, key, whole["miss at 64"]["per_second"]["median"], rounds)
        finally:
            load.close()
    return {**whole, "open": opened}


def _opened(load: Load, upstream: str, key: str, capacity: float, rounds: int) -> dict[str, Any]:
    """Latency at a share of what the gateway can do, and that of the upstream at the same rate."""
    rate = _SHARE * capacity
    # each is used every two seconds at least: servers close what pauses for longer, some after five
    connections = max(1, min(64, round(2 * rate)))
    calls, path = max(200, round(rate * _OPEN_S)), "/v1/chat/completions"
    bare = Load(upstream)
    found: dict[str, list[dict[str, float]]] = {"gateway": [], "upstream": []}
    try:
        for _ in range(rounds):
            found["gateway"].append(load.run("miss", connections, calls, key, path, rate))
            found["upstream"].append(bare.run("miss", connections, calls, "k", path, rate))
    finally:
        bare.close()
    names = ("p50_ms", "p99_ms")
    sides = {side: {name: summary([one[name] for one in got], 3) for name in names} for side, got in found.items()}
    added = {
        name: summary(
            [one[name] - other[name] for one, other in zip(found["gateway"], found["upstream"], strict=True)], 3
        )
        for name in names
    }
    return {"rate": round(rate), "connections": connections, "share": _SHARE, "calls": calls, **sides, "added": added}


def direct(upstream: str, calls: int, rounds: int) -> dict[str, Any]:
    """The upstream itself under the same load."""
    figures: dict[str, list[dict[str, float]]] = {}
    load = Load(upstream)
    try:
        for _ in range(rounds):
            for shape, connections in SHAPES:
                if shape != "hit":
                    got = load.run(
                        shape, connections, calls if shape == "miss" else calls // 4, "k", "/v1/chat/completions"
                    )
                    figures.setdefault(f"{shape} at {connections}", []).append(got)
    finally:
        load.close()
    return {shape: _summed(got) for shape, got in figures.items()}


def _summed(got: list[dict[str, float]]) -> dict[str, Any]:
    names = [name for name in ("cpu_ms", "per_second", "p50_ms", "p99_ms") if name in got[0]]
    return {name: summary([one[name] for one in got], 3) for name in names}


def added(ours: dict[str, Any], bare: dict[str, Any]) -> dict[str, Any]:
    """Latency over that of the upstream asked directly: medians of rounds."""
    return {
        shape: {name: round(figures[name]["median"] - bare[shape][name]["median"], 3) for name in ("p50_ms", "p99_ms")}
        for shape, figures in ours.items()
        if shape in bare  # an open load has its own
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=4000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--peers", nargs="*", default=["litellm"], choices=["litellm"])
    parser.add_argument("--peer-calls", type=int, default=400)
    parser.add_argument("--json", type=Path, default=RESULTS / "gateway.json")
    given = parser.parse_args()
    with server_saying(TEXT) as upstream:
        bare = direct(upstream, given.calls, given.rounds)
        ours = measured("kaizen", upstream, given.calls, given.rounds)
        peers = {name: measured(name, upstream, given.peer_calls, given.rounds) for name in given.peers}
    shares = {
        f"{name} / kaizen": {
            shape: round(figures["cpu_ms"]["median"] / ours[shape]["cpu_ms"]["median"], 1)
            for shape, figures in found.items()
            if shape != "open"
        }
        for name, found in peers.items()
    }
    figures: dict[str, Any] = {
        "kaizen": ours,
        **peers,
        "upstream itself": bare,
        "added latency": {name: added(found, bare) for name, found in {"kaizen": ours, **peers}.items()},
        "cpu ratio": shares,
    }
    miss = ours["miss at 8"]["cpu_ms"]
    against = peers.get("litellm", {}).get("miss at 8", {}).get("cpu_ms", {}).get("median")
    figures["readme"] = [
        {
            "what": "gateway, CPU a call, miss at 8 connections, key, limits, budget, record and metrics on",
            "measured": f"{miss['median']:.2f} ms",
            "against": f"LiteLLM proxy {against:.1f} ms" if against else "",
        }
    ]
    if statistics.fmean(os.getloadavg()) > (os.cpu_count() or 1):
        figures["note"] = "other work ran on this machine meanwhile: CPU figures are too high, latencies far too high"
    report(figures, seed=0, file=given.json)


if __name__ == "__main__":
    main()
