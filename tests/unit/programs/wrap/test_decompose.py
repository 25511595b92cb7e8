"""A prompt comes apart only where its parts stand alone; each part is then a call, kept by itself."""

from __future__ import annotations

import json

import pytest

from kaizen.core.request import Reply, Request
from kaizen.programs.wrap.decompose import Plan, answer_parts, joined, plan
from tests.unit.programs.house import Open
from tests.unit.programs.wrap.test_cached import DictCache


@pytest.mark.parametrize(
    ("prompt", "documents", "parts"),
    [
        ("What is the capital of Peru? Who wrote Emma?", 0, ("What is the capital of Peru?", "Who wrote Emma?")),
        ("1. Name a prime.\n2. Name a river.", 0, ("Name a prime.", "Name a river.")),
        ("Answer these questions:\n- Who was Ada Lovelace?\n- When was Bern founded?", 0,
         ("Who was Ada Lovelace?", "When was Bern founded?")),
        ("For a firm in Spain:\na) What tax is due?\nb) Which form is needed?", 0,
         ("For a firm in Spain: What tax is due?", "For a firm in Spain: Which form is needed?")),
        ("Summarise the contract and tell me who signed it.", 1,
         ("Summarise the contract", "tell me who signed it.")),
        ("Summarise the text. Who is named in it? List all dates.", 1,
         ("Summarise the text.", "Who is named in it?", "List all dates.")),
        ("What does 3.5 mean? List two e.g. cases.", 0, ("What does 3.5 mean?", "List two e.g. cases.")),
    ],
)  # fmt: skip
def test_parts_that_stand_alone(prompt: str, documents: int, parts: tuple[str, ...]) -> None:
    made = plan(prompt, documents)
    assert made is not None
    assert (made.parts, made.compares) == (parts, False)


@pytest.mark.parametrize(
    ("prompt", "documents"),
    [
        ("What is the capital of Peru?", 0),
        ("Who wrote Emma? Why?", 0),
        ("Who wrote Emma? What else did she write?", 0),
        ("What is the largest planet? How far is it from the sun?", 0),
        ("Name two rivers. Which of those is longer?", 0),
        ("I lost my card. What should I do? Who can help?", 0),  # the first sentence is no request
        ("1. Name a prime.\nThen tell me why.", 0),
        ("Notes\n- milk\n- bread", 0),
        ("What does the first clause say? Who signed the other?", 1),
        ("Summarise these.", 2),
        ("What is x?\n\nWhat is y?", 0),
        ("", 0),
        (" ".join(f"What is {n}?" for n in range(21)), 0),
    ],
)
def test_what_leans_on_another_part_or_is_one_thing_stays_whole(prompt: str, documents: int) -> None:
    assert plan(prompt, documents) is None


def test_several_documents_come_apart_for_a_comparison_alone() -> None:
    prompt = "How do the two offers differ in price?"
    assert plan(prompt, 2) == Plan((prompt,), ("",), compares=True)
    assert plan(prompt, 1) is None


def test_answers_are_joined_behind_their_marks() -> None:
    assert joined(("1.", "2."), ("a", "b")) == "1. a\n\n2. b"
    assert joined(("", ""), ("a", "b")) == "a\n\nb"


def echo(request: Request) -> Reply:
    """Says what it was asked."""
    text = request.messages[-1].text
    wanted = "summary" if "summary" in str(request.output or request.messages) and "summaries" not in text else "answer"
    shown = text.strip().splitlines()[-1][:60]
    return Reply(model="test/model", text=json.dumps({wanted: f"<{shown}>"}), cost_usd=0.5)


async def test_each_part_is_a_call_and_a_part_asked_before_is_not_asked_again(house: Open) -> None:
    here = house(echo, cache=DictCache())
    documents = {"7f": "Ann signed on 3 May."}
    first = await answer_parts("Who signed? When did Ann sign?", documents)
    assert first.count("\n\n") == 1
    assert here.calls == 2
    await answer_parts("When did Ann sign? Where was that signed?", documents)  # leans: asked whole
    assert here.calls == 3
    await answer_parts("When did Ann sign? Which city is named?", documents)
    assert here.calls == 4  # one part was there


async def test_a_changed_document_s_steps_are_done_again(house: Open) -> None:
    cache = DictCache()
    here = house(echo, cache=cache)
    documents = {"a": "The offer is 10 dollars.", "b": "The offer is 12 dollars."}
    await answer_parts("Compare the prices.", documents)
    assert here.calls == 3  # two summaries and the comparison
    await answer_parts("Compare the dates.", documents)
    assert here.calls == 4
    assert await cache.invalidate(here.app.scope, ["document:b"]) == 3
    await answer_parts("Compare the dates.", documents)
    assert here.calls == 6  # the summary of b, and what was made of it


async def test_without_the_step_cache_every_part_is_asked(house: Open) -> None:
    here = house(echo, cache=DictCache())
    for _ in range(2):
        await answer_parts("Who signed? When did Ann sign?", {"7f": "Ann signed."}, cache=False)
    assert here.calls == 4
