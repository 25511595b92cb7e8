from __future__ import annotations

import json
from itertools import pairwise

import pytest

from kaizen.core.message import Media, Message, Text, ToolCall, ToolResult
from kaizen.core.request import Options, Request, ToolSpec
from kaizen.core.scope import LOCAL
from kaizen.inference.compress.compressor import LEVELS, WORD_LEVEL, Compressor, Level, Shortened
from tests.unit.inference.compress.requests import (
    FILLER,
    GOLD,
    QUESTION,
    EveryWord,
    WordEmbedder,
    asking,
    passages,
)

LIGHT, MEDIUM, STRONG, HARD = LEVELS[1:]
PROMPT = f"Answer briefly.\n\nContext:\n{passages()}\n\nQuestion: {QUESTION}\nAnswer:"


def left_of(short: Shortened) -> list[str]:
    text = short.request.messages[-1].text
    return [one for one in (*FILLER, GOLD) if one.strip() in text]


@pytest.mark.parametrize("embedder", [None, WordEmbedder()])
@pytest.mark.parametrize("level", LEVELS[1:], ids=lambda level: level.name)
async def test_each_level_keeps_the_answer_the_question_and_its_share(
    level: Level, embedder: WordEmbedder | None
) -> None:
    short = await Compressor(embedder).shorten(asking(PROMPT), level)
    text = short.request.messages[-1].text
    assert text.startswith("Answer briefly.\n\nContext:\n")
    assert text.endswith(f"\n\nQuestion: {QUESTION}\nAnswer:")
    assert GOLD in left_of(short)
    material = sum(len(one) for one in (*FILLER, GOLD))
    assert level.keep is not None
    assert sum(map(len, left_of(short))) < level.keep * material + max(map(len, FILLER))
    assert short.strategies == ("context",)
    assert (short.before, short.after) == (len(PROMPT), len(text))


async def test_what_is_left_stands_in_its_order_and_on_lines_of_its_own() -> None:
    short = await Compressor().shorten(asking(PROMPT), MEDIUM)
    lines = short.request.messages[-1].text.split("\n")
    kept = [one for one in PROMPT.split("\n") if one in lines]
    assert [one for one in lines if one] == [one for one in kept if one]


async def test_the_lossless_level_changes_white_space_alone() -> None:
    request = asking(PROMPT.replace("market square", "market  square"))
    short = await Compressor().shorten(request, LEVELS[0])
    assert short.strategies == ("whitespace",)
    assert short.request.messages[-1].text == PROMPT
    again = await Compressor().shorten(short.request, LEVELS[0])
    assert again.request is short.request
    assert again.strategies == ()


async def test_a_passage_of_which_nothing_is_left_takes_its_heading_along() -> None:
    body = "\n\n".join(f"[{at}] Story {at}\n{one.strip()}" for at, one in enumerate((GOLD, *FILLER), 1))
    short = await Compressor().shorten(asking(f"Context:\n{body}\n\nQuestion: {QUESTION}"), HARD)
    text = short.request.messages[-1].text
    assert f"[1] Story 1\n{GOLD.strip()}\n\n" in text
    assert text.count("Story") == len(left_of(short)) < 5


async def test_numbers_and_quotations_of_the_question_keep_their_sentences() -> None:
    filler = (
        "\n".join(one.strip() for one in FILLER[:4]) + ' It was called "The Elder" in 1650.\n' + "".join(FILLER[4:])
    )
    question = 'Marlow lighthouse: what was "The Elder"?'
    short = await Compressor().shorten(asking(f"Context:\n{filler}\n{GOLD}\n\nQuestion: {question}"), HARD)
    assert 'It was called "The Elder" in 1650.' in short.request.messages[-1].text


@pytest.mark.parametrize(
    "text",
    [
        f"Summarise the text.\n\n<text>\n{passages()}\n</text>",  # of which nothing is irrelevant
        f"Context:\n{passages()}\n\nQuestion: \u043a\u043e\u0433\u0434\u0430?",  # in another language
        f"Context:\n{GOLD}{FILLER[0].strip()}\n\nQuestion: {QUESTION}",  # too short to gain by it
        "```\n" + passages() + "\n```\n" + QUESTION,
    ],
)
async def test_what_gives_no_hold_stays_whole(text: str) -> None:
    request = asking(text)
    assert (await Compressor(WordEmbedder()).shorten(request, HARD)).request is request


async def test_repetitions_go_even_without_a_question() -> None:
    text = f"<text>\n{passages()}\n{passages()}\n</text>\nWork on this."
    short = await Compressor().shorten(asking(text, Message.of("system", "s")), MEDIUM)
    assert short.request.messages[-1].text.count(GOLD.strip()) == 1
    assert "duplicates" in short.strategies


async def test_instructions_tools_calls_and_pictures_are_never_touched() -> None:
    system = Message.of("system", f"Rules.  {passages()}")
    demo = (Message.of("user", PROMPT), Message.of("assistant", "1850"))
    call = Message("assistant", (Text("Let me  see."), ToolCall("1", "look", '{ "q":  "x" }')))
    picture = Message("user", (Media("image", "image/png", data="x"), Text(PROMPT)))
    tools = (ToolSpec("look", "It  looks.", {"type": "object"}),)
    request = Request(scope=LOCAL, model="m/m", messages=(system, *demo, call, picture), stable=3, tools=tools)
    short = await Compressor().shorten(request, HARD)
    assert short.request.messages[:4] == request.messages[:4]
    assert short.request.messages[4].parts[0] == picture.parts[0]
    assert short.request.tools is tools
    assert len(short.request.messages[4].text) < len(PROMPT)


async def test_a_tools_result_is_material_and_its_json_is_minified() -> None:
    table = json.dumps({"rows": [1, 2]}, indent=2)
    results = Message("tool", (ToolResult("1", passages()), ToolResult("2", table)))
    request = Request(
        scope=LOCAL, model="m/m", messages=(Message.of("user", QUESTION), Message("assistant", ()), results)
    )
    short = await Compressor().shorten(request, STRONG)
    first, second = short.request.messages[2].parts
    assert isinstance(first, ToolResult)
    assert GOLD.strip() in first.content
    assert len(first.content) < 0.6 * len(passages())
    assert second == ToolResult("2", '{"rows":[1,2]}')
    assert short.strategies == ("json", "context")


async def test_old_turns_go_by_what_they_say_and_new_ones_stay() -> None:
    turns: list[Message] = [Message.of("user", "Hello, I plan a trip.")]
    for at, one in enumerate((GOLD, *FILLER)):
        turns += Message.of("assistant", f"{one}More of {at}. "), Message.of("user", f"Tell me more, number {at}.")
    request = asking(QUESTION, *turns[:-1])
    short = await Compressor(window=4).shorten(request, HARD)
    texts = [one.text for one in short.request.messages]
    assert texts[0] == "Hello, I plan a trip."
    assert texts[-5:] == [one.text for one in request.messages[-5:]]
    assert len(texts) < len(request.messages)
    assert short.strategies == ("history",)
    roles = [one.role for one in short.request.messages]
    assert all(one != other for one, other in pairwise(roles[1:]))
    assert (await Compressor(window=100).shorten(request, HARD)).request is request


async def test_a_message_that_can_not_go_keeps_its_first_sentence() -> None:
    call = Message("assistant", (ToolCall("1", "look", "{}"),))
    result = Message("tool", (ToolResult("1", "".join(FILLER)),))
    new = [Message.of("user" if at % 2 else "assistant", f"{at}: {GOLD}") for at in range(6)]
    request = asking(QUESTION, Message.of("user", "Start."), call, result, *new)
    short = await Compressor().shorten(request, Level("least", keep=0.05))
    kept = short.request.messages[2].parts[0]
    assert isinstance(kept, ToolResult)
    assert kept.content == FILLER[0]


@pytest.mark.parametrize(("wish", "shown"), [(True, 2), (None, 4)])
async def test_fewer_demos_are_shown_where_the_caller_asks_for_fewer_tokens(wish: bool | None, shown: int) -> None:
    demos = [
        message
        for one in ("red fox", "red wolf", "blue sea", "green hill")
        for message in (Message.of("user", f"What is a {one}?"), Message.of("assistant", "x"))
    ]
    request = asking("What is a red deer?", Message.of("system", "s"), *demos, stable=9)
    asked = Request(scope=LOCAL, model="m/m", messages=request.messages, stable=9, options=Options(compress=wish))
    short = await Compressor(WordEmbedder(), demos=2).shorten(asked, LIGHT)
    assert sum(one.role == "assistant" for one in short.request.messages) == shown
    assert ("demos" in short.strategies) is (shown == 2)
    assert (await Compressor(demos=9).shorten(asked, LIGHT)).request is asked


async def test_expected_words_go_at_the_last_level() -> None:
    reader = EveryWord("the", "of", "by", "were", "was", "from", "that", "its", "six", "morning", "market")
    compressor = Compressor(surprisal=reader)
    assert compressor.levels[-1] is WORD_LEVEL
    assert Compressor().levels == LEVELS
    short = await compressor.shorten(asking(PROMPT), WORD_LEVEL)
    assert "words" in short.strategies
    assert "1871, when Ada Brandt lit four lamps." in short.request.messages[-1].text
    without = await Compressor().shorten(asking(PROMPT), WORD_LEVEL)
    assert "words" not in without.strategies


async def test_a_request_without_a_text_of_the_user_stays() -> None:
    request = Request(scope=LOCAL, model="m/m", messages=(Message.of("system", passages()),))
    assert (await Compressor().shorten(request, HARD)).request is request
