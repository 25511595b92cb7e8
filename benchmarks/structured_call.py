"""CPU of one structured call against an instant local server, ours and the peers' side by side in one run.

    python benchmarks/structured_call.py --json out.json

A call is the whole of it: typed inputs rendered to a prompt with the answer's JSON schema, one HTTP POST, the reply
parsed and validated into two typed fields; ours keeps two records and four payloads in SQLite before it answers, and
what it kept is counted afterwards. Each library runs in a process (and the peers in environments) of its own against
one server in another process. All stay alive; rounds go through them turn about, in a new random order each, so that
whatever else the machine does falls on all alike. Reported:

* `cpu_us_1`, `cpu_us_32`: CPU microseconds (all threads, garbage collection on) per call of the client's process, one
  after another and with 32 in flight: median of the rounds, its 95 % bootstrap interval, the least.
* `ratio`: ours over dspy's (its JSON adapter, schema-constrained, cache off) round by round; the bar is 0.16.
* `sent`: the bytes of a request's body, and how it asks for the form of the answer.

`aiohttp` and `httpx` are floors: the same body posted raw, the reply read with `json.loads`. `*-sync` are the blocking
forms. A peer that can't be installed here is named and skipped.
"""

import argparse
import contextlib
import random
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from lab import ANSWER, ROOT, Worker, environment, interval, python_of, report, served, server, summary

from kaizen.testing.fault_server import FaultServer

BAR = 0.16
PINS: dict[str, list[str]] = {
    "dspy": ["dspy==3.4.1", "litellm==1.106.2", "openai==2.54.0", "pydantic==2.14.3"],
    "openai": ["openai==3.51.0", "httpx==0.28.1", "pydantic==2.14.3"],
    "pydantic-ai": ["pydantic-ai-slim[openai]==2.68.0", "openai==3.51.0", "pydantic==2.14.3"],
    "instructor": ["instructor==1.17.0", "openai==3.3.0", "pydantic==2.14.3"],
    "langchain": ["langchain-openai==1.7.3", "langchain-core==1.7.2", "openai==3.51.0", "pydantic==2.14.3"],
    "aiohttp": ["aiohttp==3.14.5"],
    "httpx": ["httpx==0.28.1"],
}
OURS = ("kaizen", "kaizen-no-payloads", "kaizen-sync")
ALL = (*OURS, "dspy", "dspy-sync", "openai", "pydantic-ai", "instructor", "langchain", "aiohttp", "httpx")
QUIET = {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "OTEL_SDK_DISABLED": "true"}  # no look-ups on the network
WARM_UP = 60


def worker(name: str, base: str, home: Path) -> Worker:
    """A library's process, warm.

    Raises:
        RuntimeError: if it can't be had or does not work here.
    """
    python, env = sys.executable, environment()
    if name not in OURS:
        try:
            python = python_of(name.removesuffix("-sync"), PINS[name.removesuffix("-sync")])
        except (subprocess.SubprocessError, OSError) as error:
            raise RuntimeError(f"can't be installed here ({type(error).__name__})") from None
        env = environment(**QUIET, DSPY_CACHEDIR=str(home))
        del env["PYTHONPATH"]
    home.mkdir(parents=True)
    return Worker([python, str(ROOT / "benchmarks" / "peers.py"), name, base, str(home)], env)


def what_is_sent(name: str, folder: Path) -> dict[str, Any]:
    """One call against a server that keeps what it is sent."""
    with FaultServer('{"team":"cards","urgency":5}') as recording:
        one = worker(name, recording.base_url, folder / f"{name}-sent")
        try:
            one.ask(1, 1)
        finally:
            one.close()
        call = recording.calls[-1]
    return {
        "bytes": len(call.body),
        "response_format": call.json.get("response_format", {}).get("type"),
        "requests": recording.count,
    }


def measure(options: argparse.Namespace, base: str, folder: Path, stack: contextlib.ExitStack) -> dict[str, Any]:
    rng = random.Random(options.seed)
    workers: dict[str, Worker] = {}
    sizes: dict[str, int] = {}
    sent: dict[str, Any] = {}
    skipped: dict[str, str] = {}
    calls: dict[str, int] = {}
    for name in options.peers.split(","):
        try:
            sent[name] = what_is_sent(name, folder)
            workers[name] = one = worker(name, f"{base}/v1", folder / name)
            stack.callback(one.close)
            calls[name] = one.ask(1, WARM_UP)["calls"]
            rough = one.ask(1, WARM_UP)
        except RuntimeError as error:
            workers.pop(name, None)
            skipped[name] = str(error)
            print(f"skipped {name}: {error}", file=sys.stderr)
            continue
        calls[name] += rough["calls"]
        # multiples of 32, so that both ways of calling make the same number of calls
        sizes[name] = max(32, round(options.slice * 1e6 / rough["cpu_us"] / 32) * 32)
    rounds: dict[tuple[str, int], list[float]] = {}
    for _ in range(options.rounds):
        for at_once in (1, 32):
            for name in rng.sample(list(workers), len(workers)):
                if at_once == 1 or not name.endswith("-sync"):
                    figures = workers[name].ask(at_once, sizes[name])
                    calls[name] += figures["calls"]
                    rounds.setdefault((name, at_once), []).append(figures["cpu_us"])
    peers: dict[str, Any] = {}
    for name in workers:
        peers[name] = {"calls": calls[name], "sent": sent[name], "cpu_us_1": summary(rounds[name, 1])}
        if (name, 32) in rounds:
            peers[name]["cpu_us_32"] = summary(rounds[name, 32])
        if name in OURS:
            peers[name]["kept"] = check_kept(name, workers[name].ask("count"), calls[name])
        else:
            peers[name]["versions"] = dict(pin.split("==") for pin in PINS[name.removesuffix("-sync")])
    result: dict[str, Any] = {"peers": peers, "skipped": skipped}
    if "kaizen" in workers and "dspy" in workers:
        result["ratio"] = {f"at_once_{n}": ratio(rounds["kaizen", n], rounds["dspy", n]) for n in (1, 32)}
        result["bar"] = BAR
        result["met"] = result["ratio"]["at_once_1"]["median"] <= BAR
        result["readme"] = readme(peers)
    # every call of every library reached the server once, and no other did
    result["served"], result["calls"] = served(base), sum(calls.values())
    return result


def check_kept(name: str, counts: dict[str, Any], calls: int) -> dict[str, Any]:
    """Two records for each call; two payloads of its own, and three that all share: both answers and the prompt's head.

    Raises:
        SystemExit: if one is missing: then the figures would be worth nothing.
    """
    payloads = 0 if name == "kaizen-no-payloads" else 2 * calls + 3
    if counts["program"] != calls or counts["model"] != calls or counts["payloads"] != payloads:
        raise SystemExit(f"{name} made {calls} calls but kept {counts}")
    return counts


def readme(peers: dict[str, Any]) -> list[dict[str, str]]:
    """The rows for the front page."""
    against = [f"{name} {peers[name]['cpu_us_1']['median']:,.0f}" for name in ("dspy", "openai") if name in peers]
    return [
        {
            "what": "one structured call, rendered, sent, parsed, kept on record: CPU of the client",
            "measured": f"{peers['kaizen']['cpu_us_1']['median']:,.0f} µs",
            "against": ", ".join(against) + " µs",
        }
    ]


def ratio(ours: list[float], theirs: list[float]) -> dict[str, Any]:
    pairs = [a / b for a, b in zip(ours, theirs, strict=True)]
    low, high = interval(pairs)
    return {"median": round(statistics.median(pairs), 4), "low": round(low, 4), "high": round(high, 4)}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="where the results go")
    parser.add_argument("--peers", default=",".join(ALL), help="default: %(default)s")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--slice", type=float, default=0.3, help="CPU seconds of a round of one library")
    parser.add_argument("--seed", type=int, default=7)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, server() as base, contextlib.ExitStack() as stack:
        result = measure(options, base, Path(name), stack)
    report({"answer": ANSWER, "rounds": options.rounds, **result}, seed=options.seed, file=options.json)
    return 0 if result.get("met", True) else 1


if __name__ == "__main__":
    raise SystemExit(main())
