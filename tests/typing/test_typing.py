"""The face keeps its types in a user's file, under a strict checker."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parents[1]


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[dict[str, Any]]]:
    """What the checker says about each file here, as a user's project would be checked."""
    config = tmp_path_factory.mktemp("user") / "pyrightconfig.json"
    settings = {
        "include": [str(HERE / "user_code.py"), str(HERE / "mistakes.py")],
        "extraPaths": [str(ROOT / "src")],
        "typeCheckingMode": "strict",
        "pythonVersion": "3.11",
    }
    config.write_text(json.dumps(settings))
    command = [sys.executable, "-m", "basedpyright", "--outputjson", "--pythonpath", sys.executable, "-p", str(config)]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    report = json.loads(run.stdout)
    assert report["summary"]["filesAnalyzed"] == 2
    by_file: dict[str, list[dict[str, Any]]] = {"user_code.py": [], "mistakes.py": []}
    for item in report["generalDiagnostics"]:
        by_file[Path(item["file"]).name].append(item)
    return by_file


def test_answers_wrappers_and_functions_keep_their_types(found: dict[str, list[dict[str, Any]]]) -> None:
    assert [f"{item['range']['start']['line'] + 1}: {item['message']}" for item in found["user_code.py"]] == []


def test_mistakes_are_found_where_they_are(found: dict[str, list[dict[str, Any]]]) -> None:
    lines = (HERE / "mistakes.py").read_text().splitlines()
    wanted = {number: mark[1] for number, line in enumerate(lines, 1) if (mark := re.search(r"# (report\w+)$", line))}
    rules: dict[int, set[str]] = {}
    for item in found["mistakes.py"]:
        rules.setdefault(item["range"]["start"]["line"] + 1, set()).add(item["rule"])
    assert rules.keys() == wanted.keys()
    assert {number: rule for number, rule in wanted.items() if rule not in rules[number]} == {}
