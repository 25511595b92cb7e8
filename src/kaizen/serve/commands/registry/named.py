"""What the commands of the registry are about: ``NAME``, ``kind/NAME``, ``NAME@3`` or ``FILE.py:Name``."""

from __future__ import annotations

import argparse
import getpass
from collections.abc import Sequence
from typing import Final

from kaizen.core.artifact import Arm, Head
from kaizen.core.context import Program
from kaizen.core.errors import NotFound
from kaizen.core.scope import Scope
from kaizen.registry.registry import Registry
from kaizen.serve.arguments import Parser
from kaizen.serve.doors import Runs
from kaizen.serve.load import load_program
from kaizen.serve.shown.versions import Subject
from kaizen.serve.shown.versions import subject as meant

_SHORT: Final = 12


def add_name(parser: Parser) -> None:
    """Add the argument."""
    parser.add_argument(
        "name", metavar="NAME", help="a program's name or its last part, FILE.py:Name, or KIND/NAME of anything else"
    )


def add_whose(parser: Parser) -> None:
    """Add ``--tenant``, ``--environment`` and ``--json``."""
    parser.add_argument("--tenant", metavar="NAME", help="whose (default: the settings' tenant)")
    parser.add_argument("--environment", metavar="NAME", help="which of its environments (default: the settings')")
    parser.add_argument("--json", action="store_true", help="print JSON")


def add_reason(parser: Parser) -> None:
    """Add ``--reason`` and ``--by``."""
    parser.add_argument("--reason", default="", metavar="TEXT", help="why, for whoever reads the history")
    parser.add_argument("--by", metavar="WHO", help="who does it (default: human: and your login)")


def whose(app: Runs, args: argparse.Namespace) -> Scope:
    """The scope that is meant."""
    return Scope(args.tenant or app.scope.tenant, args.environment or app.scope.environment)


def by(args: argparse.Namespace) -> str:
    """Who does it."""
    if args.by:
        return str(args.by)
    try:
        return f"human:{getpass.getuser()}"
    except (KeyError, OSError):  # a machine that knows no name for this user
        return "human"


def opened(text: str) -> tuple[str, str | None, Program | None]:
    """The name in a word, what stands behind its ``@``, and the program, if a file was named.

    It comes before the App: a user's file may configure it.
    """
    name, _, which = text.rpartition("@") if "@" in text else (text, "", "")
    program = None
    if name.partition(":")[0].endswith(".py"):
        program = load_program(name)
        name = program.spec.name
    return name, which or None, program


async def subject(registry: Registry, scope: Scope, word: tuple[str, str | None, Program | None]) -> Subject:
    """What is meant.

    Raises:
        NotFound, Conflict: see ``shown.versions.subject``.
    """
    try:
        return await meant(registry, scope, word)
    except NotFound as error:
        raise NotFound(f"{error.message}; a program can be named as FILE.py:Name, too") from None


# -- what is shown --------------------------------------------------------------------------------


def safe(text: str) -> str:
    """What somebody wrote, in one line: it may hold a terminal's control sequences."""
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)


def short(version: str) -> str:
    """The beginning of a content address, which the commands take for it."""
    return version[:_SHORT]


def arms_text(arms: Sequence[Arm], heads: Sequence[Head]) -> str:
    """What a label shows: ``3``, ``base``, or ``90% base + 10% 3``."""
    numbers = {head.version: f"{head.number}" for head in heads}
    shown = [(numbers.get(arm.version, short(arm.version)), arm.weight) for arm in arms]
    if len(shown) == 1:
        return shown[0][0]
    return " + ".join(f"{weight:.3g} {number}" for number, weight in shown)
