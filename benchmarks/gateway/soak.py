"""Two workers at half of their capacity, for long, on an upstream that fails at random.

    python benchmarks/gateway/soak.py [--minutes 10] [--json benchmarks/results/gateway_soak.json]

Of the upstream's calls 5 % are answered 503, 2 % 429, 1 % are cut off and 1 % take half a second. Asked is: does memory
stay flat, is there a record of every answer, and are the ledger's tokens those that the upstream itself has counted?
A tenth of the calls repeat one of a hundred questions, so that the exact cache has its part.
"""

import argparse
import asyncio
import http.client
import json
import os
import random
import socket
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

import uvicorn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from lab import command, machine

THREADS = 16
FLAT_MIB = 15.0  # what a worker may grow by after the first third


class Upstream:
    """Answers, fails at random, and counts the tokens of what it answered."""

    def __init__(self) -> None:
        self.rng, self.counts = random.Random(7), Counter()

    async def __call__(self, scope, receive, send) -> None:
        if scope["type"] == "lifespan":
            while (kind := (await receive())["type"]) != "lifespan.shutdown":
                await send({"type": f"{kind}.complete"})
            return await send({"type": "lifespan.shutdown.complete"})
        body, more = b"", True
        while more:
            message = await receive()
            body, more = body + message.get("body", b""), message.get("more_body", False)
        if scope["path"] == "/counts":
            return await reply(send, 200, dict(self.counts))
        drawn = self.rng.random()
        self.counts["calls"] += 1
        if drawn < 0.05:
            return await reply(send, 503, {"error": {"message": "busy"}})
        if drawn < 0.07:
            return await reply(send, 429, {"error": {"message": "slow down"}}, (b"retry-after", b"0"))
        if drawn < 0.08:
            head = [(b"content-type", b"application/json"), (b"content-length", b"5000")]
            await send({"type": "http.response.start", "status": 200, "headers": head})
            raise ConnectionResetError("cut off")
        if drawn < 0.09:
            await asyncio.sleep(0.5)
        used = {"prompt_tokens": len(body) // 4, "completion_tokens": self.rng.randrange(1, 40)}
        self.counts["in"] += used["prompt_tokens"]
        self.counts["out"] += used["completion_tokens"]
        message = {"role": "assistant", "content": "words " * used["completion_tokens"]}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        await reply(
            send, 200, {"id": "x", "object": "chat.completion", "model": "m", "choices": [choice], "usage": used}
        )
        return None


async def reply(send, status, body, *headers) -> None:
    data = json.dumps(body).encode()
    head = [(b"content-type", b"application/json"), (b"content-length", str(len(data)).encode()), *headers]
    await send({"type": "http.response.start", "status": status, "headers": head})
    await send({"type": "http.response.body", "body": data})


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def until_up(url: str) -> None:
    for _ in range(400):
        try:
            urllib.request.urlopen(url, timeout=1)  # noqa: S310 - an address of ours
            return
        except OSError:
            time.sleep(0.05)
    raise SystemExit(f"nothing answers at {url}")


def drive(port: int, key: str, seconds: float, rate: float | None) -> Counter:
    """Calls for so long, as fast as they go or at a rate; statuses."""
    headers = {"authorization": f"Bearer {key}", "content-type": "application/json"}
    begun, statuses, lock = time.monotonic(), Counter(), threading.Lock()

    def work(number: int) -> None:
        rng, mine = random.Random(number), Counter()
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        due = time.monotonic() + rng.random() * (THREADS / rate if rate else 0)
        while time.monotonic() - begun < seconds:
            if rate:
                time.sleep(max(0.0, due - time.monotonic()))
                due += THREADS / rate
            question = rng.randrange(100) if rng.random() < 0.1 else rng.random()
            messages = [{"role": "user", "content": f"What is {question}?"}]
            connection.request(
                "POST", "/v1/chat/completions", json.dumps({"model": "up/m", "messages": messages}), headers
            )
            answer = connection.getresponse()
            answer.read()
            mine[answer.status] += 1
        connection.close()
        with lock:
            statuses.update(mine)

    with ThreadPoolExecutor(THREADS) as pool:
        for done in [pool.submit(work, number) for number in range(THREADS)]:
            done.result()
    return statuses


def workers_of(pid: int) -> list[int]:
    listed = subprocess.run(["pgrep", "-P", str(pid)], capture_output=True, text=True, check=False).stdout
    return [int(one) for one in listed.split()]


def rss_mib(pid: int) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    return 0.0


def watch(pids: list[int], samples: list[tuple[float, list[float]]], ended: threading.Event) -> None:
    begun = time.monotonic()
    while not ended.wait(2.0):
        samples.append((time.monotonic() - begun, [rss_mib(pid) for pid in pids]))


async def kept(home: Path) -> Counter:
    """What the ledger has."""
    from kaizen.core.record import RecordQuery
    from kaizen.core.scope import Scope
    from kaizen.stores.sqlite import SqliteStore

    store, found = SqliteStore(home / "ledger.db"), Counter()
    async for record in store.records(Scope("soak", "dev"), RecordQuery(kind="model")):
        found[f"{record.status} {record.cache_tier}"] += 1
        if record.status == "ok" and record.cache_tier == "model":
            found["in"] += record.tokens_in
            found["out"] += record.tokens_out
    await store.close()
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--upstream", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.upstream:
        uvicorn.run(Upstream(), host="127.0.0.1", port=args.upstream, log_level="critical", access_log=False)
        return 0
    kaizen = str(Path(sys.executable).with_name("kaizen"))
    with tempfile.TemporaryDirectory() as place:
        folder, upstream, port = Path(place), free_port(), free_port()
        (folder / "kaizen.toml").write_text(
            f'model = "up/m"\n[providers.up]\nkind = "openai"\nbase_url = "http://127.0.0.1:{upstream}/v1"\n'
            'api_key = "k"\n[models."up/m"]\ninput_usd_per_mtok = 1.0\noutput_usd_per_mtok = 2.0\n'
            "[inference]\nattempts = 4\nbackoff = 0.05\n"
        )
        words = [kaizen, "keys", "create", "--tenant", "soak", "--budget-usd-per-day", "1000"]
        key = subprocess.run(words, cwd=folder, check=True, capture_output=True, text=True).stdout.split()[-1]
        up = subprocess.Popen([sys.executable, __file__, "--upstream", str(upstream)])
        served = subprocess.Popen(
            [kaizen, "serve", "--port", str(port), "--workers", "2"], cwd=folder, stdout=subprocess.DEVNULL
        )
        try:
            until_up(f"http://127.0.0.1:{upstream}/counts")
            until_up(f"http://127.0.0.1:{port}/health/live")
            statuses = drive(port, key, 10.0, None)
            capacity = sum(statuses.values()) / 10.0
            print(f"capacity {capacity:.0f} calls a second; now half of it for {args.minutes:g} minutes", flush=True)
            samples: list[tuple[float, list[float]]] = []
            ended, pids = threading.Event(), workers_of(served.pid)
            watching = threading.Thread(target=watch, args=(pids, samples, ended))
            watching.start()
            statuses += drive(port, key, args.minutes * 60, capacity / 2)
            ended.set()
            watching.join()
            counts = json.load(urllib.request.urlopen(f"http://127.0.0.1:{upstream}/counts"))
        finally:
            served.terminate()
            up.terminate()
            served.wait(60)
            up.wait(10)
        found = asyncio.run(kept(folder / ".kaizen"))
    third = samples[len(samples) // 3 :]
    half = len(third) // 2
    growth = [
        statistics.median(rss[at] for _, rss in third[half:]) - statistics.median(rss[at] for _, rss in third[:half])
        for at in range(len(pids))
    ]
    answered = sum(count for status, count in found.items() if status.startswith("ok "))
    told = {
        "command": command(),
        "machine": machine(),
        "minutes": args.minutes,
        "capacity_per_s": round(capacity),
        "statuses": {str(status): count for status, count in sorted(statuses.items())},
        "upstream": counts,
        "ledger": dict(found),
        "growth_mib": [round(one, 2) for one in growth],
        "rss_mib": [[round(one, 1) for one in rss] for _, rss in samples[:: max(1, len(samples) // 40)]],
        "bars": {
            "memory is flat": max(growth) < FLAT_MIB,
            "every answer has its record": answered == statuses[200],
            "the ledger's tokens are the upstream's": (found["in"], found["out"]) == (counts["in"], counts["out"]),
        },
    }
    print(json.dumps({key: value for key, value in told.items() if key != "rss_mib"}, indent=1))
    if args.json:
        args.json.write_text(json.dumps(told, indent=1) + os.linesep)
    return 0 if all(told["bars"].values()) else 1


if __name__ == "__main__":
    sys.exit(main())
