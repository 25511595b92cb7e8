"""How the settings make the layer that sends fewer tokens, and which recorded calls a calibration asks again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from kaizen.app import App, build, compression
from kaizen.app.compression import make_compressor
from kaizen.app.measured.calibrating import calibrate
from kaizen.core.errors import ConfigError
from kaizen.core.identity import Identity
from kaizen.core.message import Message
from kaizen.core.request import Options, Reply, Request, Stage, Usage
from kaizen.inference.compress.compressor import LEVELS, WORD_LEVEL
from kaizen.providers import weights
from kaizen.serve.doors import Calibrating
from kaizen.settings import load_settings
from kaizen.testing.scripted import ScriptedProvider
from tests.unit.inference.compress.requests import GOLD, QUESTION, passages

TEXT = f"Context:\n{passages()}\n\nQuestion: {QUESTION}"


def app(folder: Path, provider: ScriptedProvider, **compress: Any) -> App:
    settings = {"home": str(folder / "home"), "inference": {"compress": {"enabled": True, **compress}}}
    return build(load_settings(folder, {}, settings), provider=provider)


async def call(here: App, text: str, *, model: str = "mine/large", task: str | None = None) -> None:
    context = here.context(Identity(here.scope, "tester"))
    message = Message.of("user", text)
    await context.complete(Request(scope=here.scope, model=model, messages=(message,), options=Options(task=task)))


def reads(request: Request) -> Reply:
    known = GOLD.strip() in request.messages[-1].text
    # as a router does that finds the type of task itself
    stages = (Stage("route", note={"task": "found"}),) if request.model == "mine/routed" else ()
    return Reply(model=request.model, text="1871" if known else "?", usage=Usage(tokens_in=9), stages=stages)


async def test_the_calls_of_a_task_or_model_are_asked_again_newest_first(tmp_path: Path) -> None:
    provider = ScriptedProvider(reads)
    here = app(tmp_path, provider)
    for number in range(3):
        await call(here, f"{TEXT} {number}", task="lookup")
    await call(here, f"{TEXT} other", task="chat")
    await call(here, f"{TEXT} small", model="mine/small")
    await call(here, f"{TEXT} routed", model="mine/routed")

    before = provider.count
    found = await calibrate(here, Calibrating(here.scope, task="lookup"))
    assert provider.count == before + found.asked
    assert {row.task for row in found.measured} == {"lookup"}
    assert {row.agreement.compared for row in found.measured} == {3}
    again = await calibrate(here, Calibrating(here.scope, task="lookup", calls=2))
    assert again.asked == 2
    assert {one.messages[-1].text for one in provider.requests[-2:]} > {f"{TEXT} 2"}  # the newest

    whole = await calibrate(here, Calibrating(here.scope, calls=1000))
    (task,) = {row.task for row in whole.measured if row.model == "mine/routed"}
    assert task.startswith("prompt:")  # the caller named none, so the layer files it by its instructions
    other = await calibrate(here, Calibrating(here.scope, model="mine/small", calls=1000))
    assert {row.model for row in other.measured} == {"mine/small"}
    assert {row.task for row in other.measured} >= {"lookup", "chat"}  # all that was recorded, asked of this one
    await here.close()


async def test_calls_whose_contents_are_gone_are_passed_over(tmp_path: Path) -> None:
    here = app(tmp_path, ScriptedProvider(reads))
    await call(here, TEXT, task="lookup")
    await here.ledger.erase(here.scope)
    assert (await calibrate(here, Calibrating(here.scope))).asked == 0
    await here.close()


def test_a_missing_package_stops_the_start_and_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compression, "find_spec", {}.get)
    with pytest.raises(ConfigError, match=r"kaizen-engine\[semantic\]"):
        build(load_settings(tmp_path, {}, {"inference": {"compress": {"enabled": True}}}))


def test_the_model_reads_only_where_that_is_wanted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def made(**compress: Any) -> tuple[object, ...]:
        return make_compressor(load_settings(tmp_path, {}, {"inference": {"compress": compress}})).levels

    assert made() == LEVELS
    assert made(surprisal=True) == (*LEVELS, WORD_LEVEL)

    def nowhere(name: str, home: Path) -> None:
        return None

    monkeypatch.setattr(weights, "find_weights", nowhere)
    with pytest.raises(ConfigError):
        made(surprisal=True)
