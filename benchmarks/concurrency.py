"""10,000 structured calls started at once in one process against a server that takes 50 ms.

    python benchmarks/concurrency.py --json out.json

Each call is the whole of it (see `structured_call.py`), ours with its records and payloads in SQLite, which are counted
afterwards. The server is a process of its own. A library runs in a new process, which has made a few calls before;
`peak_mib` is the most memory that process ever held, imports included. A peer has a time limit, after which the calls
without an answer are given up and counted; so is what the library's own connection limits and time-outs let fail.

The bar for ours: none fails, peak memory under 300 MiB, CPU (all threads) under 5 s. All rounds have to meet it.
"""

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any

from lab import more_files, report, served, server
from structured_call import OURS, worker

CPU_S, PEAK_MIB = 5.0, 300.0


def crowd(name: str, options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """One library, one new process, one crowd."""
    with server(options.delay) as address:
        one = worker(name, f"{address}/v1", folder)
        try:
            before = one.ask(1, 5)["calls"]
            figures = one.ask("crowd", options.calls, options.seconds)
            if name in OURS:
                figures["kept"] = one.ask("count")
                # what the server answered, what the caller got, what lies in the ledger: all the same number
                counts = {served(address), figures["answered"] + before, figures["kept"]["program"]}
                figures["counts_agree"] = len(counts | {figures["kept"]["model"]}) == 1
        finally:
            one.close()
    return figures


def met(rounds: list[dict[str, Any]], calls: int) -> bool:
    return all(
        one["answered"] == calls and one["counts_agree"] and one["cpu_s"] < CPU_S and one["peak_mib"] < PEAK_MIB
        for one in rounds
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="where the results go")
    parser.add_argument("--calls", type=int, default=10_000)
    parser.add_argument("--delay", type=float, default=0.05, help="seconds the server takes")
    parser.add_argument("--rounds", type=int, default=3, help="of ours; a peer has one")
    parser.add_argument("--seconds", type=float, default=60, help="time limit")
    parser.add_argument("--peers", default="dspy,openai", help="default: %(default)s")
    parser.add_argument("--seed", type=int, default=7)
    options = parser.parse_args()
    more_files()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        ours = [crowd("kaizen", options, folder / f"kaizen-{number}") for number in range(options.rounds)]
        peers: dict[str, Any] = {}
        for peer in filter(None, options.peers.split(",")):
            try:
                peers[peer] = crowd(peer, options, folder / peer)
            except RuntimeError as error:
                peers[peer] = {"skipped": str(error)}
                print(f"skipped {peer}: {error}", file=sys.stderr)
    result = {"calls": options.calls, "delay_s": options.delay, "limit_s": options.seconds}
    bars = {"bar_cpu_s": CPU_S, "bar_peak_mib": PEAK_MIB, "met": met(ours, options.calls)}
    worst = {key: max(one[key] for one in ours) for key in ("cpu_s", "peak_mib")}
    others = [
        f"{peer}: {one['answered']:,} answered, {one['cpu_s']} s" for peer, one in peers.items() if "cpu_s" in one
    ]
    least = min(one["answered"] for one in ours)
    row = {
        "what": f"{options.calls:,} structured calls at once, one process, a server that takes 50 ms",
        "measured": f"{least:,} answered, {worst['cpu_s']} s, {worst['peak_mib']:.0f} MiB",
        "against": "; ".join(others),
    }
    report({**result, "kaizen": ours, "peers": peers, **bars, "readme": [row]}, seed=options.seed, file=options.json)
    return 0 if bars["met"] else 1


if __name__ == "__main__":
    raise SystemExit(main())
