"""Rows to train a router from: a file that says which model answered each prompt rightly."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from kaizen.core.errors import InvalidInput
from kaizen.core.protocols import Embedder
from kaizen.core.scope import LOCAL
from kaizen.inference.route.router import Prompt, Router
from kaizen.inference.route.training import Example, Training, train

_TEXTS: Final = ("prompt", "question", "text", "input", "instruction", "query", "message")
_YES: Final = frozenset({"true", "yes", "right", "correct", "pass", "1", "1.0"})
_NO: Final = frozenset({"false", "no", "wrong", "incorrect", "fail", "0", "0.0"})
# A column of more different texts than this names rows, not a kind of them.
_VALUES: Final = 200


@dataclass(frozen=True, slots=True)
class Table:
    """What a file holds.

    Args:
        examples: its rows.
        text: the column of the prompts.
        models: the columns that say who was right.
        traits: the columns of few different words, such as a subject.
        left_out: rows without a prompt or without every model's answer.
    """

    examples: tuple[Example, ...]
    text: str
    models: tuple[str, ...]
    traits: tuple[str, ...]
    left_out: int


def read(path: Path, *, text: str | None = None, models: Sequence[str] | None = None) -> Table:
    """The rows of a file of JSON lines, or of CSV with a header.

    Without ``text``, the prompts are in the first column called prompt, question, text, input, instruction, query or
    message, else in the one with the longest values. Without ``models``, every column says who was right whose values
    are all true or false, right or wrong, or numbers from 0 to 1.

    Raises:
        InvalidInput: there is no such file, or it has no prompts or fewer than two models.
    """
    rows = _rows(path)
    columns = list(dict.fromkeys(name for row in rows for name in row))
    text = text or next((name for name in _TEXTS if name in columns), None) or _longest(rows, columns)
    if models is None:
        models = [name for name in columns if name != text and _says_right(rows, name)]
    if text not in columns or len(models) < 2:
        raise InvalidInput(f"{path.name}: a column of prompts and two of right or wrong are needed; it has {columns}")
    traits = [name for name in columns if name != text and name not in models and _is_trait(rows, name)]
    examples: list[Example] = []
    for row in rows:
        right = {model: _share(row.get(model)) for model in models}
        known = {model: one for model, one in right.items() if one is not None}
        if len(known) == len(right) and isinstance(row.get(text), str):
            shown = {name: str(row[name]) for name in traits if row.get(name) not in (None, "")}
            examples.append(Example(Prompt(row[text], shown), known))
    return Table(tuple(examples), text, tuple(models), tuple(traits), len(rows) - len(examples))


async def with_points(examples: Sequence[Example], embedder: Embedder, batch: int = 256) -> tuple[list[Example], str]:
    """The examples with their prompts' embeddings, and the embedder's ref."""
    found: list[Example] = []
    model = ""
    for at in range(0, len(examples), batch):
        some = examples[at : at + batch]
        points = await embedder.embed(LOCAL, [one.prompt.text for one in some])
        model, size = points.model, 4 * points.dim
        for number, one in enumerate(some):
            prompt = one.prompt
            point = points.data[number * size : (number + 1) * size]
            found.append(Example(Prompt(prompt.text, prompt.traits, point), one.right))
    return found, model


async def train_file(
    path: Path,
    target: Path,
    *,
    text: str | None = None,
    models: Sequence[str] | None = None,
    embedder: Embedder | None = None,
    costs: Mapping[str, float] | None = None,
) -> tuple[Table, Router]:
    """Train a router from a file and save it: behind ``kaizen route train FILE``.

    Args:
        path: JSON lines, or CSV where its name ends so.
        target: where the router is written.
        text: the column of the prompts, see ``read``.
        models: the columns of right and wrong.
        embedder: for features of meaning beside those of the surface.
        costs: what a call of each model costs, on any scale.

    Raises:
        InvalidInput: the file is not such, or too short.
    """
    table = read(path, text=text, models=models)
    examples, ref = list(table.examples), None
    if embedder is not None:
        examples, ref = await with_points(examples, embedder)
    router = train(examples, Training(costs=costs, embedder=ref))
    router.save(target)
    return table, router


def _rows(path: Path) -> list[dict[str, Any]]:
    try:
        content = path.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(f"{path} can't be read: {error}") from None
    if path.suffix.lower() == ".csv":
        return [dict(row) for row in csv.DictReader(content.splitlines(keepends=True))]
    rows: list[dict[str, Any]] = []
    for number, line in enumerate(content.splitlines(), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError:
            raise InvalidInput(f"{path.name}, line {number}: no JSON") from None
        if not isinstance(row, dict):
            raise InvalidInput(f"{path.name}, line {number}: no JSON object")
        rows.append(row)  # pyright: ignore[reportUnknownArgumentType] - JSON
    return rows


def _longest(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> str:
    return max(columns, key=lambda name: sum(len(str(row.get(name, ""))) for row in rows), default="")


def _share(value: Any) -> float | None:
    """How right an answer was, 0 to 1; None where a value does not say."""
    match value:
        case bool():
            return float(value)
        case int() | float() if 0 <= value <= 1:
            return float(value)
        case str() if value.strip().lower() in _YES:
            return 1.0
        case str() if value.strip().lower() in _NO:
            return 0.0
        case str():
            try:
                number = float(value)
            except ValueError:
                return None
            return number if 0 <= number <= 1 else None
        case _:
            return None


def _says_right(rows: Sequence[Mapping[str, Any]], name: str) -> bool:
    values = [row[name] for row in rows if row.get(name) not in (None, "")]
    return bool(values) and all(_share(value) is not None for value in values)


def _is_trait(rows: Sequence[Mapping[str, Any]], name: str) -> bool:
    values = [row[name] for row in rows if row.get(name) not in (None, "")]
    few = {value for value in values if isinstance(value, str)}
    return (
        bool(few) and all(isinstance(value, str) for value in values) and 2 <= len(few) <= min(_VALUES, len(rows) // 4)
    )
