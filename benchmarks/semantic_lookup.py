"""What a look into the semantic cache costs with 100,000 questions in one space, and what the sifted index misses.

    python benchmarks/semantic_lookup.py --json out.json

The questions are made of the two halves of public ones (``--data``, as for ``semantic_cache.py``) put together at
random, so that they lie as real ones do; those asked are whole real ones. A look is all that the layer does before it
asks or answers: embed, search, read, gate, compare, bound, with 2,000 pieces of evidence. CPU time of the whole
process, its threads included. The bar is 1 ms.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import time
from pathlib import Path
from typing import Any

import numpy as np
from lab import ROOT, peak_mib, report, summary
from semantic_cache import SCOPE, asking, read_pairs

from kaizen.core.request import Reply
from kaizen.inference.exact.kept import Kept, encode
from kaizen.inference.semantic import EvidenceBook, Questions
from kaizen.inference.semantic.evidence import Sample
from kaizen.inference.semantic.likeness import FEATURES
from kaizen.providers.embed.wordllama import WordLlamaEmbedder
from kaizen.stores.cache.memory import MemoryCache
from kaizen.stores.vectors import MemoryVectors


def mixed(texts: list[str], count: int, seed: int) -> list[str]:
    rng = random.Random(seed)
    made = dict.fromkeys(texts)
    while len(made) < count:
        one, other = rng.choice(texts).split(), rng.choice(texts).split()
        made[" ".join([*one[: len(one) // 2], *other[len(other) // 2 :]])] = None
    return list(made)[:count]


async def run(options: argparse.Namespace) -> dict[str, Any]:
    pairs = read_pairs(options.data / "similar_pairs.jsonl")
    kept = mixed([origin for origin, _ in pairs], options.entries, options.seed)
    cache, index, embedder = MemoryCache(1 << 30), MemoryVectors(), WordLlamaEmbedder()
    book = EvidenceBook(cache)
    evidence, rng = await book.evidence(SCOPE), random.Random(options.seed)
    for number in range(2000):
        features = tuple(1.0 if name == "one" else rng.random() / 3 for name in FEATURES)
        evidence.add(Sample(f"p{number}", f"e{number}", "*", features, rng.random() < 0.9))
    questions = Questions(cache=cache, index=index, embedder=embedder, book=book)
    answer = encode(Kept(time.time(), 1e9, (), Reply(model="m/m", text="an answer")))
    points: dict[str, list[bytes]] = {}
    started = time.process_time()
    for text in kept:
        question = await questions.question(asking(text), text)
        points.setdefault(question.space, []).append(question.vector)
        await cache.put(SCOPE, question.key, b'""\n' + answer)
        await index.add(SCOPE, question.space, question.key, question.vector)
        questions._remember(SCOPE, question.key, text)
    filled = (time.process_time() - started) / len(kept) * 1e6
    asked = [similar for _, similar in random.Random(options.seed).sample(pairs, options.lookups)]
    rounds: list[float] = []
    searches: list[float] = []
    same, first, searched = 0.0, 0, 0
    made = [await questions.question(asking(text), text) for text in asked]
    for text in asked:
        started = time.process_time()
        await questions.nearest(asking(text), await questions.question(asking(text), text))
        rounds.append((time.process_time() - started) * 1000)
    for question in made:
        started = time.process_time()
        await index.search(SCOPE, question.space, question.vector, 8)
        searches.append((time.process_time() - started) * 1000)
    # apart from what is timed: this fills the processor's caches with other things, and its threads go on spinning
    for question in made:
        found = await index.search(SCOPE, question.space, question.vector, 8)
        if question.space not in points:
            continue
        asked_points = np.frombuffer(b"".join(points[question.space]), np.float32).reshape(-1, 256)
        exact = np.sort(asked_points @ np.frombuffer(question.vector, np.float32))[-8:]
        same += sum(one.similarity >= exact[0] - 1e-6 for one in found) / len(exact)
        first += abs(found[0].similarity - exact[-1]) < 1e-6
        searched += 1
    return {
        "entries": len(kept),
        "lookups": len(asked),
        "look_cpu_ms": {**summary(rounds, 3), "mean": round(sum(rounds) / len(rounds), 3)},
        "search_cpu_ms": summary(searches, 3),
        "largest_space": max(map(len, points.values())),
        "found_of_eight_nearest": round(same / searched, 4),
        "nearest_found": round(first / searched, 4),
        "add_cpu_us": round(filled, 1),
        "peak_mib": round(peak_mib()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data" / "qqp_pairs")
    parser.add_argument("--entries", type=int, default=100_000)
    parser.add_argument("--lookups", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    report(asyncio.run(run(options)), seed=options.seed, file=options.json)


if __name__ == "__main__":
    main()
