"""Calls of a signature made side by side, the way asyncio's own functions take them."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from kaizen import Signature, context, program
from kaizen.app import build
from kaizen.settings import Settings
from kaizen.stores.memory import MemoryStore
from kaizen.testing.scripted import ScriptedProvider


class Echo(Signature):
    """Say it again."""

    said: str = context.input()
    again: str = context.output()


@program
async def thrice(said: str) -> list[str]:
    """The same call three times, side by side."""
    answers = await asyncio.gather(*(Echo(said=said) for _ in range(3)))
    return [answer.again for answer in answers]


async def test_equal_calls_are_made_each(tmp_path: Path) -> None:
    model = ScriptedProvider([f'{{"again": "{n}"}}' for n in range(3)])
    app = build(Settings(home=tmp_path), provider=model, store=MemoryStore())
    answer = await app.run(thrice, {"said": "a"})
    assert answer.outputs["result"] == ["0", "1", "2"]
    assert model.count == 3


def test_a_call_is_itself_and_an_answer_is_its_outputs() -> None:
    call = Echo(said="a")
    assert call == call
    assert call != Echo(said="a")
    assert len({call, Echo(said="a")}) == 2
    assert Echo.of({"again": "b"}) == Echo.of({"again": "b"})
    assert Echo.of({"again": "b"}) != call
    with pytest.raises(TypeError, match="unhashable"):
        hash(Echo.of({"again": "b"}))
