"""The table of bars: each is measured by a script that is there, from figures that are kept and can be read."""

from __future__ import annotations

import json
import runpy
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
_table = runpy.run_path(str(BENCHMARKS / "bars.py"))


@pytest.mark.parametrize("bar", _table["BARS"], ids=lambda bar: bar.what)
def test_a_bar_has_its_script_and_its_figure(bar: Any) -> None:
    assert (BENCHMARKS / f"{_table['SCRIPTS'][bar.script].path}.py").is_file()
    result = json.loads((BENCHMARKS / "results" / f"{bar.script}.json").read_text("utf-8"))
    assert bar.figure(result)
    assert bar.met(result) in (True, False)
    assert result["command"].startswith("python ")
