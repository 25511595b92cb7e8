"""The word between processes: whoever maps the file sees that it was given."""

from __future__ import annotations

import stat
from pathlib import Path

from kaizen.stores.cache.signal import Signal


def test_each_word_is_another_one_and_all_see_it(tmp_path: Path) -> None:
    one, other = Signal(tmp_path / "word"), Signal(tmp_path / "word")
    assert one.last == 0
    one.give()  # nobody to hear it yet
    one.open()
    other.open()
    seen = {one.last}
    for signal in (one, other) * 3:
        signal.give()
        assert one.last == other.last
        seen.add(one.last)
    assert len(seen) == 7
    assert stat.S_IMODE((tmp_path / "word").stat().st_mode) == 0o600
    one.close()
    one.close()
    assert (one.last, other.last != 0) == (0, True)
    again = Signal(tmp_path / "word")
    again.open()
    assert again.last == other.last  # what is there stays
    again.close()
    other.close()


def test_who_put_last_is_another_number_and_an_older_file_grows(tmp_path: Path) -> None:
    (tmp_path / "word").write_bytes((7).to_bytes(8, "little"))
    one, other = Signal(tmp_path / "word"), Signal(tmp_path / "word")
    one.putter = 3  # nobody to hear it yet
    assert one.putter == 0
    one.open()
    other.open()
    assert (one.last, one.putter) == (7, 0)
    one.putter = 3
    assert (other.last, other.putter) == (7, 3)
    other.give()
    assert (one.last == other.last, one.putter) == (True, 3)
    one.close()
    other.close()
