"""How many calls the strong model must answer for 95 % of its accuracy, when a router chooses.

    python benchmarks/router.py --data ../shared/data

The rows say which of two models answered each of 1,319 school problems rightly (GSM8K; RouteLLM's evaluation data).
Ten parts; the prompts of each are ordered by a router trained on the other nine, which finds its own strengths by
cross-validation on those nine alone. The share is read off all 1,319 together; its interval is a percentile bootstrap
over prompts, and the whole is done for several deals into parts. Beside it: prompts at random, by their length (no
training), nearest neighbours on WordLlama (same parts), the oracle, and what RouteLLM's authors claim for theirs.
``--file`` takes any other file of that kind.
"""

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # many small products: threads only wait for each other

import argparse
import asyncio
import time
from pathlib import Path
from typing import Any

import lab
import numpy as np
from shares import bootstrap, random_share

from kaizen.core.errors import KaizenError
from kaizen.inference.route.rows import read, with_points
from kaizen.inference.route.training import (
    Example,
    Training,
    folds,
    predictions,
    share_needed,
    train,
)
from kaizen.providers.embed.wordllama import WordLlamaEmbedder

SEED = 0
CLAIMED = 0.65  # RouteLLM's own figure for this data


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    data = os.environ.get("KAIZEN_DATA", str(lab.ROOT.parent / "shared" / "data"))
    parser.add_argument("--data", type=Path, default=Path(data), help="folder of the public sets")
    parser.add_argument("--file", type=Path, help="another file of right and wrong answers")
    parser.add_argument("--deals", type=int, default=3, help="deals into ten parts")
    parser.add_argument("--json", type=Path, default=lab.RESULTS / "router.json")
    options = parser.parse_args()
    table = read(options.file or options.data / "routellm_gsm8k" / "gsm8k_correctness.jsonl")
    examples, embedder = asyncio.run(with_points(table.examples, WordLlamaEmbedder()))
    rates = {model: float(np.mean([one.right[model] for one in examples])) for model in table.models}
    weak, strong = min(rates, key=lambda ref: rates[ref]), max(rates, key=lambda ref: rates[ref])
    right = {model: np.array([one.right[model] for one in examples]) for model in (weak, strong)}
    figures: dict[str, Any] = {
        "rows": len(examples),
        "weak": [weak, round(rates[weak], 4)],
        "strong": [strong, round(rates[strong], 4)],
        "random": round(random_share(right[weak], right[strong]), 4),
    }
    low, high = right[weak], right[strong]
    figures["length"] = share(np.array([float(len(one.prompt.text)) for one in examples]), low, high)
    figures["oracle"] = share(high - low, low, high)
    figures["routellm_claims"] = CLAIMED if options.file is None else None
    surface = [Example(one.prompt.__class__(one.prompt.text, one.prompt.traits), one.right) for one in examples]
    rounds: dict[str, list[Any]] = {"neighbours": [], "router": [], "router_without_embedding": []}
    for deal in range(options.deals):
        rounds["neighbours"].append(neighbours(examples, low, high, deal))
        for name, some, ref in (("router", examples, embedder), ("router_without_embedding", surface, None)):
            begun = time.process_time()
            found = predictions(some, Training(embedder=ref, seed=deal))
            columns = list(some[0].right)
            gain = found[:, columns.index(strong)] - found[:, columns.index(weak)]
            seconds = {"cpu_seconds": round(time.process_time() - begun, 1)}
            rounds[name].append(share(gain, low, high) | seconds)
            print(name, deal, rounds[name][-1], flush=True)
    for name, some in rounds.items():
        figures[name] = {"mean": round(float(np.mean([one["share"] for one in some])), 4), "deals": some}
    router = train(examples, Training(embedder=embedder))
    figures["trust"] = dict(zip(router.parts.names, [round(float(one), 3) for one in router.trust], strict=True))
    begun = time.perf_counter()
    for one in examples[:200]:
        router.right(one.prompt)
    figures["ms_a_prompt"] = round((time.perf_counter() - begun) * 5, 2)
    figures["readme"] = [
        {
            "what": "share of calls a strong model must answer for 95 % of its accuracy",
            "measured": f"{figures['router']['mean']:.0%}",
            "against": f"by length {figures['length']['share']:.0%}, at random {figures['random']:.0%}",
        }
    ]
    if options.file is not None:
        del figures["readme"]
    lab.report(figures, seed=SEED, file=options.json)


def share(order: Any, weak: Any, strong: Any) -> dict[str, Any]:
    """The share that is needed in this order, with its interval."""
    low, high = bootstrap(order, weak, strong)
    return {"share": round(share_needed(order, weak, strong), 4), "low": round(low, 4), "high": round(high, 4)}


def neighbours(examples: list[Example], weak: Any, strong: Any, deal: int, k: int = 20) -> dict[str, Any]:
    """By the mean gain of the ``k`` prompts that are nearest in WordLlama's space, of the other parts."""
    points = np.array([np.frombuffer(one.prompt.point or b"", "<f4") for one in examples])
    gain = np.zeros(len(examples))
    for fold in folds(len(examples), 10, deal + 1):
        near = np.argsort(-(points[fold] @ points[~fold].T), axis=1)[:, :k]
        gain[fold] = (strong - weak)[~fold][near].mean(1)
    return share(gain, weak, strong)


if __name__ == "__main__":
    try:
        main()
    except KaizenError as error:
        raise SystemExit(f"error: {error}") from None
