"""What calls with a long shared prefix and a tail of their own cost on the embedded model, by slots and threads.

    python benchmarks/embedded_prefix.py --json out.json

Each setting runs in its own process: first one cold call for each that runs at once, then `--calls` more. Reported:
wall and CPU seconds of both parts, the share of prompt tokens read from the cache in the second, peak memory. On a
busy machine read the CPU seconds with one thread, and compare wall seconds only within a run. A setting that takes
more than two minutes is stopped and reported so.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import resource
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

from kaizen.core.message import Message
from kaizen.core.request import Decoding, Reply, Request
from kaizen.core.scope import LOCAL
from kaizen.providers.embedded import EmbeddedProvider
from kaizen.providers.weights import find_weights

RULES = (
    "You name the team that owns a bank customer's message. Cards: lost, stolen or blocked cards. "
    "Transfers: payments and standing orders. Accounts: opening, closing, address. "
) * 15
LIMIT_S = 120
# slots, calls at once, threads
SETTINGS = ((1, 1, 1), (1, 4, 1), (2, 4, 1), (4, 4, 1), (1, 1, 2), (1, 4, 2), (2, 4, 2), (4, 4, 2))


def request(number: int) -> Request:
    tail = f"Message {number * 7919}: customer {number} lost a card near station {number % 7}."
    messages = (Message.of("system", RULES), Message.of("user", tail))
    decoding = Decoding(temperature=0, max_tokens=12)
    return Request(scope=LOCAL, model="embedded/smollm2-135m", messages=messages, decoding=decoding)


def spent() -> tuple[float, float]:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return time.perf_counter(), used.ru_utime + used.ru_stime


async def measure(weights: Path, slots: int, at_once: int, threads: int, calls: int) -> dict[str, Any]:
    provider = EmbeddedProvider("embedded", {"smollm2-135m": weights}, threads=threads, slots=slots)
    gate = asyncio.Semaphore(at_once)

    async def call(number: int) -> Reply:
        async with gate:
            return await provider.complete(request(number))

    ready = Request(scope=LOCAL, model="embedded/smollm2-135m", messages=(Message.of("user", "Hello."),))
    await provider.complete(ready)
    begun = spent()
    await asyncio.gather(*(call(10_000 + number) for number in range(at_once)))
    warm = spent()
    replies = await asyncio.gather(*(call(number) for number in range(calls)))
    done = spent()
    cached = sum(reply.usage.tokens_cached for reply in replies)
    return {
        "slots": slots,
        "at_once": at_once,
        "threads": threads,
        "prompt_tokens": replies[0].usage.tokens_in,
        "cached_share": round(cached / sum(reply.usage.tokens_in for reply in replies), 3),
        "cold_wall_s": round(warm[0] - begun[0], 2),
        "cold_cpu_s": round(warm[1] - begun[1], 2),
        "warm_wall_s": round(done[0] - warm[0], 2),
        "warm_cpu_s": round(done[1] - warm[1], 2),
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        "load": os.getloadavg()[0],
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="where the results go")
    parser.add_argument("--calls", type=int, default=40)
    parser.add_argument("--setting", nargs=3, type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    weights = find_weights("smollm2-135m", Path())
    if weights is None:
        print("the weights of the embedded model are not installed", file=sys.stderr)
        return 1
    if arguments.setting:
        print(json.dumps(asyncio.run(measure(weights, *arguments.setting, arguments.calls))))
        return 0
    rows: list[dict[str, Any]] = []
    for setting in SETTINGS:
        command = [sys.executable, __file__, "--calls", str(arguments.calls), "--setting", *map(str, setting)]
        try:
            run = subprocess.run(command, check=True, capture_output=True, text=True, timeout=LIMIT_S)
            rows.append(json.loads(run.stdout))
        except subprocess.TimeoutExpired:
            # what spin-waiting comes to where other processes want the cores too
            rows.append({**dict(zip(("slots", "at_once", "threads"), setting, strict=True)), "timed_out_s": LIMIT_S})
        print(json.dumps(rows[-1]), flush=True)
    if arguments.json is not None:
        result = {
            "command": "python benchmarks/embedded_prefix.py " + " ".join(sys.argv[1:]),
            "machine": {
                "system": f"{platform.system()} {platform.machine()}",
                "cores": os.cpu_count(),
                "python": platform.python_version(),
                "xllamacpp": version("xllamacpp"),
            },
            "settings": rows,
        }
        arguments.json.write_text(json.dumps(result, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
