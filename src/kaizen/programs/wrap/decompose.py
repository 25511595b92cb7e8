"""A prompt of several parts, done part by part: each is a step of its own, kept by itself, and the answers are joined.

What is taken apart is told by rules on the prompt's form, never by its prefix or by what a model thinks. A part that
leans on another ("why is that so?") can't stand alone, so such a prompt is left whole.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from kaizen.core.context import Context, Program
from kaizen.programs import declare as context
from kaizen.programs.function import program
from kaizen.programs.signature import Signature
from kaizen.programs.together import together
from kaizen.programs.wrap.cached import cached

# An item of a list: a number, a letter or a dash, then its text.
_ITEM: Final = re.compile(r"^\s*(?:(?P<mark>\(?(?:\d{1,2}|[a-z])[.)])|[-*•])\s+(?P<text>\S.*)$", re.IGNORECASE)
# A sentence ends where a capital follows, so that "e.g. this" and "3.5" end none.
_SENTENCE: Final = re.compile(r"(?<=[.?!])\s+(?=[A-Z\"'(])")
_ASKS: Final = re.compile(
    r"^(?:and\s+|then\s+|also\s+|please\s+)*(?:summari[sz]e|list|explain|describe|name|give|tell|find|say|state|define|"
    r"translate|calculate|compute|classify|identify|outline|suggest|write|what|who|whom|whose|when|where|which|why|how|"
    r"is|are|was|were|do|does|did|can|could|should|will|would|has|have|had)\b",
    re.IGNORECASE,
)
# "Summarise the text and tell me who signed it": two requests in one sentence.
_AND: Final = re.compile(
    r"\s*(?:,|;)?\s+(?:and|then)\s+(?=(?:then\s+|also\s+|please\s+)*(?:summari[sz]e|list|explain|describe|tell|find|"
    r"translate|calculate|classify|identify|outline|suggest|answer|say)\b)",
    re.IGNORECASE,
)
_SUMMARY: Final = re.compile(r"^(?:please\s+)?(?:summari[sz]e|give\s+(?:me\s+)?a\s+summary)\b", re.IGNORECASE)
_COMPARES: Final = re.compile(
    r"\b(?:compare|comparison|contrast|differ|differs|difference|differences|versus|vs)\b", re.IGNORECASE
)
# A part that begins so, or says so, speaks of what another part said.
_LEANS: Final = re.compile(
    r"^(?:and\s+|but\s+|so\s+)?(?:why|how\s+so|how\s+come|what\s+else)\s*[?.!]*$|"
    r"\b(?:is|was|are|were|does|did|do|of|about|for|with|to|in|on|at|like)\s+that\b|^that\b|"
    r"\b(?:it|its|they|them|their|he|him|his|she|her|hers|this|these|those|that\s+one|the\s+(?:former|latter|above|same|"
    r"previous|other|first|second|answer|result))\b",
    re.IGNORECASE,
)
# What such a word means where a document comes with the prompt.
_OF_DOCUMENT: Final = re.compile(
    r"\b(?:it|its|this|the)\b(?=\s*(?:$|[?.!,]|(?:text|document|article|report|contract|letter|page|passage|email)\b))",
    re.IGNORECASE,
)
_MOST_PARTS: Final = 20


class Part(Signature):
    """Do what is asked, from the document where there is one. Answer with the answer alone."""

    document: str = context.input("what it is about; may be empty", default="")
    request: str = context.input("what to do")
    answer: str = context.output("the answer alone")


class Summary(Signature):
    """Summarise the document in a few sentences that keep its names, numbers and decisions."""

    document: str = context.input()
    summary: str = context.output()


class Comparison(Signature):
    """Answer the request by comparing what is known of each document."""

    summaries: dict[str, str] = context.input("by document, a summary of it")
    request: str = context.input("what to compare")
    answer: str = context.output()


@dataclass(frozen=True, slots=True)
class Plan:
    """What a prompt comes apart into.

    Args:
        parts: requests that stand alone, in order.
        marks: what stood before each, such as ``2.``; empty where nothing did.
        compares: whether the one part compares the documents, each of which is summarised first.
    """

    parts: tuple[str, ...]
    marks: tuple[str, ...]
    compares: bool = False


def plan(prompt: str, documents: int) -> Plan | None:
    """How a prompt comes apart; None if it is one thing, or its parts lean on each other.

    Args:
        prompt: the request, without the documents.
        documents: how many documents come with it.
    """
    text = prompt.strip()
    if documents > 1:
        # over several documents only a comparison has steps that can be kept by document
        return Plan((text,), ("",), compares=True) if _COMPARES.search(text) else None
    found = _listed(text) or _sentences(text)
    if found is None or not 1 < len(found) <= _MOST_PARTS:
        return None
    for _, part in found[1:]:
        bare = _OF_DOCUMENT.sub("", part) if documents else part
        if _LEANS.search(bare):
            return None
    return Plan(tuple(part for _, part in found), tuple(mark for mark, _ in found))


def _listed(text: str) -> list[tuple[str, str]] | None:
    """The items of a prompt that is a list: all lines are items, but for one line above that ends in a colon."""
    lines = [line for line in text.splitlines() if line.strip()]
    lead = ""
    if lines and not _ITEM.match(lines[0]):
        lead, lines = lines[0].strip(), lines[1:]
        if not lead.endswith(":"):
            return None
    items = [_ITEM.match(line) for line in lines]
    if len(items) < 2 or not all(items):
        return None
    asked = [(item["mark"] or "-", item["text"].strip()) for item in items if item is not None]
    if not all(_ASKS.match(part) or part.endswith("?") for _, part in asked):
        return None
    # "Answer these questions:" says nothing to a part; "For a firm in Spain:" does
    says = lead and not _ASKS.match(lead) and not re.match(r"(?:please\s+)?answer\b", lead, re.IGNORECASE)
    return [(mark, f"{lead} {part}" if says else part) for mark, part in asked]


def _sentences(text: str) -> list[tuple[str, str]] | None:
    """The requests of a prompt in which every sentence is one."""
    if "\n\n" in text:
        return None
    sentences = _SENTENCE.split(text)
    parts = [part.strip() for sentence in sentences for part in _AND.split(sentence)]
    if not all(part.endswith("?") or _ASKS.match(part) for part in parts):
        return None
    return [("", part) for part in parts]


@program
async def answer_parts(
    ctx: Context, prompt: str, documents: dict[str, str], model: str | None = None, cache: bool = True
) -> str:
    """Answers a prompt of several parts, each as a step of its own that is kept by itself, and joins the answers.

    ``documents`` are texts by id: a step's answer goes when its document is invalidated. ``model`` is asked for every
    step; ``cache`` says whether steps are kept.
    """

    async def ask(branch: Context, signature: type[Signature], reads: Sequence[str], **inputs: Any) -> str:
        what = signature.using(model=model) if model else signature
        step: Program = cached(what, tags=[f"document:{name}" for name in reads]) if cache else what
        answer = await branch.call(step, **inputs)
        return str(next(iter(answer.outputs.values())))

    made = plan(prompt, len(documents)) or Plan((prompt,), ("",))
    if made.compares:
        summaries = await together(
            [ask(ctx.fork(), Summary, [name], document=text) for name, text in documents.items()]
        )
        known = dict(zip(documents, summaries, strict=True))
        return await ask(ctx, Comparison, list(documents), summaries=known, request=prompt)
    text = "\n\n".join(documents.values())
    reads = list(documents)
    answers = await together(
        [
            ask(ctx.fork(), Summary, reads, document=text)
            if text and _SUMMARY.match(part)
            else ask(ctx.fork(), Part, reads, document=text, request=part)
            for part in made.parts
        ]
    )
    return joined(made.marks, answers)


def joined(marks: Sequence[str], answers: Sequence[str]) -> str:
    """The answers in order, each behind the mark of its part."""
    return "\n\n".join(f"{mark} {answer}".strip() for mark, answer in zip(marks, answers, strict=True))
