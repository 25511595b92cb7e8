"""From a request to a shorter one that asks the same: the strategies in their order, by level."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from kaizen.core.message import Message, Part, Text, ToolResult
from kaizen.core.protocols import Embedder
from kaizen.core.request import Request
from kaizen.core.scope import Scope
from kaizen.inference.compress.demos import demos_of, with_fewer
from kaizen.inference.compress.duplicates import repeated
from kaizen.inference.compress.history import exchanges, last_question, old_turns
from kaizen.inference.compress.lossless import minified, tidy
from kaizen.inference.compress.scoring import Passage, scores
from kaizen.inference.compress.segments import Segment, question_of, segments
from kaizen.inference.compress.surprisal import Surprisal, Tokens, without_expected
from kaizen.inference.compress.words import WORD, terms


@dataclass(frozen=True, slots=True)
class Level:
    """How strongly prompts are shortened.

    Args:
        name: for people.
        keep: which share of the material stays, by characters; None chooses none of it.
        alike: from which share of common shingles on a sentence repeats another; None drops no repetition.
        words: which share of a kept sentence stays when a language model says which words it expects; None keeps all.
    """

    name: str
    keep: float | None = None
    alike: float | None = None
    words: float | None = None


LEVELS: Final = (
    Level("lossless"),
    Level("light", keep=0.85, alike=0.95),
    Level("medium", keep=0.6, alike=0.85),
    Level("strong", keep=0.5, alike=0.8),
    Level("hard", keep=0.3, alike=0.8),
)
# Only with a model that reads, after the others.
WORD_LEVEL: Final = Level("words", keep=0.5, alike=0.8, words=0.8)

# Less material than this, in characters, is not worth choosing from.
_LEAST: Final = 600
_QUESTION_WORDS: Final = 80
_MARKED: Final = re.compile(r"\d[\d.,:/-]*\d|\d|\"[^\"]+\"|\u201c[^\u201d]+\u201d")


@dataclass(frozen=True, slots=True)
class Shortened:
    """A request made shorter.

    Args:
        request: it.
        strategies: what took something away, in order.
        before, after: characters of text in its messages.
    """

    request: Request
    strategies: tuple[str, ...]
    before: int
    after: int


@dataclass(slots=True)
class _Block:
    """A part of a message on its way: its segments, and which of them go."""

    message: int
    part: int
    segments: list[Segment]
    old: bool = False
    gone: set[int] = field(default_factory=set[int])

    def text(self) -> str:
        """What is left of it. The end of a line or paragraph stays where its last sentence goes."""
        out: list[str] = []
        last, ended = -1, ""
        left = {one.passage for at, one in enumerate(self.segments) if at not in self.gone and one.kind != "heading"}
        for at, one in enumerate(self.segments):
            end = one.text[len(one.text.rstrip()) :]
            if at in self.gone or (one.kind == "heading" and one.passage not in left):
                ended = max(ended, end, key=_lines)
                if out and one.passage == last and _lines(end) > _lines(out[-1][len(out[-1].rstrip()) :]):
                    out[-1] = out[-1].rstrip() + end
                continue
            if out and one.kind in ("fixed", "question") and _lines(ended) > _lines(out[-1][len(out[-1].rstrip()) :]):
                out[-1] = out[-1].rstrip() + ended
            out.append(one.text)
            last, ended = one.passage, ""
        return "".join(out)


def _lines(space: str) -> int:
    return space.count("\n")


class Compressor:
    """Shortens requests.

    Never touched: system messages and the stable part, the question, code, tables, lines that instruct, tool schemas
    and the arguments of calls; JSON only between its tokens.

    A sentence of the material stays to the letter or goes as a whole, unless a level drops single words: then numbers,
    names, negations and quotations stay. Order never changes.

    Args:
        embedder: says how near texts lie; without one their words alone do.
        surprisal: a language model that reads; without one no level drops single words.
        window: how many messages before the question stay whole, whatever they say.
        demos: how many examples of the stable part to show where the caller asks for fewer tokens; None shows all.
    """

    def __init__(
        self,
        embedder: Embedder | None = None,
        surprisal: Surprisal | None = None,
        *,
        window: int = 4,
        demos: int | None = None,
    ) -> None:
        self._embedder, self._surprisal = embedder, surprisal
        self._window, self._demos = window, demos
        self.levels = (*LEVELS, WORD_LEVEL) if surprisal is not None else LEVELS

    async def shorten(self, request: Request, level: Level) -> Shortened:
        """The request at this level.

        Raises:
            ProviderError: from the embedder or the model that reads.
        """
        before = _size(request)
        at = last_question(request)
        old = old_turns(request, at, self._window) if at >= 0 else range(0)
        blocks = list(_blocks(request, at, old))
        used = [name for name, acted in (("whitespace", _tidied(blocks)), ("json", _minified(blocks))) if acted]
        question = _question(request, at, blocks)
        size = sum(len(one.text) for block in blocks for one in block.segments if one.kind in ("prose", "heading"))
        if level.alike is not None and _deduplicated(blocks, level.alike):
            used.append("duplicates")
        if level.keep is not None and question and size >= _LEAST:
            used += await self._chosen(request.scope, question, blocks, level.keep * size)
        if level.words is not None and question and await self._pruned(question, blocks, level.words):
            used.append("words")
        short = _rebuilt(request, blocks, exchanges(request.messages, old) if level.keep is not None else [])
        if level.keep is not None and question and self._demos is not None and request.options.compress:
            fewer = await self._with_fewer_demos(short, question, self._demos)
            if fewer is not short:
                short = fewer
                used.append("demos")
        return Shortened(short, tuple(used), before, _size(short))

    async def _chosen(self, scope: Scope, question: str, blocks: list[_Block], budget: float) -> list[str]:
        """Drop what helps least until the rest fits; the strategies that dropped something."""
        places: list[tuple[_Block, int]] = []
        passages: list[Passage] = []
        for block in blocks:
            by_passage: dict[int, list[int]] = {}
            heads: dict[int, str] = {}
            for at, one in enumerate(block.segments):
                if one.kind == "prose" and at not in block.gone:
                    by_passage.setdefault(one.passage, []).append(at)
                elif one.kind == "heading":
                    heads[one.passage] = heads.get(one.passage, "") + one.text
            for number, found in by_passage.items():
                passages.append(Passage(heads.get(number, ""), tuple(block.segments[at].text for at in found)))
                places += [(block, at) for at in found]
        if not places:
            return []
        vectors = await self._vectors(scope, [question, *(block.segments[at].text for block, at in places)])
        worth = scores(question, passages, vectors)
        asked, marks = set(terms(question)), set(_MARKED.findall(question))
        if not any(not asked.isdisjoint(terms(block.segments[at].text)) for block, at in places):
            return []  # they share not a word: in another language, or about nothing that is said here
        names: set[str] = set()
        left = budget
        order: list[int] = np.argsort(-worth, kind="stable").tolist()
        for number in order:
            block, at = places[number]
            text = block.segments[at].text
            if left > 0 or not marks.isdisjoint(_MARKED.findall(text)):
                left -= len(text)
            else:
                block.gone.add(at)
                names.add("history" if block.old else "context")
        return sorted(names)

    async def _pruned(self, question: str, blocks: list[_Block], keep: float) -> bool:
        """Drop words that the model expects; whether any went."""
        if self._surprisal is None:
            return False
        places = [
            (block, at)
            for block in blocks
            for at, one in enumerate(block.segments)
            if one.kind == "prose" and at not in block.gone
        ]
        texts = [block.segments[at].text for block, at in places]
        read: Sequence[Tokens] = await self._surprisal.surprisal(texts) if texts else ()
        acted = False
        for (block, at), text, tokens in zip(places, texts, read, strict=True):
            shorter = without_expected(text, tokens, question, keep)
            acted |= shorter != text
            block.segments[at] = replace(block.segments[at], text=shorter)
        return acted

    async def _with_fewer_demos(self, request: Request, question: str, most: int) -> Request:
        _, pairs = demos_of(request)
        if len(pairs) <= most:
            return request
        vectors = await self._vectors(request.scope, [question, *(one.text for one, _ in pairs)])
        return with_fewer(request, most, vectors, question)

    async def _vectors(self, scope: Scope, texts: Sequence[str]) -> NDArray[np.float64] | None:
        if self._embedder is None:
            return None
        found = await self._embedder.embed(scope, texts)
        vectors = np.frombuffer(found.data, dtype="<f4").reshape(len(texts), found.dim)
        # a text without one known word has no direction
        return np.nan_to_num(vectors.astype(np.float64))


def _blocks(request: Request, question: int, old: range) -> Iterator[_Block]:
    """What may be shortened: material in user messages, tools' results, and old turns."""
    for at, message in enumerate(request.messages[request.stable :], request.stable):
        for number, part in enumerate(message.parts):
            match part:
                case Text(text) if message.role == "user" or (message.role == "assistant" and at in old):
                    yield _Block(at, number, segments(text, data=at in old), old=at in old)
                case ToolResult(_, content) if at < question or question < 0 or message.role in ("tool", "user"):
                    yield _Block(at, number, segments(content, data=True), old=at in old)
                case _:
                    pass


def _question(request: Request, at: int, blocks: Sequence[_Block]) -> str:
    if at < 0:
        return ""
    asked = " ".join(question_of(block.segments) for block in blocks if block.message == at).strip()
    whole = request.messages[at].text
    return asked or (whole if len(WORD.findall(whole)) <= _QUESTION_WORDS else "")


def _tidied(blocks: Sequence[_Block]) -> bool:
    return _each(blocks, "prose", tidy)


def _minified(blocks: Sequence[_Block]) -> bool:
    return _each(blocks, "json", minified)


def _each(blocks: Sequence[_Block], kind: str, change: Callable[[str], str]) -> bool:
    acted = False
    for block in blocks:
        for at, one in enumerate(block.segments):
            if one.kind == kind and (text := change(one.text)) != one.text:
                block.segments[at] = replace(one, text=text)
                acted = True
    return acted


def _deduplicated(blocks: Sequence[_Block], alike: float) -> bool:
    places = [(block, at) for block in blocks for at, one in enumerate(block.segments) if one.kind == "prose"]
    again = repeated([block.segments[at].text for block, at in places], alike=alike)
    for number in again:
        block, at = places[number]
        block.gone.add(at)
    return bool(again)


def _rebuilt(request: Request, blocks: Sequence[_Block], whole: Sequence[tuple[int, ...]]) -> Request:
    """The request with what is left of each block; an exchange of which nothing is left goes, else no message does."""
    texts = {(block.message, block.part): block.text() for block in blocks}
    messages: list[Message | None] = list(request.messages)
    empty = {at for at in {block.message for block in blocks} if not _left(request.messages[at], at, texts)}
    for turns in whole:
        if empty.issuperset(turns):
            for at in turns:
                messages[at] = None
    for block in blocks:
        key = (block.message, block.part)
        message = messages[block.message]
        if message is None or texts[key] == _content(message.parts[block.part]):
            continue
        text = texts[key]
        if not text.strip():
            text = _first(block)  # no wire takes an empty message
        parts = list(message.parts)
        parts[block.part] = _with(parts[block.part], text)
        messages[block.message] = Message(message.role, tuple(parts))
    if messages == list(request.messages):
        return request
    return replace(request, messages=tuple(one for one in messages if one is not None))


def _left(message: Message, at: int, texts: dict[tuple[int, int], str]) -> bool:
    return any((texts.get((at, number)) or "").strip() for number in range(len(message.parts)))


def _first(block: _Block) -> str:
    return next((one.text for one in block.segments if one.kind == "prose" and one.text.strip()), "")


def _content(part: Part) -> str:
    return part.text if isinstance(part, Text) else part.content if isinstance(part, ToolResult) else ""


def _with(part: Part, text: str) -> Part:
    if isinstance(part, Text):
        return replace(part, text=text)
    return replace(part, content=text) if isinstance(part, ToolResult) else part


def _size(request: Request) -> int:
    return sum(len(_content(part)) for message in request.messages for part in message.parts)
