"""The process's App: set up by ``configure``, built once, and closed from plain code."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

import kaizen.app
from kaizen import Signature, configure, context
from kaizen.app import current
from kaizen.core.errors import ConfigError
from kaizen.testing.scripted import ScriptedProvider


class Ask(Signature):
    """Answer."""

    question: str = context.input()
    answer: str = context.output()


@pytest.fixture(autouse=True)
def unconfigured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kaizen.app, "_current", None)
    monkeypatch.setattr(kaizen.app, "_settings", None)


def test_a_later_call_replaces_what_it_names_and_a_failed_one_changes_nothing() -> None:
    configure(model="scripted/one", providers={"scripted": ScriptedProvider([])})
    first = current()
    assert current() is first
    configure(inference={"attempts": 1})
    second = current()
    assert (second is first, second.settings.model, second.settings.inference.attempts) == (False, "scripted/one", 1)
    with pytest.raises(ConfigError, match="did you mean model"):
        configure(modle="scripted/two")
    assert current() is second


async def test_closing_one_leaves_the_others_open(kaizen_home: Path) -> None:
    model = ScriptedProvider(['{"answer": "42"}'] * 3)
    configure(model="scripted/one", providers={"scripted": model})
    first = current()
    await Ask(question="?")
    configure(inference={"attempts": 1})
    own = kaizen.app.build(current().settings)
    await first.close()
    await Ask(question="?")
    await current().close()
    await own.run(Ask, {"question": "?"})
    assert len([one async for one in own.ledger.records(own.scope) if one.kind == "model"]) == model.count == 3
    await own.close()


def test_plain_code_can_close_and_go_on(kaizen_home: Path) -> None:
    configure(model="scripted/one", providers={"scripted": ScriptedProvider(['{"answer": "42"}'] * 2)})
    assert Ask.execute(question="?").answer == "42"
    app = current()
    app.close_blocking()
    assert "kaizen-portal" not in {thread.name for thread in threading.enumerate()}
    assert [file.name for file in kaizen_home.glob("ledger.db*")] == ["ledger.db"]  # its log is folded in
    assert Ask.execute(question="?").answer == "42"
    app.close_blocking()
