"""What the benchmarks share: a server in its own process, peers in environments of their own, figures with intervals.

Standard library only, so that a peer's environment can load what it needs of it.
"""

import asyncio
import contextlib
import json
import os
import platform
import random
import re
import resource
import shlex
import sqlite3
import statistics
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
CACHE = ROOT / "build" / "bench"  # git ignores it and `make clean` removes it

ANSWER = {"team": "cards", "urgency": 5}
MODEL = "gpt-4o-mini"  # a name that every peer takes for a model with schema-constrained output

Choice = Callable[[Sequence[float]], float]


# -- figures --------------------------------------------------------------------------------------


def interval(
    figures: Sequence[float], choice: Choice = statistics.median, *, level: float = 0.95, seed: int = 7
) -> tuple[float, float]:
    """The percentile bootstrap interval of a statistic of independent rounds (Efron and Tibshirani, 1993)."""
    rng = random.Random(seed)
    resampled = sorted(choice(rng.choices(figures, k=len(figures))) for _ in range(2000))
    tail = round((1 - level) / 2 * len(resampled))
    return resampled[tail], resampled[-1 - tail]


def summary(figures: Sequence[float], digits: int = 1) -> dict[str, Any]:
    """Median, its 95 % interval, the least and the number of rounds."""
    low, high = interval(figures)
    return {
        "median": round(statistics.median(figures), digits),
        "low": round(low, digits),
        "high": round(high, digits),
        "min": round(min(figures), digits),
        "rounds": len(figures),
    }


def machine() -> dict[str, Any]:
    """The machine as far as figures depend on it: no name, no date, no path."""
    model = platform.processor() or platform.machine()
    with contextlib.suppress(OSError):
        found = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text(encoding="utf-8"))
        model = found[1] if found else model
    return {
        "cpu": model,
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
        "load_before": round(os.getloadavg()[0], 1),
    }


def command() -> str:
    """How this script was called, without the paths of this machine."""
    shown: list[str] = []
    for word in sys.argv:
        path = Path(word)
        if path.is_absolute():
            word = str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else path.name
        shown.append(word)
    return "python " + shlex.join(shown)


def report(figures: Mapping[str, Any], *, seed: int, file: Path | None) -> None:
    """Print the figures with what they depend on, and keep them."""
    whole = {"command": command(), "seed": seed, "machine": machine(), **figures}
    text = json.dumps(whole, indent=1)
    print(text)
    if file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text + "\n", encoding="utf-8")


def peak_mib() -> float:
    """Peak resident memory of this process. Not ``ru_maxrss``, which a process inherits from its parent's past."""
    with contextlib.suppress(OSError):
        found = re.search(r"VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text(encoding="utf-8"))
        if found:
            return int(found[1]) / 1024
    # in bytes on macOS, in KiB elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


# -- processes ------------------------------------------------------------------------------------


def environment(source: Path = ROOT / "src", **more: str) -> dict[str, str]:
    """The environment for a process of ours: this source, no settings or proxies of whoever runs it."""
    dropped = ("KAIZEN_", "PYTHON", "http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(dropped)}
    return {**kept, "PYTHONPATH": str(source), **more}


def server(delay: float = 0.0) -> contextlib.AbstractContextManager[str]:
    """The address of an OpenAI server in a process of its own that always gives ``ANSWER``."""
    return server_saying(json.dumps(ANSWER), delay)


@contextlib.contextmanager
def server_saying(text: str, delay: float = 0.0) -> Iterator[str]:
    """The same with a text of its own."""
    words = ["-m", "kaizen.testing.fault_server", "--reply", text, "--delay", str(delay)]
    process = subprocess.Popen([sys.executable, *words], stdout=subprocess.PIPE, text=True, env=environment())
    try:
        assert process.stdout is not None
        yield process.stdout.readline().strip()
    finally:
        process.kill()
        process.communicate()


def served(address: str) -> int:
    """How many calls a server has answered."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(f"{address}/stats", timeout=60) as reply:
        return json.load(reply)["calls"]


class Worker:
    """A process that measures on command: a line of words in, a line of JSON out."""

    def __init__(self, words: Sequence[str], env: Mapping[str, str]) -> None:
        self._process = subprocess.Popen(
            words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=dict(env)
        )

    def ask(self, *words: object) -> Any:
        """Give a command and wait for its figures."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(" ".join(map(str, words)) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise RuntimeError(self._last_words()) from None
        while line := self._process.stdout.readline():
            if line.startswith("{"):  # some libraries print
                return json.loads(line)
        raise RuntimeError(self._last_words())

    def close(self) -> None:
        """End it."""
        self._process.kill()
        self._process.communicate()

    def _last_words(self) -> str:
        self._process.kill()
        _, said = self._process.communicate()
        return said.strip().rsplit("\n", 1)[-1] or f"exit status {self._process.returncode}"


def python_of(name: str, pins: Sequence[str]) -> str:
    """The interpreter of a peer's own environment with exactly these packages asked for, made at the first call.

    Raises:
        subprocess.CalledProcessError: if it can't be made.
    """
    folder = CACHE / name
    python, done = folder / "bin" / "python", folder / "pins.txt"
    if done.is_file() and done.read_text(encoding="utf-8").split() == list(pins):
        return str(python)
    quiet: dict[str, Any] = {"check": True, "stdout": subprocess.DEVNULL}
    uv = [sys.executable, "-m", "uv"]
    subprocess.run([*uv, "venv", "--quiet", "--clear", "--python", sys.executable, str(folder)], **quiet)
    subprocess.run([*uv, "pip", "install", "--quiet", "--python", str(python), *pins], **quiet, timeout=600)
    done.write_text("\n".join(pins) + "\n", encoding="utf-8")
    return str(python)


def more_files(wanted: int = 8192) -> None:
    """Let this process and its children open so many files, where the system lets them."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


async def line() -> list[str]:
    """The words of the next command.

    It is read on the loop's own thread: while a worker waits for its turn it must do nothing at all.
    """
    await asyncio.sleep(0)
    return sys.stdin.readline().split()
