"""A message's text, parted into what must stay as it is and what may be shortened.

Nothing here drops anything: joined, the segments are the text. What is not surely material is left alone: code,
tables, lines that instruct, the question. Material is what stands under a label or tag that says so ("Context:",
``<document>``), and long paragraphs beside a question.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final, Literal, TypeAlias

from kaizen.inference.compress.lossless import is_json, json_end
from kaizen.inference.compress.words import WORD, sentences, word_set

Kind: TypeAlias = Literal["fixed", "question", "heading", "prose", "json"]
Role: TypeAlias = Literal["data", "ask", "question", "open"]
# Where a passage stands: under nothing, under a label, which nothing closes, or inside a tag.
Origin: TypeAlias = Literal["open", "label", "tag"]


@dataclass(frozen=True, slots=True)
class Segment:
    """A piece of a text.

    Args:
        text: with the white space after it.
        kind: "fixed" and "question" stay to the letter; a "heading" goes when all of its passage goes; "prose" is a
            sentence that may go; "json" may lose white space between its tokens.
        passage: which passage of the text it is of; -1 for none.
    """

    text: str
    kind: Kind
    passage: int = -1


_FENCE: Final = re.compile(r"\s{0,3}(`{3,}|~{3,})")
_CODE: Final = re.compile(r"(?:\t| {4,})\S|\s*\||\s*(?:>>>|\$) |.*(?:[{};]|=>|\)\s*:)\s*$")
_TAG: Final = re.compile(r"\s*<(/?)([A-Za-z][\w.-]{0,40})((?:\s[^<>\n]{0,200})?)>[ \t]*")
_CLOSE: Final = re.compile(r"</([A-Za-z][\w.-]{0,40})\s*>\s*$")
_LABEL: Final = re.compile(
    r"\s{0,3}(?:#{1,6} *)?(?:\*\*|__)?(?P<name>[A-Za-z][A-Za-z _-]{0,40}?)(?:\*\*|__)?(?: *[\[(#]{0,2}\d{1,4}[\])]?)?"
    r"(?: *\([^()\n]{0,100}\))? *(?:\*\*|__)?:(?:\*\*|__)?(?:\s+|$)"
)
_TITLE: Final = re.compile(r"\s{0,3}(?:#{1,6} +|\[\[ ## )(?P<name>[A-Za-z][A-Za-z _-]{0,40}?)(?: ## \]\])?\s*$")
# "... ended. Question: ..." in one line
_INLINE: Final = re.compile(
    r"""(?<=[.!?:\u00bb"'\u201d)])[ \t]+(?=(?:Context|Passage|Text|Document|Question|Query|Q|Answer|A)\s?:\s)"""
)
_MARKER: Final = re.compile(r"\s{0,3}(?:[\[(]\d{1,4}[\])]:?|\d{1,4}[.)]|[-*\u2022+])\s+")
_NAMED: Final = re.compile(r"[A-Z0-9\"'\u201c][^.!?:\n]{0,80}(?:\. ?[A-Z][^.!?:\n]{0,60})?: +(?=\S)")
_ENDS: Final = re.compile(r"""[.!?:;,\u2026]["'\u201d\u2019)\]]*\s*$""")
_ASKS: Final = re.compile(r"""\?["'\u201d\u2019)\]*_]*\s*$""")
_DIRECTS: Final = re.compile(
    r"(?:^\W*(?:please|answer|respond|reply|return|write|use|using|summari[sz]e|translate|explain|list|give|find|"
    r"extract|identify|classify|rewrite|compare|describe|provide|tell|show|ignore|do not|don't|never|always|only|"
    r"make sure|ensure|note that|remember|consider|read|think|work out|decide|choose|select|name|output|format|"
    r"based on|given|you)\b"
    r"|\byou(?:r| are| must| should| will| have to)?\b|\bplease\b|\bdo not (?:use|write|answer|mention|include)\b)",
    re.IGNORECASE,
)
_DATA_NAMES: Final = word_set(
    "context passage document doc background text article source evidence excerpt paragraph reference result snippet",
    "chunk knowledge information material transcript content story report abstract section page title fact data record",
    "file body summary wiki wikipedia input notes",
)
_QUESTION_NAMES: Final = word_set("question query q ask task request claim topic problem")
_ASK_NAMES: Final = word_set(
    "instruction prompt goal objective rule requirement constraint format output answer response note important",
    "remember example hint system role guideline criterion choice option user assistant human thought advice schema",
    "warning step",
)
_OUTER: Final = word_set("html body div span p br b i em strong ul ol li table tr td")
# An open paragraph (under no label) of fewer words is left alone: too little to gain, too likely to instruct.
_OPEN_WORDS: Final = 30
_QUESTION_WORDS: Final = 80
_LONG_LINE: Final = 80


def segments(text: str, *, data: bool = False) -> list[Segment]:
    """The segments of a text, which joined are the text.

    Args:
        text: of one part of a message.
        data: whether all of it is material, as a tool's result is.
    """
    if is_json(text):
        return [Segment(text, "json", 0)]
    reading = _Reading("data" if data else "open")
    at = 0
    for line in _lines(text):
        begin, end = at, at + len(line)
        if begin < reading.read_to:
            at = end
            continue
        if line.lstrip()[:1] in ("{", "[") and not reading.verbatim and (stop := json_end(text, begin)):
            reading.take_json(text[begin:stop])
            reading.read_to = stop
        else:
            reading.take(line)
        at = end
    reading.close()
    found = reading.found if data else _settled(reading.found, reading.origins)
    return [one for one in found if one.text]


def _lines(text: str) -> Iterator[str]:
    """The text's lines; a line with a label in its middle is two of them."""
    for line in text.splitlines(keepends=True):
        begin = 0
        for match in _INLINE.finditer(line):
            yield line[begin : match.end()]
            begin = match.end()
        yield line[begin:]


def question_of(parts: list[Segment]) -> str:
    """What is asked, in the words that stand there; empty where nothing is."""
    return "".join(one.text for one in parts if one.kind == "question").strip()


@dataclass(slots=True)
class _Paragraph:
    """Lines on their way to be a passage or something that stays."""

    lines: list[str]
    role: Role


class _Reading:
    """Takes a text's lines one by one."""

    def __init__(self, role: Role) -> None:
        self.found: list[Segment] = []
        self.origins: dict[int, Origin] = {}
        self._base: Role = role
        self._role: Role = role
        self._tags: list[tuple[str, Role]] = []
        self._fence = ""
        self._now = _Paragraph([], role)
        self._passage = 0
        self.read_to = 0

    @property
    def verbatim(self) -> bool:
        """Whether what comes is code, or somebody's words to the model."""
        return bool(self._fence) or self._role in ("ask", "question")

    def take_json(self, text: str) -> None:
        """Take a JSON value that fills its lines."""
        self.close()
        self._passage += 1
        self.origins[self._passage] = "tag" if self._tags else "label"
        self.found.append(Segment(text, "json", self._passage))

    def take(self, line: str) -> None:
        if self._fence:
            self._fixed(line)
            if line.strip().startswith(self._fence) and not line.strip().strip(self._fence[0]):
                self._fence = ""
        elif match := _FENCE.match(line):
            self.close()
            self._fence = match[1]
            self._fixed(line)
        elif not line.strip():
            self._blank(line)
        elif (match := _TAG.match(line)) and (
            match[1] or match.end() == len(line.rstrip("\r\n")) or self._closes(line)
        ):
            self._tagged(line, match)
        else:
            self._plain(line)

    def close(self) -> None:
        """End the paragraph."""
        now, self._now = self._now, _Paragraph([], self._role)
        if not now.lines:
            return
        text = "".join(now.lines)
        match now.role:
            case "data" | "open":
                self._passage += 1
                self.origins[self._passage] = "open" if now.role == "open" else "tag" if self._tags else "label"
                self.found += _passage(text, self._passage, open_=now.role == "open")
            case "question":
                self.found.append(Segment(text, "question"))
            case "ask":
                self.found.append(Segment(text, "fixed"))

    def _blank(self, line: str) -> None:
        self.close()
        if self._role in ("ask", "question") and not self._tags:
            self._role = self._base
        self._now.role = self._role
        if self.found:
            last = self.found[-1]
            self.found[-1] = replace(last, text=last.text + line)
        else:
            self._fixed(line)

    def _closes(self, line: str) -> bool:
        """Whether a tag's whole element stands on the line."""
        opened, closed = _TAG.match(line), _CLOSE.search(line)
        return opened is not None and closed is not None and opened[2].lower() == closed[1].lower()

    def _tagged(self, line: str, match: re.Match[str]) -> None:
        self.close()
        name = match[2].lower()
        if match[1]:
            if any(name == tag for tag, _ in self._tags):
                while self._tags and self._tags.pop()[0] != name:
                    pass
            self._set(self._tags[-1][1] if self._tags else self._base)
            rest = line[match.end() :]
            self._fixed(line[: match.end()])
            if rest.strip():
                self._plain(rest)
            elif rest:
                self._fixed(rest)
            return
        role = _role(name) or (self._role if name in _OUTER or self._role != "open" else "data")
        if not self._closes(line):
            self._tags.append((name, role))
            self._set(role)
            self._fixed(line)
            return
        closed = _CLOSE.search(line)
        end = closed.start() if closed else len(line)
        self._fixed(line[: match.end()])
        self._now = _Paragraph([line[match.end() : end]], role)
        self.close()
        self._fixed(line[end:])

    def _plain(self, line: str) -> None:
        label = _LABEL.match(line) or _TITLE.match(line)
        role = _role(label["name"]) if label else None
        if label and role is not None and not (role == "data" and self._role == "data" and self._tags):
            self.close()
            if role == "data" and self._role == "data":
                self._now = _Paragraph([line], role)
                return
            if not self._tags:
                self._set(role)
            self._now.role = role
            if role == "data":
                # "Context: " itself stays, unless it heads one passage of several
                self._fixed(line[: label.end()])
                line = line[label.end() :]
            if line.strip():
                self._now.lines.append(line)
            elif line:
                self._fixed(line)
            return
        lines = self._now.lines
        if self._now.role == "data" and lines and (_MARKER.match(line) or _own_line(lines[-1], line)):
            self.close()
        if _CODE.match(line) and self._now.role in ("data", "open") and not _MARKER.match(line):
            self.close()
            self._fixed(line)
            return
        self._now.lines.append(line)

    def _set(self, role: Role) -> None:
        self._role = role
        self._now = _Paragraph([], role)

    def _fixed(self, text: str) -> None:
        self.found.append(Segment(text, "fixed"))


def _own_line(before: str, line: str) -> bool:
    """Whether a line is a passage of its own and not the rest of a wrapped one."""
    return len(before) >= _LONG_LINE and len(line) >= _LONG_LINE and bool(_ENDS.search(before))


def _role(name: str) -> Role | None:
    """What a label or tag says of the text under it."""
    words = [word for word in re.split(r"[ _-]+", name.lower()) if word]
    if not words or len(words) > 4:
        return None
    for word in (words[-1], words[0]):
        for form in (word, word.removesuffix("s"), word.removesuffix("es")):
            if form in _QUESTION_NAMES:
                return "question"
            if form in _ASK_NAMES:
                return "ask"
            if form in _DATA_NAMES:
                return "data"
    return None


def _passage(text: str, number: int, *, open_: bool) -> list[Segment]:
    """A paragraph's heading and sentences."""
    if is_json(text):
        return [Segment(text, "json", number)]
    found: list[Segment] = []
    if not open_:
        head = _heading(text)
        if head:
            found.append(Segment(text[:head], "heading", number))
            text = text[head:]
    # one too short to stand alone goes with the next: "Who?" of a title, an initial
    parts: list[str] = []
    for one in sentences(text):
        if parts and len(parts[-1].strip()) < 20:
            parts[-1] += one
        else:
            parts.append(one)
    return [*found, *(Segment(one, "prose", number) for one in parts)]


def _heading(text: str) -> int:
    """Where a passage's marker and title end."""
    end = 0
    if match := _MARKER.match(text):
        end = match.end()
    if (match := _LABEL.match(text, end)) and _role(match["name"]):
        end = match.end()
    line_end = text.find("\n", end) + 1
    line = text[end:line_end]
    if line_end and 0 < len(line.strip()) <= _LONG_LINE and not _ENDS.search(line) and text[line_end:].strip():
        return line_end
    if match := _NAMED.match(text, end):
        return match.end()
    return end


def _settled(found: list[Segment], origins: dict[int, Origin]) -> list[Segment]:
    """Decide about what stands under no label, and find the question where no label says which it is."""
    labelled = any(one.kind == "question" for one in found)
    groups: list[list[Segment]] = []
    for one in found:
        if groups and one.passage >= 0 and groups[-1][0].passage == one.passage:
            groups[-1].append(one)
        else:
            groups.append([one])
    passages = [at for at, group in enumerate(groups) if group[0].passage >= 0]
    settled: list[Segment] = []
    for at, group in enumerate(groups):
        if at not in passages or group[0].kind == "json":
            settled += group
            continue
        origin = origins[group[0].passage]
        edge = at in (passages[0], passages[-1])
        if origin == "open":
            settled += _open(group, labelled=labelled, edge=edge)
        elif origin == "label" and not labelled and at == passages[-1] and len(passages) > 1:
            settled += _last(group)
        else:
            settled += group
    return settled


def _open(group: list[Segment], *, labelled: bool, edge: bool) -> list[Segment]:
    """A paragraph under no label: material if it is long, asks nothing and tells nobody what to do."""
    text = "".join(one.text for one in group)
    words = len(WORD.findall(text))
    if _ASKS.search(text) and words <= _QUESTION_WORDS:
        return [Segment(text, "fixed" if labelled else "question")]
    if words < _OPEN_WORDS:
        return [Segment(text, "fixed")]
    kept: list[Segment] = []
    for at, one in enumerate(group):
        if edge and at in (0, len(group) - 1) and _ASKS.search(one.text):
            kept.append(Segment(one.text, "fixed" if labelled else "question"))
        elif _DIRECTS.search(one.text):
            kept.append(Segment(one.text, "fixed"))
        else:
            kept.append(one)
    return kept


def _last(group: list[Segment]) -> list[Segment]:
    """The last paragraph after a label that nothing closes: the question, if it looks like one."""
    text = "".join(one.text for one in group)
    words = len(WORD.findall(text))
    asks = bool(_ASKS.search(text)) and words <= _QUESTION_WORDS
    return [Segment(text, "question")] if asks or words < _OPEN_WORDS else group
