"""The home's secret is made once, whole, for its owner alone."""

from __future__ import annotations

import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event, current_thread

import pytest

from kaizen.core.errors import StoreError
from kaizen.ledger.key import KEY_BYTES, load_key


def test_the_key_is_made_once(kaizen_home: Path) -> None:
    key = load_key(kaizen_home)
    assert len(key) == KEY_BYTES
    assert load_key(kaizen_home) == key
    file = kaizen_home / "ledger.key"
    assert list(kaizen_home.iterdir()) == [file]
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(kaizen_home.stat().st_mode) == 0o700


def test_two_homes_have_two_keys(tmp_path: Path) -> None:
    assert load_key(tmp_path / "a") != load_key(tmp_path / "b")


def test_all_who_ask_at_once_get_the_same_key(kaizen_home: Path) -> None:
    with ThreadPoolExecutor(16) as pool:
        keys = set(pool.map(lambda _: load_key(kaizen_home), range(64)))
    assert len(keys) == 1
    assert [file.name for file in kaizen_home.iterdir()] == ["ledger.key"]


def test_a_key_of_another_length_is_refused(kaizen_home: Path) -> None:
    load_key(kaizen_home)
    (kaizen_home / "ledger.key").write_bytes(b"short")
    with pytest.raises(StoreError, match=r"ledger\.key has 5 bytes, not 32") as caught:
        load_key(kaizen_home)
    assert not caught.value.retryable


def test_a_home_that_cannot_be_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match="file/home"):
        load_key(tmp_path / "file" / "home")


def test_an_empty_file_that_a_power_cut_left_gives_way_to_a_new_key(kaizen_home: Path) -> None:
    kaizen_home.mkdir(parents=True, exist_ok=True)
    (kaizen_home / "ledger.key").touch()
    key = load_key(kaizen_home)
    assert len(key) == KEY_BYTES
    assert load_key(kaizen_home) == key
    assert [file.name for file in kaizen_home.iterdir()] == ["ledger.key"]


def test_two_who_find_the_file_empty_at_once_get_the_same_key(
    kaizen_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, stat_of, seen, done = kaizen_home / "ledger.key", Path.stat, Event(), Event()
    kaizen_home.mkdir(parents=True, exist_ok=True)
    file.touch()
    looks: list[int] = []

    def stat(path: Path, **how: bool) -> object:
        found = stat_of(path, **how)
        if path == file and current_thread().name.endswith("slow_0") and not found.st_size:
            looks.append(found.st_size)
            if len(looks) == 2:  # it is about to put its own key in the place of the empty file
                seen.set()
                done.wait(0.3)
        return found

    monkeypatch.setattr(Path, "stat", stat)
    with ThreadPoolExecutor(1, "slow") as slow, ThreadPoolExecutor(1, "fast") as fast:
        first = slow.submit(load_key, kaizen_home)
        assert seen.wait(5)
        second = fast.submit(load_key, kaizen_home)
        second.add_done_callback(lambda _: done.set())
        assert first.result() == second.result() == load_key(kaizen_home)
    assert [one.name for one in kaizen_home.iterdir()] == ["ledger.key"]
