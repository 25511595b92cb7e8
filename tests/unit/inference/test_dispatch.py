"""The adapter that a ref names, made once and late."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest

from kaizen.core.errors import ConfigError, NotFound
from kaizen.inference.dispatch import Dispatch
from tests.unit.inference.calls import REPLY, Scripted, asking


async def test_each_provider_gets_its_own_calls_and_is_made_once_and_late() -> None:
    made: list[str] = []
    ours, theirs = Scripted(REPLY), Scripted(REPLY)

    def make(name: str, provider: Scripted) -> Scripted:
        made.append(name)
        return provider

    dispatch = Dispatch({"ours": lambda: make("ours", ours), "theirs": lambda: make("theirs", theirs)})
    assert made == []
    await dispatch.complete(asking("theirs/a"))
    await dispatch.complete(asking("theirs/b/c"))
    assert made == ["theirs"]
    chunks = [chunk async for chunk in dispatch.stream(asking("ours/a"))]
    assert made == ["theirs", "ours"]
    assert (ours.calls, theirs.calls) == (1, 2)
    assert chunks[-1].reply == REPLY


def test_threads_share_one_adapter() -> None:
    made: list[Scripted] = []

    def make() -> Scripted:
        time.sleep(0.02)
        made.append(Scripted(REPLY))
        return made[-1]

    dispatch = Dispatch({"ours": make})
    gate = threading.Barrier(4)

    def call() -> None:
        gate.wait()
        asyncio.run(dispatch.complete(asking("ours/a")))

    threads = [threading.Thread(target=call) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [provider.calls for provider in made] == [4]


@pytest.mark.parametrize(
    ("ref", "says"),
    [
        (
            "opneai/gpt",
            "no provider 'opneai' for model 'opneai/gpt': did you mean 'openai'? The providers are mine, openai",
        ),
        ("x/gpt", "no provider 'x' for model 'x/gpt': The providers are mine, openai"),
        ("gpt", "'gpt' is no model ref: write provider/model; the providers are mine, openai"),
        ("openai/", "'openai/' is no model ref: write provider/model; the providers are mine, openai"),
        ("/gpt", "'/gpt' is no model ref: write provider/model; the providers are mine, openai"),
    ],
)
async def test_a_ref_that_leads_nowhere(ref: str, says: str) -> None:
    provider = Scripted(REPLY)
    dispatch = Dispatch({"openai": lambda: provider, "mine": lambda: provider})
    await dispatch.complete(asking("openai/gpt"))  # a made adapter must not answer a ref without a model
    for ask in (lambda: dispatch.complete(asking(ref)), lambda: anext(dispatch.stream(asking(ref)))):
        with pytest.raises(NotFound) as caught:
            await ask()
        assert str(caught.value) == says
    assert provider.calls == 1


async def test_without_any_provider() -> None:
    with pytest.raises(NotFound, match=r"The providers are none$"):
        await Dispatch({}).complete(asking("x/y"))


async def test_a_factory_that_fails_is_tried_again() -> None:
    keys: list[str] = []

    def make() -> Scripted:
        if not keys:
            raise ConfigError("MINE_API_KEY is not set")
        return Scripted(REPLY)

    dispatch = Dispatch({"mine": make})
    with pytest.raises(ConfigError, match="MINE_API_KEY"):
        await dispatch.complete(asking("mine/a"))
    keys.append("set")
    assert await dispatch.complete(asking("mine/a")) == REPLY
