"""Whether two answers agree."""

from __future__ import annotations

import pytest

from kaizen.core.message import ToolCall
from kaizen.core.request import Reply
from kaizen.core.scope import LOCAL
from kaizen.inference.semantic.judge import agree
from kaizen.providers.embed.wordllama import WordLlamaEmbedder


async def said(one: str, other: str) -> bool | None:
    return await agree(WordLlamaEmbedder(), LOCAL, Reply(model="m", text=one), Reply(model="m", text=other))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Paris", "Paris."),
        ("yes", " Yes\n"),
        ('{"a": 1, "b": [true, null]}', '{"b": [true, null], "a": 1.0}'),
        ('{"team": "cards"}', '```json\n{"team": "Cards"}\n```'),
        ("{broken", "{broken"),
        (
            "To reset your password, open the settings, choose security and click on reset password there.",
            "To reset your password you open the settings, then choose security, and click on reset password there.",
        ),
    ],
)
async def test_what_says_the_same_agrees(one: str, other: str) -> None:
    assert await said(one, other) is True


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Paris", "London"),
        ("yes", "no"),
        ("The fee is 5 dollars.", "The fee is 6 dollars."),
        ('{"a": 1}', '{"a": 2}'),
        ('{"a": 1}', '{"a": true}'),
        ('{"a": 1}', '{"b": 1}'),
        ('{"a": [1]}', '{"a": [1, 2]}'),
        ('{"a": [1, "x"]}', '{"a": [1, "y"]}'),
        ('{"a": 1}', "[1]"),
        ("cards", "accounts"),
        (
            "To reset your password, open the settings, choose security and click on reset password there.",
            "Our warehouse sends the goods by lorry on the same evening, unless a driver is ill or it is snowing.",
        ),
    ],
)
async def test_what_says_something_else_does_not(one: str, other: str) -> None:
    assert await said(one, other) is False


async def test_tool_calls_are_compared_by_name_and_arguments() -> None:
    def calling(*calls: tuple[str, str]) -> Reply:
        return Reply(model="m", tool_calls=tuple(ToolCall(f"{id(call)}", *call) for call in calls), finish="tool_calls")

    embedder = WordLlamaEmbedder()
    one = calling(("weather", '{"city": "Oslo", "days": 2}'))
    assert await agree(embedder, LOCAL, one, calling(("weather", '{"days": 2, "city": "Oslo"}'))) is True
    for other in (
        calling(("weather", '{"city": "Rome", "days": 2}')),
        calling(("news", '{"city": "Oslo", "days": 2}')),
        calling(),
    ):
        assert await agree(embedder, LOCAL, one, other) is False


async def test_an_answer_that_was_cut_short_tells_nothing() -> None:
    whole, cut = Reply(model="m", text="a"), Reply(model="m", text="a", finish="length")
    assert await agree(WordLlamaEmbedder(), LOCAL, whole, cut) is None
