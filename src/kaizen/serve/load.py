"""Programs from a user's file: ``triage.py:Triage``."""

from __future__ import annotations

import importlib.util
import sys
import traceback
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, TypeGuard

from kaizen.core.context import Program
from kaizen.core.errors import ConfigError, DefinitionError, KaizenError, NotFound
from kaizen.core.spec import Spec
from kaizen.programs.define import file_module
from kaizen.serve.arguments import nearest


def load_program(target: str) -> Program:
    """The program that ``FILE.py:Name``, or ``FILE.py`` with one program in it, names.

    Raises:
        NotFound: there is no such file, or no such program in it.
        DefinitionError: the file can't be loaded; where and why.
        ConfigError: the file's name hides a module that is needed.
    """
    path, _, name = target.partition(":")
    module = load_module(Path(path))
    found = programs_in(module)
    if name:
        value = getattr(module, name, None)
        if is_program(value):
            return value
        raise NotFound(f"{path} has no program {name}{nearest(name, found) or _choices(path, found)}")
    distinct = {id(program): program for program in found.values()}
    if len(distinct) == 1:
        return next(iter(distinct.values()))
    if not distinct:
        raise NotFound(f"{path} defines no program")
    raise ConfigError(f"{path} defines several programs{_choices(path, found)}")


def _choices(path: str, found: Mapping[str, Program]) -> str:
    return "; choose one: " + ", ".join(f"{path}:{name}" for name in found) if found else "; it defines none"


def load_module(path: Path) -> ModuleType:
    """Execute a file as a module, its folder (or that of its package) first on the import path.

    The module is called what ``import`` would call it from the project's root, see ``file_module``: so two files of one
    name in two folders are two modules, and their programs two programs.

    Raises:
        NotFound, DefinitionError, ConfigError: as ``load_program``.
    """
    module = open_module(path)
    spec = module.__spec__
    if spec is None or spec.loader is None:
        raise AssertionError("made from a file, it has both")
    try:
        spec.loader.exec_module(module)
    except KaizenError:
        raise
    except Exception as error:
        raise DefinitionError(str(path), [f"{place_in(path, error)}{type(error).__name__}: {error}"]) from error
    return module


def open_module(path: Path) -> ModuleType:
    """The module of a file, not executed yet; importable by name from here on.

    Raises:
        NotFound: there is no such file.
        ConfigError: it is no Python file, or its name hides a module that is needed.
    """
    if not path.is_file():
        raise NotFound(f"there is no file {path}")
    if path.suffix != ".py":
        raise ConfigError(f"{path} is no Python file: a program is named as FILE.py:Name")
    path = path.resolve()
    name = file_module(path)
    packaged = (path.parent / "__init__.py").is_file()
    # what others import it as, who stand in its folder: the file may not take that name from another module
    short = name.partition(".")[0] if packaged else path.stem
    known = None if packaged else sys.modules.get(short)
    taken = known is not None and known.__file__ != str(path) and known.__name__ == short
    if short in sys.stdlib_module_names or taken:
        raise ConfigError(f"{path.name} has the name of the module {short!r}, which it would hide: rename the file")
    folder = path.parents[name.count(".") + (path.stem == "__init__")] if packaged else path.parent
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None:
        raise AssertionError("a .py file always has a loader")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    if not packaged:
        sys.modules[short] = module  # a neighbour that imports it must not make a second one
    return module


def place_in(path: Path, error: BaseException) -> str:
    """``line 3: `` for the last place in a file that an error passed; nothing where it passed none."""
    if isinstance(error, SyntaxError) and error.lineno is not None:
        return f"line {error.lineno}: "
    line = line_in(path, error)
    return f"line {line}: " if line else ""


def line_in(path: Path, error: BaseException) -> int | None:
    """The line of the last place in a file that an error passed."""
    lines = [
        frame.lineno for frame in traceback.extract_tb(error.__traceback__) if Path(frame.filename) == path.resolve()
    ]
    return lines[-1] if lines else None


def is_program(value: Any) -> TypeGuard[Program]:
    """Whether a value is a Program: it has a contract and can be called."""
    return isinstance(getattr(value, "spec", None), Spec) and callable(value)


def programs_in(module: ModuleType) -> dict[str, Program]:
    """The programs a module defines itself, by name; imported ones are left out."""
    return {
        name: value
        for name, value in vars(module).items()
        if not name.startswith("_") and is_program(value) and value.spec.name.startswith(f"{module.__name__}.")
    }
