"""Imports run downward only; the contract in pyproject.toml is tried with planted breaches."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.house.rules import ROOT

HOUSE = {
    "app.py": "import kaizen.providers.wire\nimport kaizen.serve",
    "core/__init__.py": "",
    "inference/__init__.py": "from kaizen.core import x",
    "ledger/__init__.py": "",
    "programs/__init__.py": "from kaizen.inference import x",
    "providers/__init__.py": "",
    "providers/wire.py": "from kaizen.core import x",
    "serve/__init__.py": "",
    "stores/__init__.py": "",
    "testing/__init__.py": "from kaizen.providers import wire",
}

BREACHES = {
    "core imports upward": {"core/__init__.py": "import kaizen.programs"},
    "a type-checking import counts": {
        "core/__init__.py": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import kaizen.app"
    },
    "siblings meet": {"govern/__init__.py": "import kaizen.inference"},
    "a program imports a workflow": {"workflow/__init__.py": "", "programs/a.py": "import kaizen.workflow"},
    "an adapter imports more than core": {"providers/wire.py": "import kaizen.ledger"},
    "adapters meet": {"stores/__init__.py": "import kaizen.providers.wire"},
    "a room imports an adapter": {"inference/a.py": "import kaizen.providers.wire"},
    "the command line imports an adapter": {"serve/a.py": "import kaizen.stores"},
    "src imports the test kit": {"serve/a.py": "import kaizen.testing"},
    "modules import each other": {
        "programs/a.py": "import kaizen.programs.b",
        "programs/b.py": "import kaizen.programs.a",
    },
    "a room has no floor": {"attic/__init__.py": ""},
}


def check(folder: Path) -> subprocess.CompletedProcess[str]:
    command = [Path(sys.executable).with_name("lint-imports"), "--no-cache", "--no-logo"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def check_house(folder: Path, changes: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Check a small house built of these files under the contract of the real one."""
    for name, text in {"__init__.py": "", **HOUSE, **changes}.items():
        file = folder / "kaizen" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text + "\n")
    (folder / "pyproject.toml").write_text((ROOT / "pyproject.toml").read_text())
    return check(folder)


def test_src_keeps_the_contract() -> None:
    result = check(ROOT)
    assert result.returncode == 0, result.stdout + result.stderr


def test_a_sound_house_passes(tmp_path: Path) -> None:
    result = check_house(tmp_path, {})
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize("changes", BREACHES.values(), ids=BREACHES)
def test_a_breach_is_found(changes: dict[str, str], tmp_path: Path) -> None:
    result = check_house(tmp_path, changes)
    assert result.returncode == 1, result.stdout + result.stderr
