"""Train the detector of task types, and measure it.

    python benchmarks/task_types.py --data ../shared/data --write

It is trained on prompts that are made by rule from sentences written for it; nothing of a public data set enters
the weights. It is measured on prompts of other wordings, written by hand, and on public sets, where KAIZEN_DATA or
``--data`` names them: arithmetic (gsm8k), questions with and without their text (squad2, hotpotqa), and films, bank
messages and bookings (sst2, banking77, restaurant8k) under instructions that the training prompts don't have.
"""

import argparse
import asyncio
import json
import os
import random
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import lab
from task_prompts import HELD_OUT, prompts

from kaizen.core.scope import LOCAL
from kaizen.inference.route.tasks import TaskDetector, ends
from kaizen.providers.embed.wordllama import WordLlamaEmbedder

SEED = 7
EACH = 300
OF_EACH_SET = 300
WEIGHTS = lab.ROOT / "src" / "kaizen" / "inference" / "route" / "tasks.json"

Row = tuple[str, bytes, bytes]


def main() -> None:
    """Train, measure, report; with ``--write`` keep the weights."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    data = os.environ.get("KAIZEN_DATA", str(lab.ROOT.parent / "shared" / "data"))
    parser.add_argument("--data", type=Path, default=Path(data), help="folder of the public sets")
    parser.add_argument("--write", action="store_true", help=f"keep the weights in {WEIGHTS.name}")
    parser.add_argument("--json", type=Path, default=lab.RESULTS / "task_types.json")
    options = parser.parse_args()
    rng = random.Random(SEED)
    made = [(task, text) for task, text in prompts(rng, EACH)]
    detector = TaskDetector.fitted(asyncio.run(rows([text for _, text in made])), [task for task, _ in made])
    detector = TaskDetector.from_json(json.loads(json.dumps(detector.as_json())))  # as it is shipped
    figures: dict[str, Any] = {"trained_on": len(made), "labels": list(detector.labels)}
    figures["hand_written"] = measured(detector, [(task, text) for task, texts in HELD_OUT.items() for text in texts])
    if options.data.is_dir():
        for name, pairs in public(options.data, rng):
            figures[name] = measured(detector, pairs)
    if options.write:
        WEIGHTS.write_text(json.dumps(detector.as_json()) + "\n", "utf-8")
    lab.report(figures, seed=SEED, file=options.json)


async def rows(texts: Sequence[str]) -> list[Row]:
    """Texts with the points of their ends."""
    embedder = WordLlamaEmbedder()
    points = [await embedder.embed(LOCAL, ends(text)) for text in texts]
    return [
        (text, point.data[: 4 * point.dim], point.data[4 * point.dim :])
        for text, point in zip(texts, points, strict=True)
    ]


def measured(detector: TaskDetector, pairs: Sequence[tuple[str, str]]) -> dict[str, Any]:
    """Accuracy with its 95 % interval, and what was taken for what."""
    found = [detector(*row)[0] for row in asyncio.run(rows([text for _, text in pairs]))]
    right = [float(task == one) for (task, _), one in zip(pairs, found, strict=True)]
    low, high = lab.interval(right, lambda some: sum(some) / len(some))
    wrong = Counter(f"{task} as {one}" for (task, _), one in zip(pairs, found, strict=True) if task != one)
    return {
        "accuracy": round(sum(right) / len(right), 3),
        "low": round(low, 3),
        "high": round(high, 3),
        "n": len(right),
        "wrong": dict(wrong.most_common(4)),
    }


def public(data: Path, rng: random.Random) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """The public sets as prompts of a known type."""

    def some(file: str, task: str, text: Callable[[Any], str]) -> list[tuple[str, str]]:
        lines = [json.loads(line) for line in (data / file).read_text("utf-8").splitlines()]
        return [(task, text(row)) for row in rng.sample(lines, min(OF_EACH_SET, len(lines)))]

    contexts = {
        row["id"]: row["text"] for row in map(json.loads, (data / "squad2/contexts.jsonl").read_text().splitlines())
    }
    yield "gsm8k", some("gsm8k/test.jsonl", "reasoning", lambda row: row["question"])
    yield (
        "squad2",
        some(
            "squad2/questions.jsonl",
            "question answering",
            lambda row: f"{contexts[row['context_id']]}\n\n{row['question']}",
        ),
    )
    yield "hotpotqa", some("hotpotqa/dev_distractor_sample.jsonl", "question answering", lambda row: row["question"])
    yield (
        "sst2",
        some(
            "sst2/dev.jsonl",
            "classification",
            lambda row: f"Did the critic like it? Say positive or negative.\n\n{row['text']}",
        ),
    )
    yield (
        "banking77",
        some(
            "banking77/test.jsonl",
            "classification",
            lambda row: f"Pick the one intent from the list that this falls under.\nMessage: {row['text']}\nIntent:",
        ),
    )
    yield (
        "restaurant8k",
        some(
            "restaurant8k/test.jsonl",
            "extraction",
            lambda row: f"Fill in the slots people, time and date from what the guest says.\n{row['text']}",
        ),
    )


if __name__ == "__main__":
    main()
