"""What batching brings: packs of inputs on the embedded model, embeddings made together, slots of the embedded model.

    python benchmarks/batching.py --json benchmarks/results/batching.json

Packing: the same texts of SST-2 (a short prompt) and of five intents of BANKING77 (ten examples in the prompt), asked
one by one and in packs of 2, 4 and 8, by the embedded model held to the schema. Reported for each size: prompt and
written tokens, cost at the stated price, seconds and provider calls an item, the share of items that had to be asked
again alone, the accuracy with its bootstrap interval, and its difference to asking one by one on the same items.
Embeddings: calls of one text each, so many at once, with and without gathering: calls a second, and texts in a call of
the embedder. The embedder is the embedded one behind HTTP, in a process of its own; in the loop itself a call of it is
over before the next begins, and nothing can be gathered. Slots: short calls at once on the embedded model by its number
of slots, calls a second.

The data are read from KAIZEN_DATA, by default ../shared/data beside the project.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import contextlib
import json
import os
import random
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from lab import ROOT, interval, report

from kaizen import Signature, context
from kaizen.app import build
from kaizen.core.message import Message
from kaizen.core.params import Demo
from kaizen.core.protocols import Embeddings
from kaizen.core.record import RecordQuery
from kaizen.core.request import Decoding, Request, Usage
from kaizen.core.scope import LOCAL, Scope
from kaizen.inference.batch.embeddings import GatheredEmbedder
from kaizen.programs.wrap.packing import packed
from kaizen.providers.embed.wordllama import WordLlamaEmbedder
from kaizen.providers.embedded import EmbeddedProvider
from kaizen.providers.errors import Origin
from kaizen.providers.http import HttpTransport, TransportSettings
from kaizen.providers.weights import find_weights
from kaizen.settings import load_settings

DATA = Path(os.environ.get("KAIZEN_DATA", ROOT.parent / "shared" / "data"))
MODEL = "embedded/smollm2-135m"
PRICE = {"input_usd_per_mtok": 1.0, "output_usd_per_mtok": 4.0}
SIZES = (1, 2, 4, 8)


class Sentiment(Signature):
    """Say whether a sentence from a film review is positive or negative."""

    sentence: str = context.input()
    sentiment: Literal["positive", "negative"] = context.output()


class Intent(Signature):
    """Name what a bank customer's message is about."""

    message: str = context.input()
    about: Literal["card_arrival", "exchange_rate", "lost_or_stolen_card", "change_pin", "top_up_failed"] = (
        context.output()
    )


def rows(name: str, labels: Sequence[str] | None, count: int, seed: int) -> list[dict[str, str]]:
    lines = (DATA / name / "test.jsonl").read_text("utf-8").splitlines()
    found = [json.loads(line) for line in lines]
    found = [row for row in found if labels is None or row["label"] in labels]
    return random.Random(seed).sample(found, min(count, len(found)))


def demos(labels: Sequence[str], each: int, seed: int) -> tuple[Demo, ...]:
    """Examples of the training half, so many of each label, mixed."""
    lines = (DATA / "banking77" / "train.jsonl").read_text("utf-8").splitlines()
    rng, found = random.Random(seed), [json.loads(line) for line in lines]
    chosen = [row for label in labels for row in rng.sample([one for one in found if one["label"] == label], each)]
    rng.shuffle(chosen)
    return tuple(Demo({"message": row["text"]}, {"about": row["label"]}) for row in chosen)


# -- packing --------------------------------------------------------------------------------------


async def packs(program: Any, field: str, sample: list[dict[str, str]], size: int, at_once: int) -> dict[str, Any]:
    """The sample through packs of a size."""
    with tempfile.TemporaryDirectory() as home:
        tree = {"model": MODEL, "home": home, "models": {MODEL: PRICE}, "defaults": {"temperature": 0}}
        app = build(load_settings(Path(home), {}, tree))
        asked = program if size == 1 else packed(program, size=size, wait_ms=200.0)
        gate = asyncio.Semaphore(at_once)

        async def one(row: dict[str, str]) -> str:
            async with gate:
                answer: Any = await app.run(asked, {field: row["text"]})
                return next(iter(answer.outputs.values()))

        await one(sample[0])  # the model is loaded, and the prompt's head read
        before = [record async for record in app.ledger.records(app.scope, RecordQuery(kind="model"))]
        begun = time.perf_counter()
        said = await asyncio.gather(*(one(row) for row in sample))
        seconds = time.perf_counter() - begun
        whole = [record async for record in app.ledger.records(app.scope, RecordQuery(kind="model"))][len(before) :]
        programs = [record async for record in app.ledger.records(app.scope, RecordQuery(kind="program"))]
        alone = sum(record.parent_id is not None for record in programs)
        await app.close()
    count = len(sample)
    right = [float(answer == row["label"]) for answer, row in zip(said, sample, strict=True)]
    low, high = interval(right, statistics.mean)
    return {
        "size": size,
        "tokens_in": round(sum(record.tokens_in for record in whole) / count, 1),
        "tokens_out": round(sum(record.tokens_out for record in whole) / count, 1),
        "usd_per_1000": round(sum(record.cost_usd or 0.0 for record in whole) / count * 1000, 5),
        "calls": round(sum(record.attempts for record in whole) / count, 3),
        "seconds": round(seconds / count, 3),
        "asked_alone": round(alone / count, 3) if size > 1 else None,
        "accuracy": round(statistics.mean(right), 3),
        "accuracy_95": [round(low, 3), round(high, 3)],
        "right": right,
        "said": list(said),
    }


async def packing(options: argparse.Namespace) -> dict[str, Any]:
    intents = [str(label) for label in Intent.spec.output_schema["properties"]["about"]["enum"]]
    shown = Intent.using(demos=demos(intents, 2, options.seed))
    tasks = (("sst2", Sentiment, "sentence", None), ("banking77", shown, "message", intents))
    results: dict[str, Any] = {}
    for name, program, field, labels in tasks:
        sample = rows(name, labels, options.items, options.seed)
        figures: list[dict[str, Any]] = []
        for size in SIZES:
            figures.append(await packs(program, field, sample, size, size if size > 1 else 2))
            print(name, {key: value for key, value in figures[-1].items() if key not in ("right", "said")}, flush=True)
        alone = figures[0]
        for one in figures:
            differences = [own - other for own, other in zip(one["right"], alone["right"], strict=True)]
            low, high = interval(differences, statistics.mean)
            one["accuracy_against_alone"] = round(statistics.mean(differences), 3)
            one["accuracy_against_alone_95"] = [round(low, 3), round(high, 3)]
            same = [own == other for own, other in zip(one["said"], alone["said"], strict=True)]
            one["same_answer_as_alone"] = round(statistics.mean(same), 3)
        for one in figures:
            del one["right"], one["said"]
        results[name] = {"items": len(sample), "sizes": figures}
    return results


# -- embeddings -----------------------------------------------------------------------------------


class Asked(NamedTuple):
    """On whose behalf the transport asks."""

    model: str = "remote/wordllama"
    deadline: float | None = None


class Remote:
    """An embedder behind HTTP; counts its calls."""

    def __init__(self, address: str) -> None:
        self._transport = HttpTransport(address, {}, Origin("remote"), TransportSettings())
        self.calls = 0

    async def embed(self, scope: Scope, texts: Sequence[str], /) -> Embeddings:
        self.calls += 1
        async with self._transport.open("/embeddings", json.dumps(list(texts)).encode(), Asked()) as answer:
            body = json.loads(await answer.read())
        return Embeddings("remote/wordllama", body["dim"], base64.b64decode(body["data"]), Usage(body["tokens"]))


async def serve() -> None:
    """Embeds what is posted; the first line of output is the address."""
    embedder = WordLlamaEmbedder()

    async def client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(re.search(rb"content-length: (\d+)", head.lower())[1])
                made = await embedder.embed(LOCAL, json.loads(await reader.readexactly(length)))
                data = base64.b64encode(made.data).decode()
                body = json.dumps({"dim": made.dim, "data": data, "tokens": made.usage.tokens_in}).encode()
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body))
        writer.close()

    server = await asyncio.start_server(client, "127.0.0.1", 0)
    print(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
    await server.serve_forever()


@contextlib.contextmanager
def remote() -> Iterator[str]:
    """The address of such a server, in a process of its own."""
    words = [sys.executable, __file__, "--serve"]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield process.stdout.readline().strip()
    finally:
        process.kill()
        process.communicate()


async def embed_all(embedder: Any, texts: list[str], at_once: int) -> float:
    """Calls a second."""
    gate = asyncio.Semaphore(at_once)

    async def one(text: str) -> None:
        async with gate:
            await embedder.embed(LOCAL, [text])

    begun = time.perf_counter()
    await asyncio.gather(*(one(text) for text in texts))
    return len(texts) / (time.perf_counter() - begun)


async def embeddings(options: argparse.Namespace) -> list[dict[str, Any]]:
    texts = [row["text"] for row in rows("banking77", None, 1000, options.seed)]
    found: list[dict[str, Any]] = []
    with remote() as address:
        inner = Remote(address)
        await embed_all(inner, texts[:50], 1)
        for at_once in (1, 8, 64):
            alone: list[float] = []
            together: list[float] = []
            for _ in range(7):
                alone.append(await embed_all(inner, texts, at_once))
                inner.calls = 0
                together.append(await embed_all(GatheredEmbedder(inner, wait=0.002, texts=64), texts, at_once))
            gains = [a / b for a, b in zip(together, alone, strict=True)]
            low, high = interval(gains)
            found.append(
                {
                    "at_once": at_once,
                    "calls_a_second_alone": round(statistics.median(alone)),
                    "calls_a_second_gathered": round(statistics.median(together)),
                    "gain": round(statistics.median(gains), 2),
                    "gain_95": [round(low, 2), round(high, 2)],
                    "texts_in_a_call": round(len(texts) / inner.calls, 1),
                }
            )
    return found


# -- slots ----------------------------------------------------------------------------------------


async def slots(options: argparse.Namespace) -> list[dict[str, Any]]:
    weights = find_weights("smollm2-135m", Path())
    assert weights is not None, "the weights of the embedded model are not installed"
    texts = [row["text"] for row in rows("banking77", None, 24, options.seed)]
    found: list[dict[str, Any]] = []
    for count in (1, 2, 4):
        provider = EmbeddedProvider("embedded", {"smollm2-135m": weights}, slots=count, context=1024)

        async def one(text: str, provider: EmbeddedProvider = provider) -> int:
            messages = (Message.of("system", "Answer in one short sentence."), Message.of("user", text))
            asked = Request(
                scope=LOCAL, model=MODEL, messages=messages, decoding=Decoding(temperature=0, max_tokens=12)
            )
            return (await provider.complete(asked)).usage.tokens_out

        await asyncio.gather(*(one(text) for text in texts[:count]))
        rates: list[float] = []
        for _ in range(3):
            begun = time.perf_counter()
            await asyncio.gather(*(one(text) for text in texts))
            rates.append(len(texts) / (time.perf_counter() - begun))
        found.append({"slots": count, "calls_a_second": [round(rate, 2) for rate in sorted(rates)]})
    return found


async def measure(options: argparse.Namespace) -> dict[str, Any]:
    parts: dict[str, Any] = {"packing": packing, "embeddings": embeddings, "slots": slots}
    return {name: await parts[name](options) for name in options.parts.split(",")}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="where the results go")
    parser.add_argument("--items", type=int, default=96)
    parser.add_argument("--parts", default="embeddings,slots,packing")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        asyncio.run(serve())
    figures = asyncio.run(measure(options))
    report({"items": options.items, "price": PRICE, **figures}, seed=options.seed, file=options.json)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
