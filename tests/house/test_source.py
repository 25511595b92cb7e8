"""The rules of the house hold for every file of src, and each rule catches what it forbids."""

from __future__ import annotations

import ast
from collections import Counter
from pathlib import Path

import pytest

from tests.house.rules import ROOT, RULES, Rule, Source

SRC = ROOT / "src" / "kaizen"
MAX_PACKAGE_FILES = 14


@pytest.fixture(scope="module")
def sources() -> list[Source]:
    return [Source(path.relative_to(SRC).as_posix(), path.read_text()) for path in sorted(SRC.rglob("*.py"))]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.check.__name__)
def test_src_keeps_the_rule(rule: Rule, sources: list[Source]) -> None:
    assert [f"{source.path}: {breach}" for source in sources for breach in rule.check(source)] == []


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.check.__name__)
def test_the_rule_finds_its_breach(rule: Rule) -> None:
    assert [breach.text for breach in rule.breaches if not list(rule.check(breach))] == []


def test_packages_are_small(sources: list[Source]) -> None:
    files = Counter(str(Path(source.path).parent) for source in sources if not source.path.endswith("__init__.py"))
    assert {package: count for package, count in files.items() if count > MAX_PACKAGE_FILES} == {}


def test_one_link_leads_upward(sources: list[Source]) -> None:
    links = [
        source.path
        for source in sources
        for node in ast.walk(source.tree)
        if isinstance(node, ast.Constant) and node.value == "kaizen.app:current"
    ]
    assert [path.split("/")[0] for path in links] == ["core"]
