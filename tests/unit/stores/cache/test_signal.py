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
