"""How many calls of a cascade reach the strong model, when the embedded one answers first.

    python benchmarks/cascade.py --data ../shared/data

The cheap model is SmolLM2-135M, asked through programs. For a film sentence (sst2) it is shown worked examples, in two
prompts of different ones, and its answer is the label its log-probabilities favour. For a bank message (banking77) it
is shown the messages of the train split that lie nearest by WordLlama, and names one of their topics. Its confidence is
its own: how far the label's odds are from even, centred on the calibration part; the probability of the words it wrote.

The strong model is scripted: right in 95 of 100 messages, drawn by seed. No outside model is asked. Needed is 95 % of
its accuracy. Two shares are told: the least that would have sufficed on the test part, comparable to a router's, with a
bootstrap interval over messages; and what the threshold gives that was calibrated beforehand, on the calibration part.
Beside them: messages at random, a router trained to foresee from the message whether the cheap model will be right
(cross-validated on all messages), and, for banking77, what the nearest neighbour alone gets right with no model asked.
"""

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import argparse
import asyncio
import json
import math
import random
import tempfile
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lab
import numpy as np
from shares import bootstrap, random_share

from kaizen import Context, program
from kaizen.app import App, build
from kaizen.core.errors import KaizenError, OutputInvalid
from kaizen.core.message import Message
from kaizen.core.request import Decoding, OutputSchema, Reply
from kaizen.core.scope import LOCAL
from kaizen.inference.cascade import calibrate, confidence
from kaizen.inference.route.router import Prompt
from kaizen.inference.route.rows import with_points
from kaizen.inference.route.training import (
    Example,
    Training,
    predictions,
    share_needed,
)
from kaizen.providers.embed.wordllama import WordLlamaEmbedder
from kaizen.settings import load_settings

SEED = 7
CHEAP = "embedded/smollm2-135m"
STRONG = 0.95
TARGET = 0.95
SHOWN = 32  # worked examples in each of the two prompts for sst2: 16 did worse on the dev split
NEAR = 6  # nearest train messages shown for banking77
GREEDY = Decoding(temperature=0.0, max_tokens=24)

Ask = Callable[[Context, str], Awaitable[tuple[str, float]]]


@dataclass(frozen=True)
class Said:
    """What the cheap model said of one message."""

    text: str
    label: str
    answer: str
    sure: float

    @property
    def right(self) -> bool:
        return self.answer == self.label


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    data = os.environ.get("KAIZEN_DATA", str(lab.ROOT.parent / "shared" / "data"))
    parser.add_argument("--data", type=Path, default=Path(data), help="folder of the public sets")
    parser.add_argument("--calibrate", type=int, default=150, help="messages of each set to calibrate on")
    parser.add_argument("--test", type=int, default=250, help="messages of each set to measure on")
    parser.add_argument("--only", choices=("sst2", "banking77"))
    parser.add_argument("--json", type=Path, default=lab.RESULTS / "cascade.json")
    options = parser.parse_args()
    figures: dict[str, Any] = {"cheap": CHEAP, "strong_accuracy": STRONG, "target": TARGET}
    for name, measure in (("sst2", sst2), ("banking77", banking77)):
        if options.only in (None, name):
            figures[name] = asyncio.run(measure(options.data / name, options.calibrate, options.test))
            print(name, json.dumps(figures[name]), flush=True)
    lab.report(figures, seed=SEED, file=options.json)


# -- the cheap model ------------------------------------------------------------------------------


async def sst2(folder: Path, calibration: int, test: int) -> dict[str, Any]:
    """Film sentences: positive or negative."""
    train, rows = rows_of(folder / "train.jsonl"), rows_of(folder / "test.jsonl")
    rng = random.Random(SEED)
    some = rng.sample(rows, calibration + test)
    positive, negative = ([row for row in train if row["label"] == label] for label in ("positive", "negative"))
    sets = [
        [
            row
            for pair in zip(*(rng.sample(part, SHOWN // 2) for part in (positive, negative)), strict=True)
            for row in pair
        ]
        for _ in range(2)
    ]
    prompts = [
        turns("Classify the sentiment of each film review as positive or negative.", one, "Review: {}\nSentiment:")
        for one in sets
    ]
    labels = OutputSchema("label", {"enum": ["positive", "negative"]})

    async def ask(ctx: Context, text: str) -> tuple[str, float]:
        asked = Message.of("user", f"Review: {text}\nSentiment:")
        odds: list[float] = []
        for prompt in prompts:
            reply = await ctx.complete(
                ctx.request(CHEAP, (*prompt, asked), output=labels, decoding=GREEDY, top_logprobs=20)
            )
            odds.append(odds_of(reply))
        return "", sum(odds) / len(odds)

    found = await answers(ask, [row["text"] for row in some])
    # what the prompts add to one label, whatever the message is (Zhao et al. 2021): the median of the calibration part,
    # of which half is positive by design of the set; no label is looked at
    centre = float(np.median([odds for _, odds in found[:calibration]]))
    said = [
        Said(
            row["text"],
            row["label"],
            "positive" if odds > centre else "negative",
            1 / (1 + math.exp(-abs(odds - centre))),
        )
        for row, (_, odds) in zip(some, found, strict=True)
    ]
    return await measured(said, calibration)


async def banking77(folder: Path, calibration: int, test: int) -> dict[str, Any]:
    """Bank messages: one of 77 topics."""
    train, rows = rows_of(folder / "train.jsonl"), rows_of(folder / "test.jsonl")
    some = random.Random(SEED).sample(rows, calibration + test)
    points = await points_of([row["text"] for row in train])
    asked_points = await points_of([row["text"] for row in some])
    near = np.argsort(-(asked_points @ points.T), axis=1)[:, :NEAR]
    by_text = {row["text"]: [train[at] for at in nearest[::-1]] for row, nearest in zip(some, near, strict=True)}

    async def ask(ctx: Context, text: str) -> tuple[str, float]:
        shown = by_text[text]
        prompt = turns("Name the topic of each bank customer's message.", shown, "Message: {}\nTopic:")
        topics = OutputSchema("topic", {"enum": sorted({words(row["label"]) for row in shown})})
        messages = (*prompt, Message.of("user", f"Message: {text}\nTopic:"))
        reply = await ctx.complete(ctx.request(CHEAP, messages, output=topics, decoding=GREEDY, top_logprobs=0))
        return json.loads(reply.text), confidence(reply.logprobs, "product") or 0.0

    found = await answers(ask, [row["text"] for row in some])
    said = [
        Said(row["text"], words(row["label"]), answer, sure) for row, (answer, sure) in zip(some, found, strict=True)
    ]
    alone = [
        train[nearest[0]]["label"] == row["label"]
        for row, nearest in zip(some[calibration:], near[calibration:], strict=True)
    ]
    return await measured(said, calibration) | {"nearest_neighbour_alone": round(float(np.mean(alone)), 4)}


async def answers(ask: Ask, texts: Sequence[str]) -> list[tuple[str, float]]:
    """The cheap model's answers, each a run of a program with its records, one after the other."""

    @program
    async def cheap(ctx: Context, text: str) -> list[Any]:
        return list(await ask(ctx, text))

    with tempfile.TemporaryDirectory() as home:
        tree = {"home": home, "providers": {"embedded": {"kind": "embedded", "slots": 2, "context": 3072}}}
        app: App = build(load_settings(Path(home), {}, tree))
        found: list[tuple[str, float]] = []
        for text in texts:
            label, number = (await app.run(cheap, {"text": text})).outputs["result"]
            found.append((label, number))
        await app.close()
    return found


def turns(told: str, rows: Sequence[Mapping[str, str]], form: str) -> list[Message]:
    """Instructions and worked examples."""
    messages = [Message.of("system", told)]
    for row in rows:
        answer = json.dumps(words(row["label"]))
        messages += [Message.of("user", form.format(row["text"])), Message.of("assistant", answer)]
    return messages


def words(label: str) -> str:
    """A label as a model reads it."""
    return label.replace("_", " ").lower()


def odds_of(reply: Reply) -> float:
    """The log-odds of positive against negative, at the token where they part.

    Raises:
        OutputInvalid: the model reports no log-probabilities.
    """
    for token in reply.logprobs:
        seen = dict(token.top)
        if "positive" in seen or "negative" in seen:
            least = min(seen.values())
            return seen.get("positive", least) - seen.get("negative", least)
    raise OutputInvalid("no token tells the labels apart", reply=reply.text, problem="no log-probabilities")


# -- figures --------------------------------------------------------------------------------------


async def measured(said: Sequence[Said], calibration: int) -> dict[str, Any]:
    """The shares, of the part after ``calibration``."""
    rng = random.Random(SEED)
    strong = np.array([float(rng.random() < STRONG) for _ in said])
    cheap = np.array([float(one.right) for one in said])
    sure = np.array([one.sure for one in said])
    test = slice(calibration, None)
    threshold = calibrate(list(sure[:calibration]), [one.right for one in said[:calibration]], STRONG, TARGET)
    kept = sure[test] >= threshold.confidence
    router = await routed(said, cheap, strong)
    return {
        "calibrated_on": calibration,
        "tested_on": len(said) - calibration,
        "cheap_accuracy": round(float(cheap[test].mean()), 4),
        "strong_accuracy": round(float(strong[test].mean()), 4),
        "random": round(random_share(cheap[test], strong[test], TARGET), 4),
        "router": share(router[test], cheap[test], strong[test]),
        "cascade": share(-sure[test], cheap[test], strong[test]),
        "cascade_calibrated": {
            "threshold": round(threshold.confidence, 4),
            "share": round(float(1 - kept.mean()), 4),
            "accuracy": round(float(np.where(kept, cheap[test], strong[test]).mean()), 4),
            "wanted": round(TARGET * float(strong[test].mean()), 4),
        },
    }


async def routed(said: Sequence[Said], cheap: Any, strong: Any) -> Any:
    """The gain that a router foresees, cross-validated over all messages."""
    examples = [
        Example(Prompt(one.text), {"cheap": float(low), "strong": float(high)})
        for one, low, high in zip(said, cheap, strong, strict=True)
    ]
    examples, embedder = await with_points(examples, WordLlamaEmbedder())
    found = predictions(examples, Training(embedder=embedder))
    return found[:, 1] - found[:, 0]


def share(order: Any, cheap: Any, strong: Any) -> dict[str, float]:
    """The share of strong calls that is needed in this order, with its interval."""
    low, high = bootstrap(order, cheap, strong, TARGET)
    return {"share": round(share_needed(order, cheap, strong, TARGET), 4), "low": round(low, 4), "high": round(high, 4)}


async def points_of(texts: Sequence[str]) -> Any:
    """WordLlama's points, a row a text."""
    found = await WordLlamaEmbedder().embed(LOCAL, texts)
    return np.frombuffer(found.data, "<f4").reshape(-1, found.dim)


def rows_of(file: Path) -> list[dict[str, str]]:
    """A set's rows."""
    return [json.loads(line) for line in file.read_text("utf-8").splitlines()]


if __name__ == "__main__":
    begun = time.perf_counter()
    try:
        main()
    except KaizenError as error:
        raise SystemExit(f"error: {error}") from None
    print(f"{time.perf_counter() - begun:.0f} s")
