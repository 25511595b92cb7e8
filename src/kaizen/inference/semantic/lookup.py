"""Earlier questions: kept with their answers, and found by what they mean."""

from __future__ import annotations

import hashlib
import threading
import time
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Final

import numpy as np
from pydantic_core import from_json, to_json

from kaizen.core.message import Media, Text
from kaizen.core.protocols import Cache, Embedder, Neighbour, VectorIndex
from kaizen.core.request import Reply, Request
from kaizen.core.scope import Scope
from kaizen.inference.exact.kept import Kept, decode, encode, stripped
from kaizen.inference.key import space_key
from kaizen.inference.semantic.book import Counts, EvidenceBook
from kaizen.inference.semantic.evidence import Bound
from kaizen.inference.semantic.gate import difference
from kaizen.inference.semantic.journal import Journal
from kaizen.inference.semantic.likeness import Floats, Pair, likeness
from kaizen.inference.semantic.reading import read

# Longer texts are documents, which nobody writes again in other words.
LONGEST: Final = 2000
# Below this cosine nothing is taken for a would-be hit.
FLOOR: Final = 0.7
ANY_TASK: Final = "*"
# Of so many nearest ones, the first few that the gate lets pass are compared.
_NEAREST: Final = 5
_COMPARED: Final = 3
# One that lies so much farther off than another that passed is never the likelier one.
_FARTHER: Final = 0.1
_TEXTS: Final = 100_000

_reading: Final = lru_cache(maxsize=8192)(read)


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked.

    Args:
        text: the words.
        space: among which others it is looked for.
        key: of its answer, in the cache and in the index.
        task: the type of task.
        vector: its point.
        gist: the point of its content words.
    """

    text: str
    space: str
    key: str
    task: str
    vector: bytes
    gist: Floats


@dataclass(frozen=True, slots=True)
class Found:
    """An earlier question that may be the same.

    Args:
        key: of its answer.
        kept: the answer.
        similarity: the cosine of the two questions.
        features: how alike they are; None where the words are the same.
        bound: what is known of such hits.
    """

    key: str
    kept: Kept
    similarity: float
    features: Floats | None
    bound: Bound


def question_text(request: Request) -> str | None:
    """The text that may be compared, or None: a conversation that ends with it and holds no media."""
    last = request.messages[-1] if request.messages else None
    if last is None or last.role != "user" or not all(isinstance(part, Text) for part in last.parts):
        return None
    if any(isinstance(part, Media) for message in request.messages[:-1] for part in message.parts):
        return None
    text = last.text
    return text if text.strip() and len(text) <= LONGEST else None


class Questions:
    """The earlier questions of all scopes.

    Args:
        cache: where answers are kept; whether one still holds, it alone says.
        index: where questions lie.
        embedder: makes points of questions and of single words.
        book: what is known of false hits.
        ttl: seconds that an answer is kept, unless the call names fewer or more.
        shared: whether all processes look into this index; else each has its own and takes in what others kept.
        place: names the cache, where one index has questions of several.
    """

    def __init__(
        self,
        *,
        cache: Cache,
        index: VectorIndex,
        embedder: Embedder,
        book: EvidenceBook,
        ttl: float = 86_400.0,
        shared: bool = False,
        place: str = "",
    ) -> None:
        self.cache, self.embedder, self.book = cache, embedder, book
        self._index, self._ttl, self._place = index, ttl, place
        self._journal = None if shared else Journal(cache, ttl)
        self._texts: OrderedDict[tuple[Scope, str], str] = OrderedDict()
        self._lock = threading.Lock()

    async def question(self, request: Request, text: str) -> Question:
        """The question of a request."""
        asked = _reading(text)
        points = await self.embedder.embed(request.scope, [text, asked.gist])
        size = 4 * points.dim
        gist = np.frombuffer(points.data[size:], "<f4").astype(np.float64)
        tags = "\n".join(sorted(request.options.tags))
        # What the gate wants equal parts the spaces as well: else the nearest of "invoice 17" are all other invoices.
        equal = (*asked.numbers, "", *sorted(asked.marks), str(asked.negations), asked.script, str(asked.english))
        space = _digest(points.model, self._place, space_key(request), tags, *equal)
        task = request.options.task or ANY_TASK
        return Question(text, space, _answer_key(space, text), task, points.data[:size], gist)

    async def nearest(self, request: Request, question: Question) -> Found | None:
        """The earlier question that is likeliest the same and whose answer is still there."""
        scope, counts = request.scope, self.book.counts(request.scope)
        if self._journal is not None:
            await self._read_news(self._journal, scope, question)
        near = [
            one
            for one in await self._index.search(scope, question.space, question.vector, _NEAREST)
            if one.similarity >= FLOOR
        ]
        # the same words, if they are there: then nothing else is looked at
        near.sort(key=lambda one: one.key != question.key)
        if near and near[0].key == question.key:
            kept = await self._kept(request, near[0].key)
            if kept is not None and request.options.exact is not False:
                return Found(near[0].key, kept, near[0].similarity, None, Bound(1.0, 0.0, 0.0, 0))
            near = near[1:]
        return await self._likeliest(request, question, await self._pairs(scope, question, near, counts))

    async def keep(self, request: Request, question: Question, reply: Reply, epoch: int) -> None:
        """Keep an answer to a question."""
        scope, options = request.scope, request.options
        ttl = self._ttl if options.ttl is None else options.ttl
        tags = tuple(sorted({*options.tags, f"model:{request.model}", f"model:{reply.model}"}))
        kept = Kept(time.time(), ttl, tags, replace(stripped(reply), tier="semantic"))
        data = to_json(question.text) + b"\n" + encode(kept)
        await self.cache.put(scope, question.key, data, ttl=ttl, tags=tags, since=epoch)
        await self._index.add(scope, question.space, question.key, question.vector)
        self._remember(scope, question.key, question.text)
        if self._journal is not None:
            await self._journal.add(scope, (question.key, question.space, question.text), ttl)

    async def _pairs(
        self, scope: Scope, question: Question, near: Sequence[Neighbour], counts: Counts
    ) -> list[tuple[str, Pair]]:
        """What the gate lets pass."""
        asked = _reading(question.text)
        pairs: list[tuple[str, Pair]] = []
        for one in near:
            if pairs and one.similarity < pairs[0][1].similarity - _FARTHER:
                break
            text = await self._text(scope, one.key)
            if text is None:
                continue
            earlier = _reading(text)
            what = difference(asked, earlier)
            if what:
                counts.gated[what] = counts.gated.get(what, 0) + 1
            else:
                pairs.append((one.key, Pair(asked, earlier, one.similarity)))
                if len(pairs) == _COMPARED:
                    break
        return pairs

    async def _likeliest(self, request: Request, question: Question, pairs: list[tuple[str, Pair]]) -> Found | None:
        if not pairs:
            return None
        evidence = await self.book.evidence(request.scope)
        rows = await likeness(self.embedder, request.scope, question.gist, [pair for _, pair in pairs])
        order = np.argsort(-evidence.score(question.task, rows), kind="stable")
        for at in map(int, order):
            key, pair = pairs[at]
            kept = await self._kept(request, key)
            if kept is not None:
                return Found(key, kept, pair.similarity, rows[at], evidence.bound(question.task, key, rows[at]))
        return None

    async def _kept(self, request: Request, key: str) -> Kept | None:
        """The answer, if it is there and no older than the caller allows. One that is gone takes its question along."""
        data = await self.cache.get(request.scope, key)
        kept = None if data is None else decode(data.partition(b"\n")[2])
        if kept is None:
            await self._index.remove(request.scope, [key])
            self._forget(request.scope, key)
            return None
        ttl = request.options.ttl
        return None if ttl is not None and time.time() - kept.at > ttl else kept

    async def _text(self, scope: Scope, key: str) -> str | None:
        """The words of an earlier question: at hand, or with its answer."""
        text = self._texts.get((scope, key))
        if text is None:
            data = await self.cache.get(scope, key)
            if data is None:
                await self._index.remove(scope, [key])
                return None
            text = str(from_json(data.partition(b"\n")[0]))
            self._remember(scope, key, text)
        return text

    async def _read_news(self, journal: Journal, scope: Scope, question: Question) -> None:
        """Take in what other processes kept, and this one's predecessors. All spaces have points of one embedder."""
        for key, space, text in await journal.news(scope):
            if (scope, key) not in self._texts and key == _answer_key(space, text):
                point = await self.embedder.embed(scope, [text])
                if len(point.data) == len(question.vector):
                    await self._index.add(scope, space, key, point.data)
                    self._remember(scope, key, text)

    def _remember(self, scope: Scope, key: str, text: str) -> None:
        with self._lock:
            self._texts[scope, key] = text
            while len(self._texts) > _TEXTS:
                self._texts.popitem(last=False)

    def _forget(self, scope: Scope, key: str) -> None:
        with self._lock:
            self._texts.pop((scope, key), None)


def _answer_key(space: str, text: str) -> str:
    """Where a question's answer is kept: texts that differ in white space alone share one."""
    return "semantic:" + _digest(space, " ".join(text.split()))


def _digest(*parts: str) -> str:
    framed = "".join(f"{len(part)}:{part}" for part in parts)
    return hashlib.blake2b(framed.encode("utf-8", "surrogatepass"), digest_size=20).hexdigest()
