"""Every code block of README and docs does what the page says."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from kaizen.settings import load_settings
from tests.docs.pages import ROOT, Block, blocks, commands, fits, pages

HERE = Path(__file__).parent
NOT_RUN = 5  # blocks that are only shown; each one more is a block that may rot


def run_page(found: list[Block], folder: Path) -> list[str]:
    """Run a page's blocks in a folder; a line for each that does not do what it should."""
    steps = [block for block in found if block.action in ("python", "bash", "write", "holds")]
    if not steps:
        return []
    out = folder.parent / f"{folder.name}.json"
    environ = os.environ | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": os.pathsep.join([str(HERE / "closed"), str(ROOT / "src")]),
        "XDG_DATA_HOME": str(folder.parent / "data"),  # no models that the developer pulled
        "KAIZEN_HOME": "",  # the page's own: .kaizen in its folder
        "COLUMNS": "120",
    }
    run = subprocess.run(
        [sys.executable, "-W", "error", str(HERE / "session.py"), str(out)],
        input=json.dumps([_step(block) for block in steps]),
        cwd=folder,
        env=environ,
        capture_output=True,
        text=True,
        check=False,
    )
    if not out.exists():
        return [f"{found[0].page}: {run.stderr}"]
    done: list[dict[str, Any]] = json.loads(out.read_text("utf-8"))
    problems = [problem for block, did in zip(steps, done, strict=False) if (problem := _problem(block, did))]
    if run.returncode or (run.stderr and not problems):
        problems.append(f"{found[0].page}: exit code {run.returncode}\n{run.stderr}")
    return problems


def _step(block: Block) -> dict[str, Any]:
    text = commands(block)[0] if block.action == "bash" else block.text
    return {
        "action": block.action,
        "page": block.page,
        "line": block.line,
        "text": text,
        "file": block.note,
        "raises": block.note if block.action == "python" else "",
        "exits": int(block.note or 0) if block.action == "bash" else 0,
    }


def _problem(block: Block, did: dict[str, Any]) -> str:
    expected = commands(block)[1] if block.action == "bash" else block.expected
    if did["failed"]:
        return f"{block.where}: {did['failed']}"
    if expected is not None and not fits(expected, did["printed"]):
        return f"{block.where} printed\n{did['printed']}"
    return ""


@pytest.mark.parametrize("page", [page for page in pages() if blocks(page)])
@pytest.mark.usefixtures("weights")
def test_a_page_does_what_it_says(page: str, tmp_path: Path) -> None:
    found = blocks(page)
    folder = tmp_path / "page"
    folder.mkdir()
    for block in found:
        if block.language == "toml" and block.action != "not run":
            project = tmp_path / f"settings-{block.line}"
            project.mkdir()
            (project / "kaizen.toml").write_text(block.text, "utf-8")
            load_settings(project, {}, {})
        if block.action == "json":
            json.loads(block.text)
    problems = run_page(found, folder)
    assert not problems, "\n".join(problems)


def test_few_blocks_are_not_run_and_each_says_why() -> None:
    left = [block for page in pages() for block in blocks(page) if block.action == "not run"]
    assert [block.where for block in left if len(block.note.split()) < 2] == []
    assert len(left) <= NOT_RUN, [f"{block.where}: {block.note}" for block in left]


PLANTED = """
```python
print("one", 2)
```

```text
one ...
```

<!-- file: note.txt -->
```text
kept
```

<!-- holds: note.txt -->
```text
kept
```

```bash
cat note.txt
```

```text
kept
```

<!-- raises: ZeroDivisionError -->
```python
1 / 0
```

It says:

```text
division by zero
```

<!-- exits: 3 -->
```console
exit 3
```

```console
$ echo a; echo b
a
b
```
"""


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("", ""),
        ("one ...", "two ..."),
        ("kept\n```\n\n<!-- holds", "lost\n```\n\n<!-- holds"),
        ("\nkept\n```\n\n<!-- raises", "\nlost\n```\n\n<!-- raises"),
        ("raises: Zero", "raises: One"),
        ("1 / 0", "1 / 1"),
        ("division by zero", "division by one"),
        ("exits: 3", "exits: 4"),
        ("$ echo a; echo b\na", "$ echo a; echo b\nc"),
    ],
)
def test_a_page_that_is_wrong_is_found(right: str, wrong: str, tmp_path: Path) -> None:
    assert PLANTED.count(right) == 1 or not right
    text = PLANTED.replace(right, wrong) if right else PLANTED
    folder = tmp_path / "page"
    folder.mkdir()
    assert bool(run_page(blocks("planted.md", text), folder)) is bool(right)


@pytest.mark.parametrize(
    "block",
    [
        "```python\nimport socket\nsocket.create_connection(('192.0.2.1', 80))\n```",
        "```python\nimport socket\nsocket.getaddrinfo('example.com', 80)\n```",
        "```bash\npython -c 'import socket; socket.getaddrinfo(\"example.com\", 80)'\n```",
    ],
)
def test_the_network_is_closed_to_a_page(block: str, tmp_path: Path) -> None:
    folder = tmp_path / "page"
    folder.mkdir()
    assert "the docs run without a network" in run_page(blocks("planted.md", block), folder)[0]


def test_what_is_not_run_is_seen() -> None:
    found = blocks("planted.md", "<!-- not run: it installs -->\n```bash\nfalse\n```\n")
    assert [(block.action, block.note) for block in found] == [("not run", "it installs")]
    with pytest.raises(ValueError, match=r"planted.md:2: only python raises"):
        blocks("planted.md", "<!-- raises: X -->\n```bash\nfalse\n```\n")
    with pytest.raises(ValueError, match=r"planted.md:2: only bash exits"):
        blocks("planted.md", "<!-- exits: 3 -->\n```python\nfalse\n```\n")
