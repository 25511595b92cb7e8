"""``kaizen validate``: every mistake in a file's definitions, each with its line."""

from __future__ import annotations
import __future__

import argparse
import ast
import re
import sys
import tokenize
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from types import CodeType
from typing import Any, Final

from pydantic_core import to_json

from kaizen.core.errors import DefinitionError, KaizenError
from kaizen.serve.arguments import Command, Parser, say
from kaizen.serve.doors import Doors
from kaizen.serve.errors import FINDINGS, OK, one_line
from kaizen.serve.load import line_in, open_module, programs_in

_FIELD: Final = re.compile(r"^(?:field|parameter) '(\w+)")
_UNDEFINED: Final = re.compile(r"refers to '(\w+)', which is not defined")


@dataclass(frozen=True, slots=True, order=True)
class Finding:
    """One mistake: where, and what to write instead. ``line`` counts from 1."""

    file: str
    line: int
    message: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.message}"


@dataclass(frozen=True, slots=True)
class Report:
    """What a file holds: its programs by name, and the mistakes in order of their lines."""

    programs: tuple[str, ...]
    findings: tuple[Finding, ...]


def check_file(path: Path) -> Report:
    """Execute a file statement by statement, so that a wrong definition does not hide the next one.

    What is missing only because an earlier definition failed is not reported again.

    Raises:
        NotFound, ConfigError: there is no such Python file.
    """
    module = open_module(path)
    try:
        with tokenize.open(path) as file:
            tree = ast.parse(file.read(), str(path.resolve()))
    except (SyntaxError, UnicodeDecodeError, ValueError) as error:
        line = (error.lineno if isinstance(error, SyntaxError) else None) or 1
        said = error.msg if isinstance(error, SyntaxError) else str(error)
        return Report((), (Finding(str(path), line, f"syntax error: {said}"),))
    failed: set[str] = set()
    findings: list[Finding] = []
    for statement, code in _statements(tree, str(path.resolve())):
        try:
            exec(code, vars(module))  # noqa: S102 - the user's own file, as importing it would
        except Exception as error:  # noqa: BLE001 - whatever a file's own code raises is a finding
            failed |= set(_bound(statement))
            findings += _findings(path, statement, error, failed)
    return Report(tuple(programs_in(module)), tuple(sorted(findings)))


def _statements(tree: ast.Module, file: str) -> Iterator[tuple[ast.stmt, CodeType]]:
    """Each statement compiled alone, under the future imports of the whole."""
    flags = 0
    for statement in tree.body:
        if isinstance(statement, ast.ImportFrom) and statement.module == "__future__":
            for alias in statement.names:
                flags |= getattr(__future__, alias.name).compiler_flag
        yield statement, compile(ast.Module([statement], []), file, "exec", flags=flags, dont_inherit=True)


def _bound(statement: ast.stmt) -> Iterator[str]:
    """The names a statement would have bound."""
    for node in ast.walk(statement):
        match node:
            case ast.ClassDef(name=name) | ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                yield name
            case ast.Name(id=name, ctx=ast.Store()):
                yield name
            case ast.alias(name=name, asname=asname):
                yield asname or name.split(".")[0]
            case _:
                pass


def _findings(path: Path, statement: ast.stmt, error: Exception, failed: set[str]) -> Iterator[Finding]:
    match error:
        case DefinitionError(where=where, mistakes=mistakes):
            for mistake in mistakes:
                undefined = _UNDEFINED.search(mistake)
                if undefined is None or undefined[1] not in failed:
                    line = _field_line(statement, where, mistake) or line_in(path, error) or statement.lineno
                    yield Finding(str(path), line, f"{where.rpartition('.')[2]}: {mistake}")
        case NameError(name=name) if name in failed:
            return
        case KaizenError():
            yield Finding(str(path), line_in(path, error) or statement.lineno, one_line(error))
        case _:
            line = line_in(path, error) or statement.lineno
            yield Finding(str(path), line, f"{type(error).__name__}: {error}")


def _field_line(statement: ast.stmt, where: str, mistake: str) -> int | None:
    """The line of the field or parameter a mistake is about, else of the definition it is in."""
    owner = where.rpartition(".")[2]
    definitions = (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    node = next((n for n in ast.walk(statement) if isinstance(n, definitions) and n.name == owner), None)
    if node is None:
        return None
    named = _FIELD.match(mistake)
    if named is None:
        return node.lineno
    places: dict[str, int] = {}
    for child in [*node.body, *_parameters(node)]:
        match child:
            case ast.AnnAssign(target=ast.Name(id=name)) | ast.Assign(targets=[ast.Name(id=name)]) | ast.arg(arg=name):
                places.setdefault(name, child.lineno)
            case _:
                pass
    return places.get(named[1], node.lineno)


def _parameters(node: ast.stmt) -> list[ast.arg]:
    if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        return []
    own = node.args
    every = [*own.posonlyargs, *own.args, own.vararg, *own.kwonlyargs, own.kwarg]
    return [arg for arg in every if arg is not None]


def _arguments(parser: Parser) -> None:
    parser.add_argument("file", metavar="FILE", type=Path, help="a Python file that defines programs")
    parser.add_argument("--json", action="store_true", help="print one JSON object: programs, and findings")


def _validate(args: argparse.Namespace, _: Doors) -> int:
    file: Path = args.file
    report = check_file(file)
    if args.json:
        shown: dict[str, Any] = {"programs": report.programs, "findings": [asdict(one) for one in report.findings]}
        sys.stdout.write(f"{to_json(shown).decode()}\n")
    else:
        for finding in report.findings:
            sys.stdout.write(f"{finding}\n")
        count = len(report.findings)
        programs = ", ".join(report.programs) or "none"
        say(f"{file}: {count or 'no'} mistake{'' if count == 1 else 's'}; programs: {programs}")
    return FINDINGS if report.findings else OK


VALIDATE: Final = Command(
    _arguments,
    _validate,
    (
        ("kaizen validate triage.py", "one line a mistake, FILE:LINE: MESSAGE; exit code 1 if there are any"),
        ("kaizen validate triage.py --json", "the same for a script"),
    ),
)
