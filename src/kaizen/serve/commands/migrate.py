"""``kaizen import litellm``: another system's configuration as settings of ours."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any, Final

from kaizen.core.errors import ConfigError, Conflict, InvalidInput, NotFound, StoreError
from kaizen.migrate.litellm import convert
from kaizen.serve.arguments import Command, Parser, say
from kaizen.serve.commands.tables import json_text
from kaizen.serve.doors import Doors
from kaizen.serve.errors import OK

_MOST_BYTES: Final = 4 * 1024 * 1024


def _arguments(parser: Parser) -> None:
    parser.add_argument("file", metavar="config.yaml", type=Path, help="the proxy's configuration")
    parser.add_argument("--output", metavar="FILE", type=Path, help="write there, to no file that exists; else print")
    parser.add_argument("--json", action="store_true", help="print one JSON object: settings and notes")


def _work(args: argparse.Namespace, _: Doors) -> int:
    made = convert(_parsed(args.file))
    for note in made.notes if not args.json else ():
        say(f"note: {note}")
    if args.json:
        sys.stdout.write(f"{json_text({'settings': made.text, 'notes': made.notes})}\n")
    if args.output is None:
        if not args.json:
            sys.stdout.write(made.text)
        return OK
    try:
        with args.output.open("x", encoding="utf-8") as file:
            file.write(made.text)
    except FileExistsError:
        raise Conflict(f"{args.output} is there already, and nothing is overwritten") from None
    except OSError as error:
        raise StoreError(f"can't write {args.output}: {error.strerror}") from None
    say(f"{args.output} is written")
    return OK


def _parsed(file: Path) -> Any:
    try:
        import yaml
    except ImportError:
        raise ConfigError('reading YAML needs one more package: pip install "kaizen-engine[migrate]"') from None

    try:
        with file.open("rb") as source:
            data = source.read(_MOST_BYTES + 1)
    except OSError as error:
        raise NotFound(f"can't read {file}: {error.strerror}") from None
    if len(data) > _MOST_BYTES:
        raise InvalidInput(f"{file} has more than {_MOST_BYTES} bytes")
    try:
        return yaml.safe_load(data)
    except (yaml.YAMLError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f":{mark.line + 1}" if mark is not None else ""
        # not the error's own text: it shows lines of the file, and a key may stand there
        raise InvalidInput(f"{file}{where}: is no YAML that can be read") from None


LITELLM: Final = Command(
    _arguments,
    _work,
    (
        ("kaizen import litellm config.yaml", "print the settings; what has no counterpart is noted"),
        ("kaizen import litellm config.yaml --output kaizen.toml", "into a new file"),
    ),
)
