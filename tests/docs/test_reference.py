"""What is generated is not stale, and every link leads somewhere."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.docs.pages import ROOT, pages
from tools.docs import between, documents, figures

LINK = re.compile(r"(?<!!)\[[^\]\n]+\]\((?!https?:)([^)#\s]*)(?:#([\w-]+))?\)")
CODE = re.compile(r"^```.*?^```|`[^`\n]*`", re.MULTILINE | re.DOTALL)


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as the usual renderers make them."""
    text = re.sub(r"^```.*?^```", "", page.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def links(page: str) -> list[tuple[Path, str]]:
    """Where a page's links lead: file and anchor."""
    text = CODE.sub("", (ROOT / page).read_text("utf-8"))
    here = (ROOT / page).parent
    return [((here / to).resolve() if to else ROOT / page, anchor) for to, anchor in LINK.findall(text)]


def test_nothing_generated_is_stale() -> None:
    stale = [path for path, text in documents().items() if not path.exists() or path.read_text("utf-8") != text]
    assert [str(path.relative_to(ROOT)) for path in stale] == [], "run `make docs`"


@pytest.mark.parametrize("page", pages())
def test_links_lead_somewhere(page: str) -> None:
    dead = [
        f"{to.relative_to(ROOT)}#{anchor}"
        for to, anchor in links(page)
        if not to.exists() or (anchor and anchor not in anchors(to))
    ]
    assert dead == []


def test_every_page_can_be_reached() -> None:
    reached, pending = set[Path](), [ROOT / "README.md"]
    while pending:
        page = pending.pop()
        if page in reached or page.suffix != ".md":
            continue
        reached.add(page)
        pending += [to for to, _ in links(str(page.relative_to(ROOT))) if to.is_relative_to(ROOT) and to.exists()]
    decisions = ROOT / "docs" / "decisions"  # linked as a folder
    assert {ROOT / page for page in pages()} - reached - set(decisions.glob("*.md")) == set()


def test_measured_figures_become_a_table(tmp_path: Path) -> None:
    assert figures(tmp_path) == ""
    row = {"what": "one call", "measured": "300 µs", "against": "dspy 1,900 µs"}
    (tmp_path / "call.json").write_text(json.dumps({"command": "python benchmarks/call.py", "readme": [row]}))
    (tmp_path / "other.json").write_text(json.dumps({"command": "python benchmarks/other.py"}))
    assert "| one call | 300 µs | dspy 1,900 µs | `python benchmarks/call.py` |\n" in figures(tmp_path)
    with pytest.raises(ValueError, match="no <!-- measured -->"):
        between("no markers", "measured", "x")
