"""Parsing of arguments: argparse, with errors of one line that name the nearest right word, and open-ended flags."""

from __future__ import annotations

import argparse
import difflib
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from kaizen.serve.doors import Doors
from kaizen.serve.errors import USAGE


@dataclass(frozen=True, slots=True)
class Command:
    """One command.

    Args:
        arguments: adds its arguments to a parser.
        work: does it; the exit code.
        examples: command lines and what each does, shown in its help.
        takes_inputs: whether flags it does not know are a program's inputs: pairs in ``inputs``.
        more_help: lines to add to the help, made from the words that are no flags.
    """

    arguments: Callable[[Parser], None]
    work: Callable[[argparse.Namespace, Doors], int]
    examples: Sequence[tuple[str, str]]
    takes_inputs: bool = False
    more_help: Callable[[Sequence[str]], str] | None = None


class Parser(argparse.ArgumentParser):
    """An argparse parser that knows which of its flags take a value, and says in one line what is wrong."""

    def __init__(self, command: str, about: str, examples: Iterable[tuple[str, str]] = ()) -> None:
        self._takes_value: dict[str, bool] = {}
        shown = "\n".join(f"  {line}\n      {what}" for line, what in examples)
        super().__init__(
            prog=f"kaizen {command}",
            description=about,
            epilog=f"examples:\n{shown}" if shown else None,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
            add_help=False,
        )
        self.add_argument("-h", "--help", action="store_true", help="show this and exit")
        self.add_argument("--debug", action="store_true", help="show the traceback of an error")

    def add_argument(self, *names: str, **options: Any) -> argparse.Action:
        """As argparse's; what takes a value is noted."""
        action = super().add_argument(*names, **options)
        self._takes_value |= dict.fromkeys(action.option_strings, action.nargs != 0)
        return action

    def error(self, message: str) -> NoReturn:
        """One line, and the exit code for wrong usage."""
        self.exit(USAGE, f"error: {message}; see {self.prog} --help\n")

    @property
    def flags(self) -> tuple[str, ...]:
        """Every flag of this parser."""
        return tuple(self._takes_value)

    def split(self, argv: Sequence[str]) -> Split:
        """Tell a command's own arguments from flags it does not know, in whatever order they come.

        An unknown flag takes the next word as its value, ``-5`` and the like included, unless that is a flag of
        this command.
        """
        own: list[str] = []
        words: list[str] = []
        others: list[tuple[str, str | None]] = []
        rest = list(argv)[::-1]
        while rest:
            token = rest.pop()
            name, equals, value = token.partition("=")
            if name in self._takes_value:
                own.append(token)
                if self._takes_value[name] and not equals and rest:
                    # joined, so that a value such as -5 is not taken for a flag
                    own[-1] = f"{name}={rest.pop()}"
            elif token.startswith("--") and len(token) > 2:
                given = value if equals else None
                if not equals and rest and rest[-1].partition("=")[0] not in self._takes_value:
                    given = rest.pop()
                others.append((name, given))
            else:
                own.append(token)
                words.append(token)
        return Split(own, words, others)


@dataclass(frozen=True, slots=True)
class Split:
    """A command line taken apart.

    Args:
        own: what the command's parser gets.
        words: those of them that are no flags.
        others: unknown flags, each with its value; None where it has none.
    """

    own: list[str]
    words: list[str]
    others: list[tuple[str, str | None]]


def nearest(word: str, known: Iterable[str]) -> str:
    """``; did you mean X?`` for a wrong word, or nothing."""
    found = difflib.get_close_matches(word, list(known), n=1)
    return f"; did you mean {found[0]}?" if found else ""


def whole_number(text: str) -> int:
    """An argument that counts something: 1 or more.

    Raises:
        argparse.ArgumentTypeError: if it does not.
    """
    try:
        number = int(text)
    except ValueError:
        number = 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"should be a whole number above 0, not {text!r}")
    return number


def say(line: str) -> None:
    """Tell the person at the terminal something that is not the command's result."""
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()
