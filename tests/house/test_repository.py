"""What is committed: plain paths, no trace of the machine, dependencies pinned, explained and free."""

from __future__ import annotations

import importlib.metadata
import re
import subprocess
import tomllib
from collections.abc import Iterator

import pytest

from tests.house.rules import ROOT

DATED = re.compile(r"(?i)(?:^|[/_.-])(?:(?:phase|ticket|issue|sprint|milestone)[_-]?\d+|20\d\d[_-]?\d\d)(?:\D|$)")
REGISTRY = re.compile(r"(?i)\b(?:pypi\.org|pythonhosted\.org|registry\.npmjs\.org|deb\.debian\.org)\b")
MACHINE = re.compile(r"(?<![\w.~*}-])/(?:work|root|home)/\w")


def committed() -> list[str]:
    """What git tracks, or would: everything it does not ignore."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if run.returncode:
        pytest.skip("not a git checkout")
    return [path for path in run.stdout.splitlines() if (ROOT / path).is_file()]


def lines(path: str) -> Iterator[tuple[int, str]]:
    try:
        yield from enumerate((ROOT / path).read_text("utf-8").splitlines(), 1)
    except UnicodeDecodeError:
        return  # an image has no lines


def test_no_phase_ticket_or_date_in_a_path() -> None:
    assert [path for path in committed() if DATED.search(path)] == []


@pytest.mark.parametrize("path", ["src/phase2.py", "docs/issue-14.md", "tests/ticket_7/a.py", "notes/2031-05-01.md"])
def test_a_dated_path_is_found(path: str) -> None:
    assert DATED.search(path)


@pytest.mark.parametrize("pattern", [REGISTRY, MACHINE], ids=["registry", "machine"])
def test_no_trace_of_a_machine(pattern: re.Pattern[str]) -> None:
    found = [f"{path}:{n}: {line.strip()}" for path in committed() for n, line in lines(path) if pattern.search(line)]
    assert found == []


def test_a_trace_of_a_machine_is_found() -> None:
    assert REGISTRY.search("https://pypi" + ".org/simple")
    assert MACHINE.search("see /work" + "/a.txt")
    assert not MACHINE.search("docs/work/a.txt or {base}/home/x")


def project() -> dict[str, list[str]]:
    """The direct dependencies by group: base, each extra, dev, and what a checkout needs beside them."""
    tree = tomllib.loads((ROOT / "pyproject.toml").read_text())
    groups = {
        "base": tree["project"]["dependencies"],
        **tree["project"]["optional-dependencies"],
        **tree["dependency-groups"],
    }
    for name in ("run", "uv"):
        text = (ROOT / "requirements" / f"{name}.in").read_text()
        groups[name] = [line for line in text.splitlines() if line and not line.startswith("#")]
    return {group: [plain(need) for need in needs] for group, needs in groups.items()}


def plain(requirement: str) -> str:
    """`Import_Linter[x]>=2 ; marker` -> `import-linter`."""
    return re.split(r"[^\w.-]", requirement.strip())[0].lower().replace("_", "-")


def pins(name: str) -> dict[str, tuple[str, ...]]:
    """Package -> version and hashes, of one compiled requirements file."""
    text = (ROOT / "requirements" / f"{name}.txt").read_text()
    blocks = re.findall(r"^([\w.-]+)==(\S+)((?:.*\\\n)*.*)$", text, re.MULTILINE)
    return {package: (version, *re.findall(r"--hash=(sha256:\w+)", rest)) for package, version, rest in blocks}


def test_every_dependency_is_explained() -> None:
    rows = re.findall(r"^\| \[?`?([\w.-]+)", (ROOT / "docs" / "dependencies.md").read_text(), re.MULTILINE)
    assert {need for needs in project().values() for need in needs} - set(rows) == set()


@pytest.mark.parametrize("name", ["run", "dev", "uv"])
def test_pins_have_hashes_and_no_address(name: str) -> None:
    assert [package for package, (_, *hashes) in pins(name).items() if not hashes] == []
    assert "://" not in (ROOT / "requirements" / f"{name}.txt").read_text()


def test_every_dependency_is_pinned_and_the_same_everywhere() -> None:
    needs, run, dev = project(), pins("run"), pins("dev")
    assert {*needs["base"], *needs["embedded"], *needs["run"]} - run.keys() == set()
    assert set(needs["dev"]) - dev.keys() == set()
    assert run.items() <= dev.items()
    assert not {"llm", "llama-cpp-python"} & dev.keys()


def shipped(name: str = "kaizen-engine", seen: frozenset[str] = frozenset()) -> frozenset[str]:
    """Every installed distribution that an install of ours with all extras brings."""
    for need in importlib.metadata.requires(name) or ():
        package = plain(need)
        ours = name == "kaizen-engine" or "extra ==" not in need
        if ours and package not in seen and next(importlib.metadata.Distribution.discover(name=package), None):
            seen = shipped(package, seen | {package})
    return seen


def licence(package: str) -> str:
    """What the metadata say, or else how the licence file begins."""
    meta = importlib.metadata.metadata(package)
    told = [line for key in ("License-Expression", "License", "Classifier") for line in meta.get_all(key, [])]
    text = " ".join(line for line in told if "::" not in line or line.startswith("License"))
    for file in importlib.metadata.files(package) or ():
        if not text.strip() and re.search(r"LICEN[CS]E|COPYING", file.name):
            text = file.read_text()
    return text.strip()[:200]


def test_what_we_ship_is_freely_licensed() -> None:
    packages = shipped()
    assert {"pydantic", "pydantic-core", "httptools", "xllamacpp"} <= packages
    told = {package: licence(package) for package in packages}
    copyleft = re.compile(r"\bA?GPL|GENERAL PUBLIC LICENSE", re.IGNORECASE)
    assert {package: text for package, text in told.items() if not text or copyleft.search(text)} == {}
