"""How many tokens the compress layer saves, whether the evidence survives, and whether a reader still answers.

    python benchmarks/token_optimisation.py --surprisal 15 --json benchmarks/results/token_optimisation.json
    python benchmarks/token_optimisation.py --fit    # the weights of kaizen.inference.compress.scoring

Prompts. squad2: the context of an answerable question among eight others, four of the same article and four of other
ones ("mixed"), or all eight of the same article ("same"), in random order. hotpotqa: the set's own ten paragraphs with
their titles. Each prompt takes one of three forms in turn: numbered passages under "Context:" with "Question:",
documents in tags, and bare paragraphs followed by the question. Tokens are the embedded model's, counted by llama.cpp
over the whole prompt, question and instructions included.

Evidence. squad2: the sentence of the gold context that holds an answer (of several, the one that shares most words with
the question). hotpotqa: all supporting sentences. It is kept when every one of its sentences stands in the shortened
prompt to the letter.

Halves. Articles (squad2) and questions (hotpotqa) are split by the seed; the weights were fitted on the first half,
everything reported is of the second.

Reader. Not the embedded model, which answers too few of them: ``sentence_reader`` names the sentences nearest to the
question, one for squad2, seven for hotpotqa (its answers take two steps; yes/no questions are left out). It is right
when one of them holds an answer. The difference of its accuracy on the same prompts comes with a 95 % interval.
"""

import argparse
import asyncio
import json
import os
import random
import re
import statistics
import time
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from unittest.mock import patch

import lab
import numpy as np
from sentence_reader import SentenceReader, check

from kaizen.core.message import Message
from kaizen.core.request import Request
from kaizen.core.scope import LOCAL
from kaizen.inference.compress import scoring
from kaizen.inference.compress.compressor import LEVELS, WORD_LEVEL, Compressor, Level
from kaizen.inference.compress.scoring import FEATURES, Passage
from kaizen.inference.compress.words import sentences, terms
from kaizen.providers.embed.wordllama import WordLlamaEmbedder
from kaizen.providers.llama import default_threads
from kaizen.providers.surprisal.reading import LlamaSurprisal
from kaizen.providers.weights import find_weights

DATA = Path(os.environ.get("KAIZEN_DATA", lab.ROOT.parent / "shared" / "data"))
TOLD = "Answer the question from the text. Give the shortest answer that is right."
FORMS = ("labels", "tags", "bare")
BAR = {"saved": 0.30, "kept": 0.99, "loss": 0.01}


@dataclass(frozen=True)
class Case:
    """A question, its passages (title and sentences), where the evidence stands, and the answers."""

    set: str
    question: str
    answers: tuple[str, ...]
    passages: tuple[tuple[str, tuple[str, ...]], ...]
    evidence: frozenset[tuple[int, int]]
    form: str

    def prompt(self) -> str:
        """The text of the user's message."""
        texts = ["".join(found).strip() for _, found in self.passages]
        titles = [title for title, _ in self.passages]
        match self.form:
            case "labels":
                heads = [f"[{at}] {title}\n" if title else f"[{at}] " for at, title in enumerate(titles, 1)]
                body = "\n\n".join(head + text for head, text in zip(heads, texts, strict=True))
                return f"{TOLD}\n\nContext:\n{body}\n\nQuestion: {self.question}\nAnswer:"
            case "tags":
                inner = [
                    (f"Title: {title}\n" if title else "") + text for title, text in zip(titles, texts, strict=True)
                ]
                body = "\n".join(f"<document>\n{one}\n</document>" for one in inner)
                return f"<documents>\n{body}\n</documents>\n<question>{self.question}</question>\n{TOLD}"
            case _:
                inner = [(f"{title}\n" if title else "") + text for title, text in zip(titles, texts, strict=True)]
                return "\n\n".join([TOLD, *inner, self.question])


def squad(seed: int, near: int, far: int, name: str) -> tuple[list[Case], list[Case]]:
    """The two halves, by article."""
    rng = random.Random(seed)
    contexts = {one["id"]: one for one in rows("squad2/contexts.jsonl")}
    by_title: dict[str, list[int]] = {}
    for key, one in contexts.items():
        by_title.setdefault(one["title"], []).append(key)
    titles = sorted(by_title)
    rng.shuffle(titles)
    first = set(titles[: len(titles) // 2])
    halves: tuple[list[Case], list[Case]] = ([], [])
    for number, row in enumerate(one for one in rows("squad2/questions.jsonl") if not one["impossible"]):
        gold = row["context_id"]
        title = contexts[gold]["title"]
        others = [key for key in by_title[title] if key != gold]
        strange = [key for key, one in contexts.items() if one["title"] != title]
        ids = [gold, *rng.sample(others, near), *rng.sample(strange, far)]
        rng.shuffle(ids)
        passages = tuple(("", tuple(sentences(contexts[key]["text"]))) for key in ids)
        found = evidence_of(row["question"], row["answers"], passages[ids.index(gold)][1])
        if found is not None:
            place = frozenset({(ids.index(gold), found)})
            case = Case(name, row["question"], tuple(row["answers"]), passages, place, FORMS[number % 3])
            halves[title not in first].append(case)
    for half in halves:
        rng.shuffle(half)
    return halves


def evidence_of(question: str, answers: Sequence[str], found: Sequence[str]) -> int | None:
    """The sentence with an answer that shares most words with the question; None where one spans two sentences."""
    asked = set(terms(question))
    holds = [at for at, one in enumerate(found) if any(answer.lower() in one.lower() for answer in answers)]
    return max(holds, key=lambda at: (len(asked & set(terms(found[at]))), -at)) if holds else None


def hotpot(seed: int) -> tuple[list[Case], list[Case]]:
    """The two halves."""
    cases: list[Case] = []
    for number, row in enumerate(rows("hotpotqa/dev_distractor_sample.jsonl")):
        titles, told = row["context"]["title"], row["context"]["sentences"]
        facts = zip(row["supporting_facts"]["title"], row["supporting_facts"]["sent_id"], strict=True)
        places = frozenset((titles.index(title), at) for title, at in facts if at < len(told[titles.index(title)]))
        passages = tuple((title, tuple(one)) for title, one in zip(titles, told, strict=True))
        cases.append(Case("hotpotqa", row["question"], (row["answer"],), passages, places, FORMS[number % 3]))
    random.Random(seed).shuffle(cases)
    return cases[: len(cases) // 2], cases[len(cases) // 2 :]


def rows(file: str) -> Iterator[dict]:
    """A data file's rows."""
    with (DATA / file).open(encoding="utf-8") as lines:
        yield from map(json.loads, lines)


class Counter:
    """Counts tokens with the embedded model's own tokenizer."""

    def __init__(self) -> None:
        import xllamacpp  # here: --fit needs none of it

        params = xllamacpp.CommonParams()
        params.model.path = str(find_weights("smollm2-135m", Path()))
        params.n_ctx, params.n_parallel, params.verbosity, params.ui = 64, 1, -1, False
        params.api_keys = ["count"]
        self._server = xllamacpp.Server(params)
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        self._known: dict[str, int] = {}

    def __call__(self, text: str) -> int:
        """Tokens of a text."""
        if text not in self._known:
            headers = {"authorization": "Bearer count", "content-type": "application/json"}
            body = json.dumps({"content": text}).encode()
            request = urllib.request.Request(  # noqa: S310 - our own server on loopback
                f"{self._server.listening_address}/tokenize", body, headers
            )
            with self._opener.open(request, timeout=60) as reply:  # loopback
                self._known[text] = len(json.load(reply)["tokens"])
        return self._known[text]


class Readers:
    """What a reader answers to each prompt, right or wrong."""

    def __init__(self) -> None:
        self._reader = SentenceReader()

    def right(self, case: Case, text: str) -> bool | None:
        """Whether it answers right; None where its kind of answer can't be."""
        if case.answers[0] in ("yes", "no"):
            return None
        named = self._reader.answer(case.question, without_question(case, text), 7 if case.set == "hotpotqa" else 1)
        return any(answer.lower() in one.lower() for answer in case.answers for one in named)

    def keep(self) -> None:
        """Keep what it embedded."""
        self._reader.keep()


def without_question(case: Case, text: str) -> str:
    """The material alone: a reader that may name the question would name nothing else."""
    for said in (TOLD, f"Question: {case.question}\nAnswer:", f"<question>{case.question}</question>", "Context:"):
        text = text.replace(said, "")
    text = text.removesuffix(case.question)
    return re.sub(r"</?documents?>", "", text)


def request_of(case: Case) -> Request:
    """The request of a prompt."""
    return Request(scope=LOCAL, model="mine/large", messages=(Message.of("user", case.prompt()),))


# -- strategies -----------------------------------------------------------------------------------


def flat(text: str) -> str:
    """Without differences of white space."""
    return " ".join(text.split())


def kept(case: Case, text: str) -> bool:
    """Whether all of the evidence stands in the text."""
    whole = flat(text)
    return all(flat(case.passages[passage][1][at]) in whole for passage, at in case.evidence)


class Strategy:
    """A way to shorten prompts: a level of the compressor, or one of its parts alone."""

    def __init__(
        self, name: str, level: Level, compressor: Compressor, weights: dict[str, float] | None = None
    ) -> None:
        self.name, self.level, self._compressor, self._weights = name, level, compressor, weights

    def __call__(self, case: Case) -> tuple[str, float]:
        """The shortened text, and CPU milliseconds."""
        request = request_of(case)
        with patch.object(scoring, "WEIGHTS", self._weights or scoring.WEIGHTS):
            begun = time.process_time()
            short = asyncio.run(self._compressor.shorten(request, self.level))
            spent = time.process_time() - begun
        return short.request.messages[-1].text, spent * 1000


def only(*names: str) -> dict[str, float]:
    """The weights with all features but these at zero."""
    return {name: weight if name in names else 0.0 for name, weight in scoring.WEIGHTS.items()}


def strategies(embedder: WordLlamaEmbedder) -> list[Strategy]:
    """What is compared: every level, and at one budget each part alone."""
    both, lexical = Compressor(embedder), Compressor()
    medium = LEVELS[2]
    budget = Level(medium.name, keep=medium.keep)
    links = dict.fromkeys(("title", "title_all", "named", "alike", "opens_linked", "rare", "near_top"), 0.0)
    return [
        *(Strategy(f"level {level.name}", level, both) for level in LEVELS),
        Strategy("duplicates alone", Level("duplicates", alike=medium.alike), both),
        Strategy("context, words alone (no embedder)", budget, lexical),
        Strategy("context, BM25 of the sentence alone", budget, both, only("words")),
        Strategy("context, embedding of the sentence alone", budget, both, {**only(), "meaning": 1.0}),
        Strategy("context, without links between passages", budget, both, {**scoring.WEIGHTS, **links}),
        Strategy("context, all", budget, both),
    ]


def random_sentences(case: Case, keep: float, rng: random.Random) -> str:
    """The baseline: as much of the material kept, by chance."""
    places = [(at, number) for at, (_, passage) in enumerate(case.passages) for number in range(len(passage))]
    rng.shuffle(places)
    total = keep * sum(len(one) for _, passage in case.passages for one in passage)
    kept_places: set[tuple[int, int]] = set()
    for at, number in places:
        if total > 0:
            kept_places.add((at, number))
            total -= len(case.passages[at][1][number])
    return only_with(case, kept_places)


def first_part(case: Case, keep: float) -> str:
    """The other baseline: the passages cut off at the end."""
    total = keep * sum(len(one) for _, passage in case.passages for one in passage)
    fits: set[tuple[int, int]] = set()
    for at, (_, passage) in enumerate(case.passages):
        for number, one in enumerate(passage):
            total -= len(one)
            if total >= 0:
                fits.add((at, number))
    return only_with(case, fits)


def only_with(case: Case, places: set[tuple[int, int]]) -> str:
    """The prompt with these sentences alone."""
    left = [
        (title, tuple(one for number, one in enumerate(passage) if (at, number) in places))
        for at, (title, passage) in enumerate(case.passages)
    ]
    return replace(case, passages=tuple(one for one in left if one[1])).prompt()


# -- figures --------------------------------------------------------------------------------------


def share(hits: int, of: int) -> dict[str, float | int]:
    """A share with its 95 % interval (Wilson, 1927)."""
    z, p = 1.959964, hits / of
    middle, spread = p + z * z / (2 * of), z * ((p * (1 - p) + z * z / (4 * of)) / of) ** 0.5
    low, high = (middle - spread) / (1 + z * z / of), (middle + spread) / (1 + z * z / of)
    return {"share": round(p, 4), "low": round(low, 4), "high": round(high, 4), "of": of}


def difference(before: Sequence[bool], after: Sequence[bool]) -> dict[str, float | int]:
    """The change of a share on the same cases, with its 95 % interval.

    Bootstrap over cases; where none changed, the exact bound.
    """
    change = np.array(after, dtype=float) - np.array(before, dtype=float)
    rng = np.random.default_rng(7)
    drawn = rng.choice(change, size=(4000, len(change))).mean(axis=1)
    low, high = np.quantile(drawn, [0.025, 0.975])
    least = 1 - 0.025 ** (1 / len(change)) if not change.any() else 0.0
    return {
        "points": round(100 * change.mean(), 2),
        "low": round(100 * (min(low, -least) if least else low), 2),
        "high": round(100 * (max(high, least) if least else high), 2),
        "lost": int((change < 0).sum()),
        "won": int((change > 0).sum()),
        "of": len(change),
    }


def measure(cases: Sequence[Case], ways: Sequence[Strategy], count: Counter, readers: Readers | None) -> dict:
    """Every strategy on the cases of one set."""
    before = [count(case.prompt()) for case in cases]
    whole = [readers.right(case, case.prompt()) for case in cases] if readers else []
    answered = [at for at, one in enumerate(whole) if one is not None]
    figures: dict = {"prompts": len(cases), "tokens_a_prompt": round(statistics.mean(before))}
    if readers:
        figures["reader_uncompressed"] = share(sum(bool(whole[at]) for at in answered), len(answered))

    def row(texts: Sequence[str], spent: Sequence[float] | None) -> dict:
        after = [count(text) for text in texts]
        out: dict = {
            "tokens_saved": round(1 - sum(after) / sum(before), 4),
            "evidence_kept": share(sum(map(kept, cases, texts)), len(cases)),
        }
        if readers:
            now = [readers.right(cases[at], texts[at]) for at in answered]
            out["reader"] = round(sum(map(bool, now)) / len(answered), 4)
            out["reader_change"] = difference([bool(whole[at]) for at in answered], [bool(one) for one in now])
        if spent:
            out["cpu_ms"] = {"median": round(statistics.median(spent), 2), "p95": round(np.quantile(spent, 0.95), 2)}
        return out

    for way in ways:
        done = [way(case) for case in cases]
        figures[way.name] = row([text for text, _ in done], [spent for _, spent in done])
        print(cases[0].set, way.name, json.dumps(figures[way.name]), flush=True)
    rng = random.Random(7)
    keep = LEVELS[2].keep or 1.0
    figures["baseline: random sentences"] = row([random_sentences(case, keep, rng) for case in cases], None)
    figures["baseline: the first part"] = row([first_part(case, keep) for case in cases], None)
    return figures


def read(cases: Sequence[Case], embedder: WordLlamaEmbedder, count: Counter, readers: Readers | None) -> dict:
    """The level that drops single words, beside the same share of sentences without it."""
    path = find_weights("smollm2-135m", Path())
    assert path is not None
    level = Level("sentences", keep=WORD_LEVEL.keep, alike=WORD_LEVEL.alike)
    reading = Strategy("words", WORD_LEVEL, Compressor(embedder, LlamaSurprisal(path, default_threads())))
    reading(cases[0])  # loads the model
    figures: dict = {"prompts": len(cases), "threads": default_threads()}
    for way in (Strategy("sentences", level, Compressor(embedder)), reading):
        begun = time.perf_counter()
        done = [way(case) for case in cases]
        texts = [text for text, _ in done]
        whole = sum(count(case.prompt()) for case in cases)
        held = [
            any(flat(answer) in flat(text) for answer in case.answers) for case, text in zip(cases, texts, strict=True)
        ]
        figures[way.name] = {
            "tokens_saved": round(1 - sum(map(count, texts)) / whole, 4),
            "answer_still_there": share(sum(held), len(held)),
            "wall_ms_a_prompt": round((time.perf_counter() - begun) * 1000 / len(cases)),
        }
        if readers:
            right = [
                one for case, text in zip(cases, texts, strict=True) if (one := readers.right(case, text)) is not None
            ]
            figures[way.name]["reader"] = share(sum(right), len(right))
    return figures


def fit(cases: Sequence[Sequence[Case]], embedder: WordLlamaEmbedder | None) -> dict[str, float]:
    """Logistic regression of "is evidence" on standardised features; sets weigh the same, and so do their prompts."""
    found: list[tuple[np.ndarray, np.ndarray, float]] = []
    for some in cases:
        for case in some:
            passages = [Passage(title, told) for title, told in case.passages]
            vectors = None
            if embedder:
                texts = [case.question, *(one for _, told in case.passages for one in told)]
                points = asyncio.run(embedder.embed(LOCAL, texts))
                vectors = np.nan_to_num(np.frombuffer(points.data, "<f4").reshape(len(texts), -1).astype(float))
            x = scoring.features(case.question, passages, vectors)
            spread = x.std(0)
            spread[spread == 0] = 1
            places = [(at, number) for at, (_, told) in enumerate(case.passages) for number in range(len(told))]
            y = np.array([place in case.evidence for place in places], dtype=float)
            found.append(((x - x.mean(0)) / spread, y, 1 / (len(y) * len(some))))
    x, y = np.concatenate([one for one, _, _ in found]), np.concatenate([one for _, one, _ in found])
    each = np.concatenate([np.full(len(one), weight) for _, one, weight in found])
    each /= each.mean()
    weights, bias = np.zeros(x.shape[1]), 0.0
    for _ in range(1500):
        miss = each * (1 / (1 + np.exp(-(x @ weights + bias))) - y)
        weights -= (x.T @ miss + 30 * weights) / len(y)
        bias -= miss.mean()
    return {name: round(float(weight), 2) for name, weight in zip(FEATURES, weights, strict=True)}


def main() -> None:
    """Measure, or fit."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--most", type=int, default=400, help="prompts of a set")
    parser.add_argument("--surprisal", type=int, default=0, help="prompts of a set that the embedded model reads")
    parser.add_argument("--fit", action="store_true")
    parser.add_argument("--no-reader", action="store_true")
    args = parser.parse_args()
    sets = {
        "squad2 mixed": squad(args.seed, 4, 4, "squad2"),
        "squad2 same": squad(args.seed, 8, 0, "squad2"),
        "hotpotqa": hotpot(args.seed),
    }
    embedder = WordLlamaEmbedder()
    if args.fit:
        tune = [first[:150] for first, _ in sets.values()]
        print(json.dumps({"WEIGHTS": fit(tune, embedder), "LEXICAL": fit(tune, None)}, indent=1))
        return
    count = Counter()
    readers = None if args.no_reader else Readers()
    if readers:
        check()
    figures: dict = {"bar": BAR, "reader": "all-MiniLM-L6-v2, nearest sentences: 1 (squad2), 7 (hotpotqa)"}
    ways = strategies(embedder)
    for name, (_, test) in sets.items():
        figures[name] = measure(test[: args.most], ways, count, readers)
        if args.surprisal:
            told = [case for case in test if case.answers[0] not in ("yes", "no")][: args.surprisal]
            figures[name]["surprisal"] = read(told, embedder, count, readers)
        if readers:
            readers.keep()
    lab.report(figures, seed=args.seed, file=args.json)


if __name__ == "__main__":
    main()
