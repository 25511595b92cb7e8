"""What ``tools/evidence.py`` switches off is there to be switched off."""

from __future__ import annotations

import ast

import pytest

from tools.evidence import PARTS, ROOT, Part


@pytest.mark.parametrize("part", PARTS, ids=lambda part: part.name)
def test_every_part_can_be_switched_off(part: Part) -> None:
    text = (ROOT / "src" / "kaizen" / part.file).read_text("utf-8")
    without = part.off(text)
    assert ast.dump(ast.parse(without)) != ast.dump(ast.parse(text))
    assert all((ROOT / "tests" / "e2e" / test).exists() for test in part.tests)
