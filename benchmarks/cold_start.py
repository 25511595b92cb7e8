"""CPU from the end of the imports to the first byte on the wire, for a new program in a new process.

    python benchmarks/cold_start.py --json out.json

Each figure is one new process with a new, empty home. It first imports every module that the call will need, those
that are otherwise loaded when first used included: a process before found them by making the call, and that nothing is
imported after the clock starts is checked in every process. The clock is the CPU time of the process, all threads. It
starts before the program's class is defined and stops when the event loop is handed the request for the socket; what
lies between is the definition, the settings, the App, the ledger's key, the loop, the HTTP session, the connection and
the rendered prompt. What the imports left is collected before the clock starts. The answer is then checked like any
other.

`first_byte_ms` is the median over the processes, its 95 % interval and the extremes; the bar is 5 ms. `parts_ms` come
from processes of their own, in which the named steps are timed (steps inside others are counted in both).
"""

import argparse
import asyncio
import functools
import gc
import importlib
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lab import ROOT, environment, interval, report, server

BAR_MS = 5.0
PARTS = {
    "settings": ("kaizen.app", "read"),
    "settings merged": ("kaizen.app", "merge"),
    "app built": ("kaizen.app", "build"),
    "ledger key": ("kaizen.app", "load_key"),
    "adapter made": ("kaizen.app", "make_adapter"),
    "plan rendered": ("kaizen.programs.prompt.render", "plan"),
    "strict schema": ("kaizen.providers.openai_chat", "_response_format"),
    "input and output models": ("kaizen.core.spec", "_model"),
}


def first_call(base: str, home: str, modules: list[str], timed: bool) -> dict[str, Any]:
    """What one new process measures."""
    for module in modules:
        importlib.import_module(module)
    from asyncio.selector_events import _SelectorSocketTransport  # pyright: ignore[reportAttributeAccessIssue]

    seen: dict[str, float] = {}

    def watched(write: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(write)
        def watching(*args: Any) -> Any:
            seen.setdefault("cpu", time.process_time())
            return write(*args)

        return watching

    for name in ("write", "writelines"):
        setattr(_SelectorSocketTransport, name, watched(getattr(_SelectorSocketTransport, name)))
    parts: dict[str, float] = {}
    if timed:
        for part, (module, name) in PARTS.items():
            place = importlib.import_module(module)
            setattr(place, name, clocked(getattr(place, name), part, parts))
    from peers import check, our_program  # the program is defined in here

    loaded = set(sys.modules)
    # What the imports left is theirs to collect: else a whole millisecond of it falls inside the clock or outside,
    # depending on how many objects the last module happened to make.
    gc.collect()

    start = time.process_time()
    program = our_program(base, home)  # pyright: ignore[reportArgumentType]
    defined = time.process_time()

    async def call() -> Any:
        parts["loop started"] = time.process_time() - defined
        return await program(message="Someone stole my card at the station.")

    answer = asyncio.run(call())
    check((answer.team, answer.urgency))
    parts["class defined and settings read"] = defined - start
    return {
        "first_byte_ms": (seen["cpu"] - start) * 1e3,
        "imported_late": [name for name in sys.modules if name not in loaded and importable(name)],
        "parts": {part: seconds * 1e3 for part, seconds in parts.items()},
    }


def importable(name: str) -> bool:
    """Compiled packages register names that nobody can import; the benchmark's own modules are not the program's."""
    spec = getattr(sys.modules[name], "__spec__", None)
    return spec is not None and spec.origin != "built-in" and name not in ("peers", "lab")


def clocked(function: Callable[..., Any], part: str, parts: dict[str, float]) -> Callable[..., Any]:
    @functools.wraps(function)
    def clocking(*args: Any, **named: Any) -> Any:
        start = time.process_time()
        try:
            return function(*args, **named)
        finally:
            parts[part] = parts.get(part, 0.0) + time.process_time() - start

    return clocking


def process(base: str, modules: list[str], *, timed: bool = False) -> dict[str, Any]:
    """Start one."""
    with tempfile.TemporaryDirectory() as home:
        words = [sys.executable, str(ROOT / "benchmarks" / "cold_start.py"), "--child", base, home]
        run = subprocess.run(
            [*words, *(["--timed"] if timed else [])],
            input=json.dumps(modules),
            stdout=subprocess.PIPE,
            text=True,
            env=environment(),
            check=True,
        )
    return json.loads(run.stdout)


def measure(options: argparse.Namespace, base: str) -> dict[str, Any]:
    needed = ["kaizen.app", "kaizen.programs.signature", *process(base, [])["imported_late"]]
    figures = [process(base, needed) for _ in range(options.processes)]
    late = sorted({module for one in figures for module in one["imported_late"]})
    if late:
        raise SystemExit(f"imported after the clock started: {', '.join(late)}")
    spent = [one["first_byte_ms"] for one in figures]
    parts = [process(base, needed, timed=True)["parts"] for _ in range(max(5, options.processes // 4))]
    low, high = interval(spent, seed=options.seed)
    return {
        "processes": len(figures),
        "modules_imported_before": len(needed),
        "first_byte_ms": {
            "median": round(statistics.median(spent), 2),
            "low": round(low, 2),
            "high": round(high, 2),
            "min": round(min(spent), 2),
            "max": round(max(spent), 2),
        },
        "parts_ms": {part: round(statistics.median(one[part] for one in parts), 2) for part in parts[0]},
        "bar_ms": BAR_MS,
        "readme": [
            {
                "what": "a new program in a new process to its first byte on the wire: CPU beyond imports",
                "measured": f"{statistics.median(spent):.1f} ms",
                "against": f"the bar of {BAR_MS:.0f} ms",
            }
        ],
        "met": statistics.median(spent) < BAR_MS,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="where the results go")
    parser.add_argument("--processes", type=int, default=40)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--child", nargs=2, metavar=("URL", "HOME"), help=argparse.SUPPRESS)
    parser.add_argument("--timed", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(first_call(*options.child, json.load(sys.stdin), options.timed)))
        return 0
    with server() as address:
        result = measure(options, f"{address}/v1")
    report(result, seed=options.seed, file=options.json)
    return 0 if result["met"] else 1


if __name__ == "__main__":
    raise SystemExit(main())
