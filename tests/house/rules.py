"""The house rules that a syntax tree can show, each with a source that breaks it."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

ROOT = Path(__file__).parents[2]

MAX_FILE_LINES = 600
MAX_FUNCTION_LINES = 60
MAX_PARAMETERS = 8

BANNED_WORDS = frozenset(
    {"Manager", "Engine", "Orchestrator", "Coordinator", "Handler", "Helper", "Utils"}
    | {"Base", "Enhanced", "Advanced", "V2"}
)
# Costly to import and not needed by every program: these may be imported where they are used, as extras may.
# Distributions whose modules are called otherwise.
IMPORTED_AS = {
    "opentelemetry_proto": ("opentelemetry", "google"),
    "pyjwt": ("jwt",),
    "pyyaml": ("yaml",),
}
LATE = frozenset({"genai_prices", "plotext", "rich"})

Function: TypeAlias = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Source:
    """One file of src: its path below src/kaizen, its text and its tree."""

    path: str
    text: str

    @property
    def tree(self) -> ast.Module:
        return ast.parse(self.text)

    @property
    def room(self) -> str:
        """The first part of the path: a package, or a module's file name."""
        return self.path.split("/")[0]

    def functions(self) -> Iterator[Function]:
        return (node for node in ast.walk(self.tree) if isinstance(node, Function))


Check: TypeAlias = Callable[[Source], Iterator[str]]


@dataclass(frozen=True)
class Rule:
    """A check that yields a line for each breach, and sources in each of which it has to find one."""

    check: Check
    breaches: tuple[Source, ...]


RULES: list[Rule] = []


def rule(*breaches: str, path: str = "programs/planted.py") -> Callable[[Check], Check]:
    """Register a check, with sources that break it."""

    def register(check: Check) -> Check:
        RULES.append(Rule(check, tuple(Source(path, text) for text in breaches)))
        return check

    return register


def optional_dependencies() -> frozenset[str]:
    """The import names of what the extras bring."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project.get("optional-dependencies", {}).values()
    names = {re.split(r"[^\w-]", need)[0].replace("-", "_") for extra in extras for need in extra}
    return frozenset(name for need in names for name in IMPORTED_AS.get(need, (need,)))


@rule("x = 1\n" * (MAX_FILE_LINES + 1))
def file_size(source: Source) -> Iterator[str]:
    lines = len(source.text.splitlines())
    if lines > MAX_FILE_LINES:
        yield f"{lines} lines, more than {MAX_FILE_LINES}: split the file"


@rule("async def f():\n" + "    x = 1\n" * MAX_FUNCTION_LINES)
def function_size(source: Source) -> Iterator[str]:
    # The docstring does not count: nobody should shorten one to get under the limit.
    for node in source.functions():
        lines = (node.end_lineno or node.lineno) - node.lineno + 1
        if ast.get_docstring(node) is not None:
            doc = node.body[0]
            lines -= (doc.end_lineno or doc.lineno) - doc.lineno + 1
        if lines > MAX_FUNCTION_LINES:
            yield f"{node.lineno}: {node.name} has {lines} lines, more than {MAX_FUNCTION_LINES}"


@rule("class A:\n    def f(self, a, b, c, /, d, e, *f, g, h, **i): ...")
def parameters(source: Source) -> Iterator[str]:
    for node in source.functions():
        args = node.args
        named = [*args.posonlyargs, *args.args, *args.kwonlyargs, args.vararg, args.kwarg]
        names = [arg.arg for arg in named if arg is not None]
        if names[:1] in (["self"], ["cls"]):
            del names[0]
        if len(names) > MAX_PARAMETERS:
            yield f"{node.lineno}: {node.name} takes {len(names)} parameters, more than {MAX_PARAMETERS}"


@rule("class RunManagerV2: ...")
def class_names(source: Source) -> Iterator[str]:
    for node in ast.walk(source.tree):
        if isinstance(node, ast.ClassDef):
            words = re.findall(r"V\d+$|[A-Z]+(?![a-z])|[A-Z]?[a-z]+", node.name)
            for word in BANNED_WORDS.intersection(words):
                yield f"{node.lineno}: {node.name}: say what it is, not {word}"


@rule("import os\nkey = os.environ['KEY']", "import os\nkey = os.getenv('KEY')", "from os import environ")
def environment(source: Source) -> Iterator[str]:
    reads = {"environ", "environb", "getenv", "getenvb"}
    if source.path == "settings/reading.py":
        return
    for node in ast.walk(source.tree):
        match node:
            case ast.Attribute(value=ast.Name(id="os"), attr=name) if name in reads:
                yield f"{node.lineno}: os.{name}: only settings/reading.py reads the environment"
            case ast.ImportFrom(module="os", names=names) if reads & {alias.name for alias in names}:
                yield f"{node.lineno}: only settings/reading.py reads the environment"
            case _:
                pass


@rule("def f():\n    import json")
def late_imports(source: Source) -> Iterator[str]:
    if source.path.startswith("app/") or source.path == "__main__.py":
        return
    allowed = LATE | optional_dependencies()
    for function in source.functions():
        for node in ast.walk(function):
            for name in imported(node):
                if name.split(".")[0] not in allowed:
                    yield f"{node.lineno}: {function.name} imports {name}: move it to the top of the file"


@rule(
    "try:\n    f()\nexcept Exception:\n    pass",
    "try:\n    f()\nexcept (OSError, BaseException):\n    ...",
    "while f():\n    try:\n        g()\n    except:\n        continue",
    "with contextlib.suppress(Exception):\n    f()",
)
def swallowed_errors(source: Source) -> Iterator[str]:
    every = {"Exception", "BaseException"}
    for node in ast.walk(source.tree):
        match node:
            case ast.ExceptHandler(type=kind, body=body) if kind is None or names_in(kind) & every:
                if all(isinstance(line, ast.Pass | ast.Continue) or is_ellipsis(line) for line in body):
                    yield f"{node.lineno}: every error is swallowed"
            case ast.Call(func=func, args=args) if "suppress" in names_in(func):
                if any(names_in(arg) & every for arg in args):
                    yield f"{node.lineno}: every error is suppressed"
            case _:
                pass


@rule("x = 1  # TODO: y")
def left_for_later(source: Source) -> Iterator[str]:
    for number, line in enumerate(source.text.splitlines(), 1):
        if found := re.search(r"\b(TODO|FIXME|XXX|HACK)\b", line):
            yield f"{number}: {found[0]}"


@rule("print('x')")
def prints(source: Source) -> Iterator[str]:
    if source.room in {"serve", "__main__.py"}:
        return
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print":
            yield f"{node.lineno}: only the command line prints"


@rule("import rich", "from kaizen import settings", "import kaizen.settings", path="core/planted.py")
def core_imports(source: Source) -> Iterator[str]:
    if source.room != "core":
        return
    allowed = sys.stdlib_module_names | {"pydantic", "pydantic_core"}
    for node in ast.walk(source.tree):
        for name in imported(node):
            if name.split(".")[0] not in allowed and not name.startswith("kaizen.core"):
                yield f"{node.lineno}: core imports {name}: it may use the standard library and pydantic"


def imported(node: ast.AST) -> list[str]:
    """The absolute modules that an import statement names; none for any other node."""
    match node:
        case ast.Import(names=names):
            return [alias.name for alias in names]
        case ast.ImportFrom(module=str(module), level=0):
            return [module]
        case _:
            return []


def names_in(node: ast.AST) -> set[str]:
    """Every name and attribute name under a node."""
    found = {child.id for child in ast.walk(node) if isinstance(child, ast.Name)}
    return found | {child.attr for child in ast.walk(node) if isinstance(child, ast.Attribute)}


def is_ellipsis(node: ast.stmt) -> bool:
    """Whether a statement is a bare `...`."""
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and node.value.value is ...
