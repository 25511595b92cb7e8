"""The pages whose blocks are run, and how a block says what is to be done with it.

A fenced block is run by its language: ``python`` and ``bash`` (or ``console``) in the order of the page, in one process
and one empty folder a page; ``toml`` has to load as settings, ``json`` has to be JSON, other languages are only shown.
An HTML comment on the line above a block says more:

* ``<!-- file: triage.py -->`` writes the block to that file instead of running it (a toml is checked as well).
* ``<!-- holds: triage.py -->`` says that the file, written by an earlier block, has these lines.
* ``<!-- raises: InvalidInput -->`` means that a python block ends with that error. For bash, ``<!-- exits: 3 -->``.
* ``<!-- not run: why -->`` leaves the block alone.

A ``text`` block right after a python or bash block, with at most a line of prose between them that ends in a colon, is
what it prints (for ``raises``, the error's message). ``...`` stands for anything, also for lines, and several spaces
count as one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

ROOT = Path(__file__).parents[2]

Action: TypeAlias = Literal["python", "bash", "write", "holds", "toml", "json", "none", "not run"]

_FENCE = re.compile(r"^(?P<indent> *)(?P<marks>`{3,})(?P<language>\w*)[^\n`]*$")
_COMMENT = re.compile(r"^\s*<!-- (?P<word>file|holds|raises|exits|not run): (?P<value>.+?) -->$")
_ACTIONS: dict[str, Action] = {"python": "python", "bash": "bash", "console": "bash", "toml": "toml", "json": "json"}


@dataclass(frozen=True)
class Block:
    """One fenced block.

    Args:
        page: its path below the root.
        line: of its opening fence, from 1.
        language: its info string.
        text: what it holds.
        action: what is done with it.
        note: the comment's value: a file's name, an error's name, an exit code, a reason.
        expected: what it has to print, or None.
    """

    page: str
    line: int
    language: str
    text: str
    action: Action
    note: str = ""
    expected: str | None = None

    @property
    def where(self) -> str:
        return f"{self.page}:{self.line}"


def pages() -> list[str]:
    """README and everything below docs, as paths below the root."""
    found = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    return [str(path.relative_to(ROOT)) for path in found]


def blocks(page: str, text: str | None = None) -> list[Block]:
    """The blocks of a page, each with what it has to print."""
    lines = ((ROOT / page).read_text("utf-8") if text is None else text).splitlines()
    found: list[Block] = []
    shown_after: dict[int, str] = {}
    for start, end, language, word, value in _fences(lines):
        body = "\n".join(lines[start + 1 : end])
        if language == "text" and not word and found and _follows(lines, found[-1], start):
            shown_after[len(found) - 1] = body
            continue
        action = _action(page, start, language, word)
        found.append(Block(page, start + 1, language, body, action, value))
    return [
        Block(**{**vars(block), "expected": shown_after[index]}) if index in shown_after else block
        for index, block in enumerate(found)
    ]


def _fences(lines: list[str]) -> Iterator[tuple[int, int, str, str, str]]:
    """First and last line (from 0), language, and the comment's two parts."""
    at = 0
    while at < len(lines):
        opened = _FENCE.match(lines[at])
        if opened is None:
            at += 1
            continue
        closing = opened["indent"] + opened["marks"]
        end = next(n for n in range(at + 1, len(lines)) if lines[n].rstrip() == closing)
        above = _COMMENT.match(lines[at - 1]) if at else None
        yield at, end, opened["language"], above["word"] if above else "", above["value"] if above else ""
        at = end + 1


def _action(page: str, start: int, language: str, word: str) -> Action:
    match word:
        case "file":
            return "write"
        case "holds":
            return "holds"
        case "not run":
            return "not run"
        case "raises" if language != "python":
            raise ValueError(f"{page}:{start + 1}: only python raises")
        case "exits" if _ACTIONS.get(language) != "bash":
            raise ValueError(f"{page}:{start + 1}: only bash exits")
        case _:
            return _ACTIONS.get(language, "none")


def _follows(lines: list[str], block: Block, start: int) -> bool:
    if block.action not in ("python", "bash"):
        return False
    between = [line for line in lines[block.line + len(block.text.splitlines()) + 1 : start] if line.strip()]
    return not between or (len(between) == 1 and between[0].rstrip().endswith(":"))


def commands(block: Block) -> tuple[str, str | None]:
    """The script of a bash block and what it has to print: lines without ``$`` are output where others have one."""
    lines = block.text.splitlines()
    if not any(line.startswith("$ ") for line in lines):
        return block.text, block.expected
    script = [line[2:] for line in lines if line.startswith("$ ")]
    printed = [line for line in lines if not line.startswith("$ ")]
    return "\n".join(script), "\n".join(printed) if printed else block.expected


def fits(expected: str, printed: str) -> bool:
    """Whether output is as shown: several spaces count as one, ``...`` is anything, also nothing."""
    shown, real = (
        re.sub(r" +", " ", re.sub(r"[ \t]+$", "", text.strip(), flags=re.MULTILINE)) for text in (expected, printed)
    )
    # the space beside a mark belongs to it, so that a line of its own may also stand for no line
    pattern = r"\s*.*?\s*".join(re.escape(part.strip()) for part in shown.split("..."))
    return re.fullmatch(pattern, real, re.DOTALL) is not None
