"""Hits and false hits of the semantic cache, beside the best threshold on similarity alone.

    python benchmarks/semantic_cache.py --data ../shared/data/qqp_pairs --json out.json --plot out.svg

``--data`` is a folder with ``similar_pairs.jsonl``: true pairs, as lines with ``origin`` and ``similar``. Two thirds of
the origins are kept in the cache; every other question is asked, so a third has no partner there. The pairs are halved
by seed, whole clusters of questions together: on one half evidence is gathered, each pair asked both ways round, on the
other half it is measured, and then the same with the halves exchanged. The real layer is driven with the embedded
embedder; a scripted model answers by meaning, so that whether two answers agree is known and not judged.
``--judge-error`` flips that share of the verdicts. How good the layer's own judge of answers is, is measured apart, on
paraphrased statements (``mock.jsonl`` of the same folder): how often it sees that two say the same, and how often it
takes a statement for the nearest other one, or for one that a rule changed.

False hits are counted among the answers given, the strictest way to count them. Right are labelled pairs, and those
of the set's unlabelled duplicates that were judged by hand to ask the same; the judgements are kept as digests in
``semantic_judgements.json``. What nobody judged counts as false, and is counted apart.

Traffic is measured without and with hard negatives (``hard_negatives.py``): several hundred questions made by rule of
those in the cache, and several hundred of our own, whose partners are put in the cache as well.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import math
import random
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from hard_negatives import RULES, changed, own, own_same
from lab import ROOT, report

from kaizen.core.message import Message
from kaizen.core.request import Options, Reply, Request, Usage
from kaizen.core.scope import Scope
from kaizen.inference.prices import PriceTable
from kaizen.inference.semantic import EvidenceBook, Questions, Rules, SemanticCache
from kaizen.inference.semantic.evidence import Evidence, Sample
from kaizen.inference.semantic.judge import agree
from kaizen.providers.embed.wordllama import WordLlamaEmbedder
from kaizen.stores.cache.memory import MemoryCache
from kaizen.stores.vectors import MemoryVectors

JUDGED = Path(__file__).with_name("semantic_judgements.json")
SCOPE = Scope("bench", "dev")
BUDGET = 0.01
THRESHOLDS = [t / 1000 for t in range(700, 1000, 5)]


def plain(text: str) -> str:
    return " ".join(re.findall(r"\w+", text.lower()))


def pair_digest(one: str, other: str) -> str:
    return hashlib.sha256("\n".join(sorted((one, other))).encode()).hexdigest()[:12]


class Truth:
    """Which questions ask the same."""

    def __init__(self, pairs: Sequence[tuple[str, str]], same: Sequence[tuple[str, str]] = ()) -> None:
        self._parents: dict[str, str] = {}
        for one, other in (*pairs, *same):
            self._parents[self.cluster(one)] = self.cluster(other)
        judged = json.loads(JUDGED.read_text(encoding="utf-8"))
        self._same, self._different = set(judged["same"]), set(judged["different"])

    def cluster(self, text: str) -> str:
        name = plain(text)
        while self._parents.setdefault(name, name) != name:
            name = self._parents[name]
        return name

    def right(self, one: str, other: str) -> bool:
        return self.cluster(one) == self.cluster(other) or pair_digest(plain(one), plain(other)) in self._same

    def judged(self, one: str, other: str) -> bool:
        digest = pair_digest(plain(one), plain(other))
        return self.cluster(one) == self.cluster(other) or digest in self._same or digest in self._different


@dataclass
class Traffic:
    """What is kept, what is asked, and what is asked beside it that has no right answer in the cache."""

    kept: list[str]
    asked: list[str]
    hard: list[tuple[str, str]]
    partners: int = 0


def halves(pairs: Sequence[tuple[str, str]], truth: Truth, seed: int) -> list[Traffic]:
    rng = random.Random(seed)
    clusters = sorted({truth.cluster(origin) for origin, _ in pairs})
    rng.shuffle(clusters)
    half = {cluster: at % 2 for at, cluster in enumerate(clusters)}
    negatives = list(own())
    rng.shuffle(negatives)
    made: list[Traffic] = []
    for number in (0, 1):
        rows = [pair for pair in pairs if half[truth.cluster(pair[0])] == number]
        random.Random(seed + number).shuffle(rows)
        kept = {plain(origin): origin for origin, _ in reversed(rows[: len(rows) * 2 // 3])}
        asked = {plain(similar): similar for _, similar in reversed(rows) if plain(similar) not in kept}
        hard = [(kind, other) for kind, _, other in changed(list(kept.values()), 400, seed) if plain(other) not in kept]
        there = {truth.cluster(text) for text in kept.values()}
        partners = sum(truth.cluster(text) in there for text in asked.values())
        # our own, once each: the one side is kept and the other asked
        used: set[str] = set()
        for kind, one, other in negatives[number::2]:
            if other not in used and other not in kept.values():
                used.update((one, other))
                kept[f"own {one}"] = one
                hard.append((kind, other))
        there = {plain(text) for text in kept.values()}
        hard = [(kind, text) for kind, text in hard if plain(text) not in there]
        made.append(Traffic(list(kept.values()), list(asked.values()), hard, partners))
    return made


# -- the layer ------------------------------------------------------------------------------------


class Model:
    """Answers every question with the question itself: what it means is looked up afterwards."""

    async def complete(self, request: Request, /) -> Reply:
        return Reply(model=request.model, text=request.messages[-1].text, usage=Usage(tokens_in=10, tokens_out=100))


class Index(MemoryVectors):
    """An index that takes in nothing while it is frozen."""

    frozen = False

    async def add(self, scope: Scope, space: str, key: str, vector: bytes, /) -> None:
        if not self.frozen:
            await super().add(scope, space, key, vector)


class Book(EvidenceBook):
    """A book that takes in nothing while it is frozen, and at most so much."""

    frozen = False
    most = 10**9

    async def add(self, scope: Scope, sample: Sample) -> None:
        evidence = await self.evidence(scope)
        if not self.frozen and len(evidence) < self.most:
            evidence.add(sample)


@dataclass
class Outcome:
    """What came of some traffic: hits with whether they were right, in order of asking."""

    hits: list[tuple[str, str, float, bool]] = field(default_factory=list)
    asked: int = 0
    near: list[tuple[float, float, str, str, bool]] = field(default_factory=list)


def asking(text: str, **options: Any) -> Request:
    return Request(scope=SCOPE, model="m/m", messages=(Message.of("user", text),), options=Options(**options))


class Bench:
    """The layer, its evidence, and the truth it is held against."""

    def __init__(self, truth: Truth, judge_error: float, seed: int) -> None:
        self.truth, self._error, self._rng = truth, judge_error, random.Random(seed)
        self.book = Book(MemoryCache(1 << 30))

    async def _agree(self, _: Scope, one: Reply, other: Reply) -> bool:
        right = self.truth.right(one.text, other.text)
        return right if self._rng.random() >= self._error else not right

    async def layer(self, kept: Sequence[str], explore: float) -> SemanticCache:
        index = Index()
        made = SemanticCache(
            Model(),  # type: ignore[arg-type]  # no stream is asked for
            questions=Questions(cache=MemoryCache(1 << 30), index=index, embedder=WordLlamaEmbedder(), book=self.book),
            prices=PriceTable({}, {}),
            rules=Rules(false_hits=BUDGET, explore=explore),
            judge=self._agree,
            draw=self._rng.random,
        )
        index.frozen = False
        for text in kept:
            await made.complete(asking(text, refresh=True))
        index.frozen = True
        return made

    async def learn(self, traffics: Sequence[Traffic], most: int) -> None:
        """Gather evidence as the layer does: all questions are asked of it, hard negatives among them."""
        self.book.frozen, self.book.most = False, most
        for traffic in traffics:
            made = await self.layer(traffic.kept, 1.0)
            texts = [*traffic.asked, *(text for _, text in traffic.hard)]
            random.Random(1).shuffle(texts)
            for text in texts:
                await made.complete(asking(text))
        self.book.frozen = True

    async def measure(self, traffic: Traffic) -> tuple[Outcome, Outcome]:
        """Questions and hard negatives, with what was learned and nothing more."""
        made = await self.layer(traffic.kept, 0.0)
        outcomes: list[Outcome] = []
        for texts in (traffic.asked, [text for _, text in traffic.hard]):
            outcome = Outcome()
            for text in texts:
                reply = await made.complete(asking(text))
                outcome.asked += 1
                if reply.tier == "semantic":
                    right = self.truth.right(text, reply.text)
                    outcome.hits.append((text, reply.text, reply.stages[0].note["similarity"], right))
            outcomes.append(outcome)
        return outcomes[0], outcomes[1]

    async def ranked(self, traffic: Traffic, texts: Sequence[str]) -> list[tuple[float, bool]]:
        """For the curve: of each question the likeliest earlier one that the gate lets pass; whether it is right."""
        made = await self.layer(traffic.kept, 0.0)
        found: list[tuple[float, bool]] = []
        for text in texts:
            request = asking(text)
            one = await made._questions.nearest(request, await made._questions.question(request, text))
            if one is not None:
                found.append((one.bound.likely, self.truth.right(text, one.kept.reply.text)))
        return found


async def similarities(truth: Truth, traffic: Traffic, texts: Sequence[str]) -> list[tuple[float, bool]]:
    """For each question the cosine of the nearest kept one, and whether that is right."""
    embedder = WordLlamaEmbedder()

    async def points(some: Sequence[str]) -> np.ndarray:
        made = await embedder.embed(SCOPE, some)
        return np.frombuffer(made.data, np.float32).reshape(-1, made.dim)

    near = (await points(texts)) @ (await points(traffic.kept)).T
    best = near.argmax(axis=1)
    return [(float(near[row, at]), truth.right(texts[row], traffic.kept[at])) for row, at in enumerate(best.tolist())]


# -- figures --------------------------------------------------------------------------------------


def binomial(wrong: int, count: int) -> tuple[float, float]:
    """The 95 % interval of a share (Clopper and Pearson, 1934), by bisection."""
    if not count:
        return 0.0, 1.0

    def at_most(k: int, p: float) -> float:
        logs = math.log(p), math.log1p(-p)
        whole = math.lgamma(count + 1)
        return sum(
            math.exp(whole - math.lgamma(i + 1) - math.lgamma(count - i + 1) + i * logs[0] + (count - i) * logs[1])
            for i in range(k + 1)
        )

    def solve(goal: float, k: int) -> float:
        low, high = 0.0, 1.0
        for _ in range(50):
            middle = (low + high) / 2
            low, high = (middle, high) if at_most(k, middle) > goal else (low, middle)
        return low

    return (solve(0.975, wrong - 1) if wrong else 0.0), (solve(0.025, wrong) if wrong < count else 1.0)


def curve(found: Sequence[tuple[float, bool]], partners: int) -> list[tuple[float, float, float]]:
    """Threshold, hit rate and share of false hits among the answers given, from strict to lax."""
    ordered = sorted(found, reverse=True)
    right, points = 0, []
    for count, (score, good) in enumerate(ordered, 1):
        right += good
        if count == len(ordered) or ordered[count][0] != score:
            points.append((score, right / partners, 1 - right / count))
    return points


def best_within(points: Sequence[tuple[float, float, float]], rate: float) -> tuple[float, float, float]:
    """The threshold with most hits among those with no more false hits than this: chosen with hindsight."""
    return max((point for point in points if point[2] <= rate), key=lambda point: point[1], default=(1.0, 0.0, 0.0))


def figures(hits: Sequence[tuple[str, str, float, bool]], partners: int, truth: Truth) -> dict[str, Any]:
    right, wrong = sum(hit[3] for hit in hits), sum(not hit[3] for hit in hits)
    low, high = binomial(wrong, len(hits))
    hit_low, hit_high = binomial(right, partners)
    return {
        "questions_with_partner": partners,
        "answers_given": len(hits),
        "hit_rate": round(right / partners, 4),
        "hit_rate_interval": [round(hit_low, 4), round(hit_high, 4)],
        "false": wrong,
        "false_rate": round(wrong / len(hits), 4) if hits else 0.0,
        "false_rate_interval": [round(low, 4), round(high, 4)],
        "false_not_judged": sum(not hit[3] and not truth.judged(hit[0], hit[1]) for hit in hits),
    }


async def fold(
    truth: Truth, learn: Sequence[Traffic], test: Traffic, options: argparse.Namespace, most: int
) -> dict[str, Any]:
    bench = Bench(truth, options.judge_error, options.seed)
    await bench.learn(learn, most)
    questions, hard = await bench.measure(test)
    stats = await bench.book.stats(SCOPE)
    kinds = Counter(kind for kind, _ in test.hard)
    texts = {text: kind for kind, text in test.hard}
    fooled = Counter(texts[hit[0]] for hit in hard.hits if not hit[3])
    return {
        "evidence": len(await bench.book.evidence(SCOPE)),
        "stats": stats["tasks"],
        "questions": questions,
        "hard": hard,
        "kinds": {kind: [fooled[kind], kinds[kind]] for kind in sorted(kinds)},
        "bench": bench,
        "samples": (await bench.book.evidence(SCOPE)).samples,
    }


async def must_hit(bench: Bench) -> dict[str, Any]:
    """Of our own pairs that ask the same, those that hit with the evidence of the last fold."""
    pairs = own_same()
    made = await bench.layer([one for one, _ in pairs], 0.0)
    missed = [other for _, other in pairs if (await made.complete(asking(other))).tier != "semantic"]
    return {"pairs": len(pairs), "hit": len(pairs) - len(missed), "missed": missed}


def read_pairs(file: Path) -> list[tuple[str, str]]:
    lines = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    return [(line["origin"], line["similar"]) for line in lines]


async def run(options: argparse.Namespace) -> dict[str, Any]:
    pairs = read_pairs(options.data / "similar_pairs.jsonl")
    truth = Truth(pairs, own_same())
    parts = halves(pairs, truth, options.seed)
    turned = halves([(similar, origin) for origin, similar in pairs], truth, options.seed)
    result: dict[str, Any] = {
        "data": f"{options.data.name}/similar_pairs.jsonl",
        "pairs": len(pairs),
        "budget": BUDGET,
        "judge_error": options.judge_error,
        "hard_negatives": sum(len(part.hard) for part in parts),
        "questions_without_partner": sum(len(part.asked) - part.partners for part in parts),
    }
    learnt = [(parts[half], turned[half]) for half in (0, 1)]
    folds = [await fold(truth, learnt[one], parts[1 - one], options, 10**9) for one in (0, 1)]
    partners = sum(part.partners for part in parts)
    without = [hit for one in folds for hit in one["questions"].hits]
    with_hard = [*without, *(hit for one in folds for hit in one["hard"].hits)]
    result["evidence"] = [one["evidence"] for one in folds]
    result["bounds"] = [one["stats"] for one in folds]
    plots: dict[str, list[tuple[float, float, float]]] = {}
    for name, hits, hard in (("without_hard_negatives", without, False), ("with_hard_negatives", with_hard, True)):
        near: list[tuple[float, bool]] = []
        gated: list[tuple[float, bool]] = []
        for at, part in enumerate(parts):
            texts = [*part.asked, *(text for _, text in part.hard if hard)]
            near += await similarities(truth, part, texts)
            gated += await folds[1 - at]["bench"].ranked(part, texts)
        found = figures(hits, partners, truth)
        baseline = curve(near, partners)
        plots[f"similarity, {name}"], plots[f"gate and likeness, {name}"] = baseline, curve(gated, partners)
        same = best_within(baseline, found["false_rate"])
        within = best_within(baseline, BUDGET)
        likely = best_within(plots[f"gate and likeness, {name}"], BUDGET)
        result[name] = {
            **found,
            "threshold_at_the_same_rate": [round(value, 4) for value in same],
            "threshold_within_budget": [round(value, 4) for value in within],
            "likeness_within_budget": [round(value, 4) for value in likely],
            "times_the_threshold_at_the_same_rate": round(found["hit_rate"] / same[1], 2) if same[1] else None,
            "times_the_threshold_within_budget": round(found["hit_rate"] / within[1], 2) if within[1] else None,
        }
        result[name]["threshold_0.95"] = [round(v, 4) for v in next(p for p in reversed(baseline) if p[0] >= 0.95)]
    result["hard_negatives_answered"] = {
        kind: [sum(one["kinds"].get(kind, [0, 0])[n] for one in folds) for n in (0, 1)]
        for kind in sorted({kind for one in folds for kind in one["kinds"]})
    }
    result["must_hit"] = await must_hit(folds[1]["bench"])
    result["by_evidence"] = [
        await by_evidence(truth, learnt, parts, options, most) for most in (0, 250, 500, 1000, 1500)
    ]
    result["promises"] = kept_promises([one["samples"] for one in folds], options.seed)
    statements = options.data / "mock.jsonl"
    if statements.exists():
        result["judge"] = await judged(read_pairs(statements), options.seed)
    if options.plot:
        options.plot.write_text(drawn(plots, result), encoding="utf-8")
    return result


async def by_evidence(
    truth: Truth,
    learnt: Sequence[Sequence[Traffic]],
    parts: Sequence[Traffic],
    options: argparse.Namespace,
    most: int,
) -> dict[str, Any]:
    folds = [await fold(truth, learnt[one], parts[1 - one], options, most) for one in (0, 1)]
    hits = [hit for one in folds for hit in (*one["questions"].hits, *one["hard"].hits)]
    found = figures(hits, sum(part.partners for part in parts), truth)
    return {"evidence": most, **{key: found[key] for key in ("hit_rate", "false", "answers_given", "false_rate")}}


def kept_promises(halves: Sequence[Sequence[Sample]], seed: int) -> list[dict[str, Any]]:
    """Evidence drawn again and again from all there is, and the rest answered by it: how often too much is false."""
    samples = [sample for half in halves for sample in half]
    rng = random.Random(seed)
    rows: list[dict[str, Any]] = []
    for size in (250, 500, 1000, 2000):
        given, wrong, over = [], [], 0
        for _ in range(60):
            drawn = rng.sample(samples, len(samples))
            evidence = Evidence(drawn[:size])
            hits = [
                one.agreed
                for one in drawn[size:]
                if evidence.bound(one.task, one.entry, np.array(one.features)).bound <= BUDGET
            ]
            given.append(len(hits) / (len(drawn) - size))
            wrong.append(hits.count(False))
            over += bool(hits) and hits.count(False) / len(hits) > BUDGET
            wrong[-1] = (wrong[-1], len(hits))
        total = sum(count for _, count in wrong)
        rows.append(
            {
                "evidence": size,
                "draws": 60,
                "share_answered": round(sum(given) / 60, 4),
                "false_rate": round(sum(bad for bad, _ in wrong) / total, 4) if total else 0.0,
                "draws_over_budget": round(over / 60, 4),
            }
        )
    return rows


async def judged(pairs: Sequence[tuple[str, str]], seed: int) -> dict[str, Any]:
    """How often the layer's judge takes two statements for the same."""
    embedder = WordLlamaEmbedder()
    rng = random.Random(seed)

    async def share(some: Sequence[tuple[str, str]]) -> list[float]:
        said = [await agree(embedder, SCOPE, Reply(model="m", text=a), Reply(model="m", text=b)) for a, b in some]
        low, high = binomial(said.count(True), len(said))
        return [round(value, 4) for value in (said.count(True) / len(said), low, high)] + [len(said)]

    points = [
        np.frombuffer((await embedder.embed(SCOPE, texts)).data, np.float32).reshape(len(pairs), -1)
        for texts in zip(*pairs, strict=True)
    ]
    near = points[0] @ points[1].T
    np.fill_diagonal(near, -1.0)
    others = [(pairs[row][0], pairs[at][1]) for row, at in enumerate(near.argmax(axis=1).tolist())]
    changed_ones = {
        name: [(text, other) for text, _ in pairs if (other := rule(text, rng)) and other != text]
        for name, rule in RULES.items()
    }
    return {
        "columns": ["said to be the same", "interval", "interval", "pairs"],
        "paraphrases": await share(pairs),
        "nearest_other": await share(others),
        "changed_by": {name: await share(some) for name, some in changed_ones.items() if len(some) > 20},
    }


def drawn(plots: Mapping[str, Sequence[tuple[float, float, float]]], result: Mapping[str, Any]) -> str:
    """The curves as SVG: share of false hits across, to 5 %, hit rate up."""
    wide, high, edge, most = 640, 400, 60, 0.05
    colours = iter(("#c0392b", "#2471a3", "#e59866", "#5dade2"))

    def at(rate: float, hits: float) -> str:
        return f"{edge + rate / most * (wide - 2 * edge):.1f},{high - edge - hits / 0.6 * (high - 2 * edge):.1f}"

    def lines() -> Iterator[str]:
        yield f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {wide} {high}" font-size="11">'
        yield f'<rect width="{wide}" height="{high}" fill="white"/>'
        for tick in range(6):
            x, y = at(tick / 100, 0).split(",")
            yield f'<text x="{x}" y="{float(y) + 16}" text-anchor="middle">{tick} %</text>'
            x, y = at(0, tick / 10).split(",")
            yield f'<text x="{float(x) - 6}" y="{y}" text-anchor="end">{tick * 10} %</text>'
        yield f'<polyline points="{at(0, 0.6)} {at(0, 0)} {at(most, 0)}" fill="none" stroke="black"/>'
        x, _ = at(BUDGET, 0).split(",")
        yield f'<polyline points="{at(BUDGET, 0)} {at(BUDGET, 0.6)}" stroke="#999" stroke-dasharray="4"/>'
        yield f'<text x="{wide / 2}" y="{high - 12}" text-anchor="middle">false hits among the answers given</text>'
        yield f'<text x="14" y="{high / 2}" transform="rotate(-90 14 {high / 2})" text-anchor="middle">hit rate</text>'
        for row, (name, points) in enumerate(plots.items()):
            colour = next(colours)
            shown = " ".join(at(rate, hits) for _, hits, rate in points if rate <= most and hits > 0.005)
            yield f'<polyline points="{shown}" fill="none" stroke="{colour}" stroke-width="1.5"/>'
            yield f'<text x="{edge + 90}" y="{30 + 14 * row}" fill="{colour}">{name.replace("_", " ")}</text>'
        for name in ("without_hard_negatives", "with_hard_negatives"):
            x, y = at(result[name]["false_rate"], result[name]["hit_rate"]).split(",")
            yield f'<circle cx="{x}" cy="{y}" r="4" fill="#117a65"><title>{name}</title></circle>'
        yield f'<text x="{edge + 90}" y="{30 + 14 * len(plots)}" fill="#117a65">dots: what the layer gives</text>'
        yield "</svg>"

    return "\n".join(lines()) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = ROOT.parent / "shared" / "data" / "qqp_pairs"
    parser.add_argument("--data", type=Path, default=default)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--judge-error", type=float, default=0.0)
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    report(asyncio.run(run(options)), seed=options.seed, file=options.json)


if __name__ == "__main__":
    main()
