"""What the layers save on one traffic, together and one by one, and what it does to the answers.

Every run sends the same calls through a gateway of its own to the scripted upstream, which knows what is right and
counts what it was asked: calls, tokens and dollars are the upstream's own count, quality is the share of right answers.
The baseline asks the strong model for everything, as the callers would without a gateway.

    python benchmarks/workload/savings.py --calls 3000 --json benchmarks/results/savings.json
"""

import argparse
import http.client
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path[:0] = [str(HERE), str(HERE.parent)]

import lab  # noqa: E402
from traffic import DATA, PRICES, STRONG, STRONG_COLUMN, WEAK, WEAK_COLUMN, Call, calls, items, right, sums  # noqa: E402

LAYERS = ("exact", "semantic", "compress", "route")
MATCHED = 0.02  # how much lower the share of right answers may be, its interval included


def free_port() -> int:
    import socket

    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def settings(on: tuple[str, ...], upstream: int, router: Path | None) -> str:
    lines = [
        'model = "up/large"',
        "[providers.up]",
        'kind = "openai"',
        f'base_url = "http://127.0.0.1:{upstream}/v1"',
        'api_key = "none"',
    ]
    for name, (paid, written) in PRICES.items():
        lines += [f'[models."up/{name}"]', f"input_usd_per_mtok = {paid}", f"output_usd_per_mtok = {written}"]
    for layer in LAYERS:
        lines += [f"[inference.{layer}]", f"enabled = {'true' if layer in on else 'false'}"]
        if layer == "route" and layer in on:
            lines += [f'candidates = ["up/{WEAK}", "up/{STRONG}"]']
            lines += [f'router = "{router}"'] if router else []
        if layer == "compress" and layer in on:
            lines += ["sample = 0.1", "risk = 0.05"]  # evidence is gathered as it goes, and its calls are paid for
    return "\n".join(lines) + "\n"


def wait_for(port: int, path: str, process: subprocess.Popen) -> None:
    for _ in range(200):
        if process.poll() is not None:
            raise SystemExit(f"{path}: the server ended with {process.returncode}")
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=1)
            return
        except OSError:
            time.sleep(0.05)
    raise SystemExit(f"{path}: nothing answers")


def train_router(folder: Path, seed: int) -> Path:
    """A router trained on questions of all three kinds, none of which is in the traffic."""
    file, out = folder / "train.jsonl", folder / "router.json"
    rows = [
        {"prompt": row["prompt"], f"up/{WEAK}": row[WEAK_COLUMN], f"up/{STRONG}": row[STRONG_COLUMN]}
        for row in sums()[1]
    ]
    known = {item.key for item in items(seed)}
    others = [item for item in items(seed + 1000) if item.kind != "sum" and item.key not in known]
    rows += [{"prompt": one.wordings[0], f"up/{WEAK}": one.weak, f"up/{STRONG}": one.strong} for one in others]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    run_kaizen(folder, "route", "train", str(file), "--output", str(out))
    return out


def run_kaizen(folder: Path, *words: str) -> str:
    command = [str(Path(sys.executable).with_name("kaizen")), *words]
    return subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True).stdout


def body(call: Call, on: tuple[str, ...]) -> dict:
    asked: dict = {
        "prompt": call.prompt,
        "model": f"up/{STRONG}",
        "temperature": 0,
        "max_tokens": 200,
        "task_type": call.item.kind,
    }
    if "route" in on:
        asked |= {"routing_mode": "guided", "quality_preference": "high"}
    if "compress" in on:
        asked["optimize_tokens"] = True
    if "semantic" in on:
        asked["cache"] = {"semantic": True}
    return asked


def drive(port: int, key: str, traffic: list[Call], on: tuple[str, ...], at_once: int) -> list[dict]:
    """Send all calls in order, so many at once."""
    answers: list[dict] = [{}] * len(traffic)
    waiting = iter(range(len(traffic)))
    headers = {"authorization": f"Bearer {key}", "content-type": "application/json"}
    taking = threading.Lock()

    def work() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
        while True:
            with taking:
                place = next(waiting, None)
            if place is None:
                connection.close()
                return
            begun = time.perf_counter()
            connection.request("POST", "/api/v1/infer", json.dumps(body(traffic[place], on)), headers)
            reply = connection.getresponse()
            told = json.loads(reply.read())
            if reply.status != 200:
                raise RuntimeError(f"{reply.status}: {told}")
            answers[place] = {**told, "ms": (time.perf_counter() - begun) * 1000}

    with ThreadPoolExecutor(at_once) as pool:
        for done in [pool.submit(work) for _ in range(at_once)]:
            done.result()
    return answers


def measure(name: str, on: tuple[str, ...], traffic: list[Call], args: argparse.Namespace, router: Path | None) -> dict:
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        upstream, gateway = free_port(), free_port()
        (folder / "kaizen.toml").write_text(settings(on, upstream, router), encoding="utf-8")
        key = run_kaizen(folder, "keys", "create", "--tenant", "bench").split()[-1]
        up = subprocess.Popen(
            [sys.executable, str(HERE / "upstream.py"), str(upstream), str(args.seed), str(args.latency)]
        )
        served = subprocess.Popen(
            [str(Path(sys.executable).with_name("kaizen")), "serve", "--port", str(gateway)],
            cwd=folder, stdout=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            wait_for(upstream, "/counts", up)
            wait_for(gateway, "/health/live", served)
            begun = os.times().elapsed
            answers = drive(gateway, key, traffic, on, args.at_once)
            seconds = os.times().elapsed - begun
            counts = json.load(urllib.request.urlopen(f"http://127.0.0.1:{upstream}/counts"))
        finally:
            served.terminate()
            up.terminate()
            served.wait(10)
            up.wait(10)
    return report(name, on, traffic, answers, counts, seconds)


def report(
    name: str, on: tuple[str, ...], traffic: list[Call], answers: list[dict], counts: dict, seconds: float
) -> dict:
    correct = [right(call.item, answer["text"]) for call, answer in zip(traffic, answers, strict=True)]
    usd = sum(
        (counts.get(f"{model} in", 0) * paid + counts.get(f"{model} out", 0) * written) / 1e6
        for model, (paid, written) in PRICES.items()
    )
    kinds = sorted({call.item.kind for call in traffic})
    by_kind = {
        kind: statistics.fmean(ok for ok, call in zip(correct, traffic, strict=True) if call.item.kind == kind)
        for kind in kinds
    }
    tiers = Counter(
        answer["cache"]["tier"] if isinstance(answer.get("cache"), dict) else answer.get("cache") for answer in answers
    )
    return {
        "name": name,
        "layers": list(on),
        "upstream": {
            "calls": sum(counts.get(f"{model} calls", 0) for model in PRICES),
            "strong_calls": counts.get(f"{STRONG} calls", 0),
            "tokens_in": sum(counts.get(f"{model} in", 0) for model in PRICES),
            "tokens_out": sum(counts.get(f"{model} out", 0) for model in PRICES),
            "usd": round(usd, 4),
            "unknown": counts.get("unknown", 0),  # questions that came in other words than were sent
        },
        "right": statistics.fmean(correct),
        "right_by_kind": by_kind,
        "tiers": dict(tiers),
        "ms_p50": statistics.median(answer["ms"] for answer in answers),
        "seconds": seconds,
        "_correct": correct,
    }


def against(run: dict, base: dict, seed: int) -> None:
    """The saving beside the difference in quality, which is paired: the same calls in both runs."""
    pairs = list(zip(run["_correct"], base["_correct"], strict=True))
    differences = [int(mine) - int(theirs) for mine, theirs in pairs]
    rng = random.Random(seed)
    means = sorted(statistics.fmean(rng.choices(differences, k=len(differences))) for _ in range(1000))
    run["saved"] = 1 - run["upstream"]["usd"] / base["upstream"]["usd"]
    run["quality"] = {"difference": statistics.fmean(differences), "low": means[25], "high": means[974]}
    run["matched"] = means[25] > -MATCHED


def plan() -> list[tuple[str, tuple[str, ...]]]:
    alone = [(f"{layer} alone", (layer,)) for layer in LAYERS]
    without = [(f"all but {layer}", tuple(other for other in LAYERS if other != layer)) for layer in LAYERS]
    return [("none", ()), *alone, ("all", LAYERS), *without]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=3000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--at-once", type=int, default=8)
    parser.add_argument("--latency", type=float, default=0.005, help="seconds that the upstream takes")
    parser.add_argument("--only", nargs="*", help="names of runs")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    if not (DATA / "qqp_pairs").is_dir():
        raise SystemExit(f"no data sets in {DATA}: KAIZEN_DATA names their folder")
    traffic = calls(args.calls, args.seed)
    runs: list[dict] = []
    with tempfile.TemporaryDirectory() as place:
        router = train_router(Path(place), args.seed)
        for name, on in plan():
            if args.only and name not in ("none", *args.only):
                continue
            runs.append(measure(name, on, traffic, args, router))
            against(runs[-1], runs[0], args.seed)
            show(runs[-1])
    for run in runs:
        del run["_correct"]
    if args.json:
        items = Counter(call.item.kind for call in traffic)
        told = {
            "command": lab.command(),
            "machine": lab.machine(),
            "seed": args.seed,
            "calls": dict(items),
            "runs": runs,
        }
        together = next((run for run in runs if run["name"] == "all"), None)
        if together is not None and together["matched"] and not args.only:
            told["readme"] = [headline(together)]
        args.json.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")


def headline(run: dict) -> dict:
    quality = run["quality"]
    return {
        "what": "dollars saved by exact, semantic, compress and route together on mixed traffic with repeats",
        "measured": f"{run['saved']:.0%}",
        "against": "the strong model for every call; right answers "
        f"{100 * quality['difference']:+.1f} points ({100 * quality['low']:+.1f} .. {100 * quality['high']:+.1f})",
    }


def show(run: dict) -> None:
    up, quality = run["upstream"], run["quality"]
    print(
        f"{run['name']:>18}: {up['calls']:5} calls ({up['strong_calls']} strong), {up['tokens_in']:8,} tokens in, "
        f"${up['usd']:.3f}, saved {run['saved']:6.1%}; right {run['right']:.1%}, against the baseline "
        f"{quality['difference']:+.1%} ({quality['low']:+.1%} .. {quality['high']:+.1%})"
        f"{'' if run['matched'] else '  NOT MATCHED'}",
        flush=True,
    )


if __name__ == "__main__":
    main()
