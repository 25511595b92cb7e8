"""The second half of ``make run``: search, test the winner on messages kept back, release it, take it back.

It runs the commands that it shows; each can be repeated by itself, and changed.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from check_data import DATA
from rich.console import Console
from rich.table import Table

PROGRAM: Final = DATA.parent / "triage.py"
# Requests to the model, those of the test among them: what two cores do in a minute and a half or so.
BUDGET: Final = 260
_MESSAGE: Final = "Someone took my wallet at the station and is paying with what was in it"


class Stopped(Exception):
    """A command did not end well; it has said why.

    Args:
        code: its exit status.
    """

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


def improve(console: Console, *, model: str, budget: int, test: Path) -> dict[str, Any]:
    """Tell the story; what ``kaizen optimize`` found, for ``run.json``.

    Args:
        console: where it is told.
        model: which is asked.
        budget: the most requests that may reach it.
        test: the rows that the search can't read.

    Raises:
        Stopped: a command did not end well.
    """
    target = f"{_short(PROGRAM)}:Triage"
    shell = _Shell(console, {**os.environ, "KAIZEN_MODEL": model})
    console.print("[bold]Can it learn?[/bold] A search for better params, with a budget; the test split stays sealed.")
    rows = [word for name in ("train", "validation") for word in (_FLAG[name], _short(DATA / f"{name}.jsonl"))]
    asked = ["optimize", target, *rows, "--test", _short(test), "--budget", str(budget), "--release", "--json"]
    found: dict[str, Any] = json.loads(shell.read(asked))
    console.print(_gain(found))
    if not found["improved"]:
        console.print(f"no improvement: {found['reason']}. Nothing was released.\n")
        return found
    number = next(iter(found["versions"].values()))
    console.print(f"It is version {number} of the program's params, and from now on what runs. What changed:")
    shell.run(["registry", "diff", target, "base", "prod"])
    shell.run(["run", target, "--message", _MESSAGE])
    console.print("And back, as one would after a bad night; nothing is lost, and it can be released again:")
    shell.run(["registry", "rollback", target, "--reason", "the example ends where it began"])
    shell.run(["registry", "history", target])
    return found


_FLAG: Final[Mapping[str, str]] = {"train": "--train", "validation": "--val"}


class _Shell:
    """Commands of ``kaizen``, shown and run."""

    def __init__(self, console: Console, environ: Mapping[str, str]) -> None:
        self._console, self._environ = console, environ

    def run(self, words: Sequence[str]) -> None:
        """One whose output is for the reader."""
        self._start(words)

    def read(self, words: Sequence[str]) -> str:
        """What one wrote; its progress is shown meanwhile."""
        return self._start(words, subprocess.PIPE).stdout

    def _start(self, words: Sequence[str], stdout: int | None = None) -> subprocess.CompletedProcess[str]:
        self._console.print(f"[dim]$ kaizen {shlex.join(words)}[/dim]", soft_wrap=True, highlight=False)
        self._console.file.flush()
        done = subprocess.run(
            [sys.executable, "-m", "kaizen", *words], env=self._environ, stdout=stdout, text=True, check=False
        )
        if done.returncode != 0:
            raise Stopped(done.returncode)
        if stdout is None:
            self._console.print()
        return done


def _gain(found: Mapping[str, Any]) -> Table:
    chosen = "messages it was chosen by" if found["improved"] else "messages to choose by"
    where = "messages kept back" if found["on"] == "test" else chosen
    table = Table(title=f"Triage on {found['n']} {where}", title_justify="left")
    for column in ("before", "after", "gain", "95 % interval", "calls", "seconds"):
        table.add_column(column, justify="right")
    if found["before"] is not None:
        table.add_row(
            f"{found['before']:.0%}",
            f"{found['after']:.0%}",
            f"{found['gain']:+.0%}",
            f"{found['low']:+.0%} to {found['high']:+.0%}",
            f"{found['calls']} of {found['budget']}",
            f"{found['seconds']:.0f}",
        )
    return table


def _short(path: Path) -> str:
    """A path as one would type it from here."""
    here = Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)
