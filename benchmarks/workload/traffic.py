"""The traffic of the savings report: questions that come again in other words, documents, and sums to work out.

Everything is drawn with a seed from public data sets that stay where they are. Who knows the seed and the data knows
what every call should be answered, so quality is measured and not judged.
"""

import hashlib
import json
import os
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

DATA = Path(os.environ.get("KAIZEN_DATA", Path(__file__).parents[3] / "shared" / "data"))
STRONG, WEAK = "large", "small"
# US dollars per million tokens: prompt, written.
PRICES = {STRONG: (10.0, 30.0), WEAK: (0.5, 1.5)}
# What share of the questions each model of the scripted upstream knows. Sums have measured answers of two real models.
KNOWS = {STRONG: {"faq": 0.99, "document": 0.97}, WEAK: {"faq": 0.90, "document": 0.85}}
WEAK_COLUMN, STRONG_COLUMN = "mistralai/Mixtral-8x7B-Instruct-v0.1", "gpt-4-1106-preview"
PARAGRAPHS = 4


@dataclass(frozen=True)
class Item:
    """Something that is asked.

    kind: faq, document or sum. wordings: prompts that mean the same. gold: what a right answer holds.
    weak, strong: whether each model answers it right.
    """

    key: str
    kind: str
    wordings: tuple[str, ...]
    gold: str
    weak: bool
    strong: bool


@dataclass(frozen=True)
class Call:
    """One call: which item, in which words."""

    item: Item
    prompt: str


def rows(name: str) -> list[dict]:
    with (DATA / name).open(encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def share(*words: object) -> float:
    """A number from 0 to 1 that belongs to these words."""
    digest = hashlib.blake2b(repr(words).encode(), digest_size=8).digest()
    return int.from_bytes(digest) / 2**64


def knows(key: str, kind: str) -> dict[str, bool]:
    """Which models know it: the weak one nothing that the strong one does not."""
    drawn = share("knows", key)
    return {"weak": drawn < KNOWS[WEAK][kind], "strong": drawn < KNOWS[STRONG][kind]}


def faq(count: int, rng: random.Random) -> list[Item]:
    """Pairs of questions that mean the same."""
    pairs = rng.sample(rows("qqp_pairs/similar_pairs.jsonl"), count)
    made = []
    for pair in pairs:
        key = f"faq-{int(share(pair['origin']) * 1e9):09d}"
        made.append(Item(key, "faq", (pair["origin"], pair["similar"]), f"[{key}]", **knows(key, "faq")))
    return made


def documents(count: int, rng: random.Random) -> list[Item]:
    """Questions about a paragraph among others of the same article."""
    contexts = {row["id"]: row for row in rows("squad2/contexts.jsonl")}
    by_title: dict[str, list[dict]] = {}
    for row in contexts.values():
        by_title.setdefault(row["title"], []).append(row)
    asked = [row for row in rows("squad2/questions.jsonl") if not row["impossible"]]
    made = []
    for row in rng.sample(asked, count):
        own = contexts[row["context_id"]]
        others = [other for other in by_title[own["title"]] if other["id"] != own["id"]]
        shown = [own, *rng.sample(others, min(PARAGRAPHS - 1, len(others)))]
        rng.shuffle(shown)
        text = "\n\n".join(one["text"] for one in shown)
        prompt = f"Context:\n{text}\n\nQuestion: {row['question']}"
        key = f"document-{row['context_id']}-{row['question']}"
        made.append(Item(key, "document", (prompt,), row["answers"][0], **knows(key, "document")))
    return made


def sums() -> tuple[list[Item], list[dict]]:
    """Word problems with two real models' measured correctness: half for traffic, half to train a router on."""
    every = rows("routellm_gsm8k/gsm8k_correctness.jsonl")
    traffic, training = [], []
    for row in every:
        if share("split", row["prompt"]) < 0.5:
            training.append(row)
            continue
        right = {"weak": row[WEAK_COLUMN] == "True", "strong": row[STRONG_COLUMN] == "True"}
        key = f"sum-{row['prompt']}"
        traffic.append(Item(key, "sum", (row["prompt"],), "[right]", **right))
    return traffic, training


def items(seed: int) -> list[Item]:
    rng = random.Random(seed)
    return [*faq(400, rng), *documents(300, rng), *rng.sample(sums()[0], 300)]


def calls(count: int, seed: int) -> list[Call]:
    """Calls in order: kinds by share, items by Zipf, wordings evenly."""
    rng = random.Random(seed + 1)
    kinds: dict[str, list[Item]] = {}
    for item in items(seed):
        kinds.setdefault(item.kind, []).append(item)
    weights = {kind: [1 / rank**0.9 for rank in range(1, len(of) + 1)] for kind, of in kinds.items()}
    made = []
    for kind in rng.choices(["faq", "document", "sum"], weights=[5, 3, 2], k=count):
        (item,) = rng.choices(kinds[kind], weights[kind])
        made.append(Call(item, rng.choice(item.wordings)))
    return made


def question(prompt: str) -> str:
    """What a prompt asks, without its documents and whatever its white space: a model reads past a doubled space."""
    return squeezed(prompt.rpartition("Question: ")[2])


def squeezed(text: str) -> str:
    return " ".join(text.split())


def holds_evidence(item: Item, prompt: str) -> bool:
    """Whether the answer can still be read from what was sent."""
    return squeezed(item.gold) in squeezed(prompt.rpartition("Question: ")[0])


def right(item: Item, text: str) -> bool:
    return item.gold in text


def by_question(seed: int) -> dict[str, Item]:
    return {question(wording): item for item in items(seed) for wording in item.wordings}


def tokens(texts: Sequence[str]) -> int:
    """A token for every four characters begun: the same count for every layer and every run."""
    return sum(-(-len(text) // 4) for text in texts)
