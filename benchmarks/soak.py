"""The long proofs, about twenty minutes: `make soak`.

    python benchmarks/soak.py [--minutes 20] [--json out.json]

* `records`: a process that reports what it kept is killed (`SIGKILL`) at random, over and over; nothing it reported may
  be missing, and the file has to be whole.
* `batch`: a batch of 1,000 rows is killed three times and resumed, with another seed each time; each row once.
* `parse`: replies made from valid ones by cutting, doubling and changing pieces, in the three output modes. A parsed
  one has to fit the contract, any other has to be a `Misfit`: no other exception, no invented value. A reply that is a
  valid one inside fences or prose has to be read as exactly that.
* `crowd`: 10,000 calls at once, again and again in one process: what memory grows by after the first three crowds.

A third of the time each goes to the kills of records, the batches and the rest.
"""

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Literal

from concurrency import PEAK_MIB
from lab import ROOT, environment, more_files, report, server
from structured_call import worker

from kaizen import Signature, context
from kaizen.core.spec import dump
from kaizen.programs.prompt.parse import Misfit, parse

MOST_GROWTH_MIB = 20.0
TEAMS = ("cards", "transfers", "accounts")
PIECES = (
    "{",
    "}",
    "[",
    "]",
    '"',
    ":",
    ",",
    "null",
    "1e999",
    "\\u0000",
    "</team>",
    "<team>",
    "```",
    "\ud83d",
    "-0",
    "5",
)


class Triage(Signature):
    """Name the team that owns a bank customer's message, and how urgent it is."""

    message: str = context.input("what the customer wrote")
    team: Literal["cards", "transfers", "accounts"] = context.output("the team that owns it")
    urgency: int = context.output("1 can wait .. 5 now", ge=1, le=5)
    reasons: list[str] = context.output("why", max_length=3)


def valid(rng: random.Random) -> dict[str, Any]:
    reasons = ["".join(rng.choices('ab {}"\\<>\n', k=rng.randrange(8))) for _ in range(rng.randrange(3))]
    return {"team": rng.choice(TEAMS), "urgency": rng.randint(1, 5), "reasons": reasons}


def spoiled(text: str, rng: random.Random) -> str:
    for _ in range(rng.randint(1, 4)):
        at, end = sorted((rng.randrange(len(text) + 1), rng.randrange(len(text) + 1)))
        match rng.randrange(4):
            case 0:
                text = text[:at] + text[end:]
            case 1:
                text = text[:at] + text[at:end] * 2 + text[end:]
            case 2:
                text = text[:at] + rng.choice(PIECES) + text[at:]
            case _:
                text = text[:at] + rng.choice(PIECES) + text[end:]
    return text


def fuzz(seconds: float, rng: random.Random) -> dict[str, Any]:
    """Misread replies and foreign exceptions; there may be none of either."""
    counts = {"replies": 0, "parsed": 0, "misfits": 0, "misread": 0, "foreign": 0}
    examples: list[str] = []
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        counts["replies"] += 1
        values = valid(rng)
        whole, mode = json.dumps(values), rng.choice(("schema", "json", "text"))
        if mode == "text":
            whole = "".join(f"<{k}>{v if isinstance(v, str) else json.dumps(v)}</{k}>\n" for k, v in values.items())
        intact = rng.random() < 0.2
        text = rng.choice((f"```json\n{whole}\n```", f"Here you are:\n{whole}\nAnything else?", whole))
        text = text if intact else spoiled(text, rng)
        try:
            found = parse(Triage.spec, text, mode)
            dump(found)  # what is parsed can be kept
        except Misfit:
            counts["misfits"] += 1
            wrong = intact
        except Exception as error:  # noqa: BLE001 - the very thing that is looked for
            counts["foreign"] += 1
            examples.append(f"{type(error).__name__}: {text!r}")
            continue
        else:
            counts["parsed"] += 1
            fits = found["team"] in TEAMS and type(found["urgency"]) is int and 1 <= found["urgency"] <= 5
            fits = fits and isinstance(found["reasons"], list) and len(found["reasons"]) <= 3
            wrong = not fits or (intact and found != values)
        if wrong:
            counts["misread"] += 1
            examples.append(f"{mode}: {text!r}")
    return {**counts, "examples": examples[:5], "met": counts["misread"] == counts["foreign"] == 0}


def script(name: str, *words: str) -> dict[str, Any]:
    """Run a benchmark; its figures, with how it ended."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "out.json"
        run = subprocess.run(
            [sys.executable, str(ROOT / "benchmarks" / f"{name}.py"), "--json", str(file), *words],
            env=environment(),
            stdout=subprocess.DEVNULL,
        )
        figures = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    return {"exit_status": run.returncode, **figures}


def batches(seconds: float, rng: random.Random) -> dict[str, Any]:
    end, rounds = time.monotonic() + seconds, list[dict[str, Any]]()
    while not rounds or time.monotonic() < end:
        rounds.append(script("batch_kill", "--seed", str(rng.randrange(1 << 30))))
    bad = [one for one in rounds if one["exit_status"]]
    return {"batches": len(rounds), "kills": sum(one.get("kills", 0) for one in rounds), "bad": bad, "met": not bad}


def kills(seconds: float, rng: random.Random) -> dict[str, Any]:
    count = max(10, round(seconds))  # one takes about a second, its process's start included
    figures = script("records", "--seed", str(rng.randrange(1 << 30)), "--seconds", "2", "--kills", str(count))
    found = figures.get("kill", {})
    good = found.get("lost") == 0 and found.get("halves") == 0 and found.get("integrity") == "ok"
    return {**found, "met": good and found["kills"] == count}


def crowds(seconds: float) -> dict[str, Any]:
    more_files()
    peaks: list[float] = []
    failed, end = 0, time.monotonic() + seconds
    with tempfile.TemporaryDirectory() as folder, server(0.05) as address:
        one = worker("kaizen", f"{address}/v1", Path(folder) / "home")
        try:
            while len(peaks) < 4 or time.monotonic() < end:
                figures = one.ask("crowd", 10_000, 120)
                failed += 10_000 - figures["answered"]
                peaks.append(figures["peak_mib"])
        finally:
            one.close()
    growth = round(peaks[-1] - peaks[2], 1)
    met = not failed and growth < MOST_GROWTH_MIB and peaks[-1] < PEAK_MIB
    return {"crowds": len(peaks), "failed": failed, "peak_mib": peaks[-1], "growth_mib": growth, "met": met}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--json", type=Path, help="where the results go")
    parser.add_argument("--seed", type=int, default=7)
    options = parser.parse_args()
    rng, third = random.Random(options.seed), options.minutes * 20
    result: dict[str, Any] = {}
    for name, part in (
        ("parse", lambda: fuzz(third / 2, rng)),
        ("crowd", lambda: crowds(third / 2)),
        ("records", lambda: kills(third, rng)),
        ("batch", lambda: batches(third, rng)),
    ):
        result[name] = part()
        print(f"{name}: {'met' if result[name]['met'] else 'NOT MET'}", flush=True)
    good = all(part["met"] for part in result.values())
    report({"minutes": options.minutes, **result, "met": good}, seed=options.seed, file=options.json)
    return 0 if good else 1


if __name__ == "__main__":
    raise SystemExit(main())
