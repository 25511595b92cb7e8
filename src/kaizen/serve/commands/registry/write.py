"""``kaizen registry put``, ``edit`` and ``pull``: versions that people write, as files they can read."""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pydantic_core import from_json, to_json

from kaizen.core.artifact import Artifact, Version
from kaizen.core.context import Program
from kaizen.core.errors import ConfigError, Conflict, InvalidInput, KaizenError, NotFound, StoreError
from kaizen.core.params import Params
from kaizen.core.scope import Scope
from kaizen.registry.params import read_file, readable, save, to_json_text, to_toml
from kaizen.registry.registry import PARAMS, Registry
from kaizen.registry.toml import NotWritable
from kaizen.serve.arguments import Command, Parser, say
from kaizen.serve.commands.registry.named import (
    add_name,
    add_reason,
    add_whose,
    by,
    opened,
    subject,
    whose,
)
from kaizen.serve.commands.tables import json_text, when
from kaizen.serve.doors import Doors, Runs, using
from kaizen.serve.errors import OK
from kaizen.serve.shown.versions import Held, Subject, head_json, head_of, held, version_for


@dataclass(frozen=True, slots=True)
class _Kept:
    """A version that was put.

    Args:
        version: as the registry has it.
        known: whether it was there already.
    """

    version: Version
    known: bool


async def _keep(registry: Registry, scope: Scope, artifact: Artifact, args: argparse.Namespace) -> _Kept:
    before = await registry.archive.find(scope, artifact.kind, artifact.name, artifact.version)
    version = await registry.put(scope, artifact, author=by(args), reason=args.reason)
    return _Kept(version, before is not None)


def _say(kept: _Kept, *, as_json: bool) -> None:
    version, artifact = kept.version, kept.version.artifact
    if as_json:
        sys.stdout.write(f"{json_text({**head_json(head_of(version)), 'known': kept.known})}\n")
        return
    what = f"{artifact.kind}/{artifact.name} version {version.number}"
    sys.stdout.write(f"{what}, which was there already\n" if kept.known else f"{what}\n")


# -- put ------------------------------------------------------------------------------------------


def _put_arguments(parser: Parser) -> None:
    parser.add_argument("file", type=Path, metavar="FILE", help="TOML or JSON, as pull writes it")
    parser.add_argument("name", nargs="?", metavar="NAME", help="whose it is, if the file does not say: as for show")
    add_reason(parser)
    add_whose(parser)


def _put(args: argparse.Namespace, doors: Doors) -> int:
    text = _read(args.file)
    word = opened(args.name) if args.name else None

    async def work(app: Runs) -> _Kept:
        scope, registry = whose(app, args), app.registry
        what = None if word is None else await _named(registry, scope, word)
        if what is not None and what.kind != PARAMS:
            return await _keep(registry, scope, Artifact(what.kind, what.name, to_json(_tree(text, args.file))), args)
        try:
            file = read_file(text)
        except InvalidInput as error:
            raise InvalidInput(f"{args.file}: {error}") from None
        if what is None:
            if file.program is None:
                raise ConfigError(f"{args.file} does not say whose params it holds: add NAME, such as triage.py:Triage")
            what = Subject(PARAMS, file.program)
        return await _keep(registry, scope, await version_for(registry, scope, what, file.params, ()), args)

    _say(asyncio.run(using(doors.app(), work)), as_json=args.json)
    return OK


async def _named(registry: Registry, scope: Scope, word: tuple[str, str | None, Program | None]) -> Subject:
    try:
        return await subject(registry, scope, word)
    except NotFound:
        kind, slash, name = word[0].partition("/")
        if slash and kind != PARAMS:  # the first of its kind
            return Subject(kind, name)
        raise


def _tree(text: str, path: Path) -> Any:
    try:
        return tomllib.loads(text) if path.suffix == ".toml" else from_json(text)
    except ValueError as error:
        raise InvalidInput(f"{path} is neither JSON nor TOML: {error}") from None


def _read(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except FileNotFoundError:
        raise NotFound(f"there is no file {path}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} can't be read: {error}") from None


PUT: Final = Command(
    _put_arguments,
    _put,
    (
        ("kaizen registry put triage.toml", "a new version of the program that the file names; no label moves"),
        (
            'kaizen registry put better.toml triage.py:Triage --reason "clearer words"',
            "of another one, for its contract",
        ),
        ("kaizen registry put limits.json policy/limits", "anything else that has versions"),
    ),
)

# -- pull -----------------------------------------------------------------------------------------


def _pull_arguments(parser: Parser) -> None:
    add_name(parser)
    parser.add_argument("--version", metavar="V", help="base, latest, a label or a number (default: latest)")
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help=".toml or .json; standard output without it")
    parser.add_argument("--force", action="store_true", help="overwrite the file")
    parser.add_argument("--tenant", metavar="NAME", help="whose (default: the settings' tenant)")
    parser.add_argument("--environment", metavar="NAME", help="which of its environments (default: the settings')")


def _pull(args: argparse.Namespace, doors: Doors) -> int:
    word = opened(args.name)

    async def work(app: Runs) -> Held:
        scope = whose(app, args)
        what = await subject(app.registry, scope, word)
        return await held(app.registry, scope, what, args.version or what.which)

    one = asyncio.run(using(doors.app(), work))
    suffix = "" if args.output is None else args.output.suffix
    text = _text(one, suffix)
    if args.output is None:
        sys.stdout.write(text)
        return OK
    try:
        with args.output.open("w" if args.force else "x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise StoreError(f"{args.output} is there already; --force overwrites it") from None
    except OSError as error:
        raise StoreError(f"can't write {args.output}: {error.strerror}") from None
    say(f"{one.what.full} version {one.shown} is in {args.output}")
    return OK


def _text(one: Held, suffix: str) -> str:
    if one.what.kind != PARAMS:
        return json.dumps(one.tree, indent=2, ensure_ascii=False) + "\n"
    params, program = _params(one), one.what.name
    if suffix == ".json":
        return to_json_text(params, program=program)
    if suffix != ".toml":
        return readable(params, program=program, comment=_comment(one))[0]
    try:
        return to_toml(params, program=program, comment=_comment(one))
    except NotWritable:
        raise ConfigError(
            f"{one.what.name} version {one.shown} holds a null, which TOML can't: write a .json"
        ) from None


def _params(one: Held) -> Params:
    return read_file(to_json(one.tree)).params


def _comment(one: Held) -> list[str]:
    version = one.version
    if version is None:
        return [f"{one.what.full}, the params in the code"]
    lines = [f"{one.what.full} version {version.number}, by {version.author}, {when(version.at)}"]
    return [" ".join(line.split()) for line in (*lines, version.reason) if line]


PULL: Final = Command(
    _pull_arguments,
    _pull,
    (
        ("kaizen registry pull triage.Triage --version prod -o triage.toml", "a file to read, keep or change"),
        ("kaizen registry pull triage.py:Triage --version base", "the params in the code, to begin with"),
    ),
)

# -- edit -----------------------------------------------------------------------------------------


def _edit_arguments(parser: Parser) -> None:
    add_name(parser)
    parser.add_argument("--version", metavar="V", help="what to begin with: as for pull (default: latest)")
    add_reason(parser)
    add_whose(parser)


def _edit(args: argparse.Namespace, doors: Doors) -> int:
    word, editor = opened(args.name), doors.editor()
    app = doors.app()

    async def work(app: Runs) -> _Kept:
        scope, registry = whose(app, args), app.registry
        what = await subject(registry, scope, word)
        if what.kind != PARAMS:
            raise ConfigError("only params can be edited: pull it, change it, and put it")
        one = await held(registry, scope, what, args.version or what.which)
        before = _params(one)
        text, suffix = readable(before, program=what.name, comment=_comment(one))
        path = await asyncio.to_thread(_edited, editor, text, suffix)
        try:
            after = read_file(_read(path)).params
            # taken from another program's contract, it is to be fitted to this one's
            artifact = await version_for(registry, scope, what, after, () if one.version is None else (one.ref,))
            if save(after) == save(before):
                raise Conflict("nothing was changed, so there is no new version")
            kept = await _keep(registry, scope, artifact, args)
        except KaizenError as error:
            raise type(error)(f"{error}; your text is in {path}") from None
        path.unlink()
        return kept

    _say(asyncio.run(using(app, work)), as_json=args.json)
    return OK


def _edited(editor: Sequence[str], text: str, suffix: str) -> Path:
    """The file, once the editor is done with it."""
    with tempfile.NamedTemporaryFile("w", encoding="utf-8", prefix="kaizen-", suffix=suffix, delete=False) as file:
        file.write(text)
    path = Path(file.name)
    try:
        done = subprocess.run([*editor, str(path)], check=False)  # noqa: S603 - the user's own editor
    except OSError as error:
        path.unlink()
        raise ConfigError(f"the editor {editor[0]} can't be started: {error.strerror}") from None
    if done.returncode:
        raise Conflict(f"the editor ended with {done.returncode}, so there is no new version; your text is in {path}")
    return path


EDIT: Final = Command(
    _edit_arguments,
    _edit,
    (
        (
            "kaizen registry edit triage.py:Triage",
            "change the latest version in $EDITOR; what is saved is the next one",
        ),
        ('kaizen registry edit triage.Triage --version prod --reason "shorter"', "begin with what runs"),
    ),
)
