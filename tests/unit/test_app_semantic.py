"""The semantic cache is made as the settings say, or not at all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from kaizen.app import semantic
from kaizen.app.semantic import make_book, with_semantic
from kaizen.core.errors import ConfigError
from kaizen.core.scope import LOCAL
from kaizen.inference.onion import Layers
from kaizen.inference.prices import PriceTable
from kaizen.inference.semantic import SemanticCache
from kaizen.settings import Settings, load_settings
from kaizen.stores.cache.memory import MemoryCache
from tests.unit.inference.calls import Scripted

PRICES = PriceTable({}, {})


def settings(folder: Path, **own: Any) -> Settings:
    return load_settings(folder, {}, {"inference": {"semantic": own}})


def test_off_it_is_not_there(tmp_path: Path) -> None:
    assert with_semantic(Layers(), settings(tmp_path), PRICES, MemoryCache(1000)).semantic is None


def test_on_it_goes_round_the_provider_below(tmp_path: Path) -> None:
    made = with_semantic(Layers(meter=False), settings(tmp_path, enabled=True), PRICES, MemoryCache(1000))
    assert made.semantic is not None
    assert made.meter is False
    assert isinstance(made.semantic(Scripted()), SemanticCache)


async def test_the_book_shows_the_settings(tmp_path: Path) -> None:
    book = make_book(settings(tmp_path, false_hits=0.02, explore=0.1), MemoryCache(1000))
    stats = await book.stats(LOCAL)
    assert (stats["budget"], stats["sampling"]) == (0.02, 0.1)


def test_without_what_it_needs_it_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(semantic, "find_spec", lambda name: None if name == "wordllama" else object())
    with pytest.raises(ConfigError, match=r"needs wordllama, .* \"kaizen-engine\[semantic\]\""):
        with_semantic(Layers(), settings(tmp_path, enabled=True), PRICES, MemoryCache(1000))


@pytest.mark.parametrize("own", [{"false_hits": 1.5}, {"explore": -0.1}, {"wrong_usd": {"a": -1}}, {"max_entries": 0}])
def test_a_wrong_value_stops_the_start(tmp_path: Path, own: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(own))):
        settings(tmp_path, **own)
