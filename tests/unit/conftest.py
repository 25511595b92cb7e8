"""A house for every test: an App with a scripted model, set up as the process's own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import kaizen.app
from tests.unit.programs.house import House, Open, open_house


@pytest.fixture
def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Open]:
    """``house(replies, mode="json", policy=None, ...)`` opens one; a later one takes over."""
    opened: list[House] = []

    def make(replies: Any = (), **how: Any) -> House:
        opened.append(open_house(tmp_path, replies, **how))
        monkeypatch.setattr(kaizen.app, "_current", opened[-1].app)
        return opened[-1]

    yield make
    for one in opened:
        one.app._portal.close()
