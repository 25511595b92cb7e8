"""The arm without a language model: what labelled rows alone are worth, as a Program to compare others with.

Labels come from neighbours or a linear classifier on the embedder's points, chosen by cross-validation; values that
stand in the text from a span finder; whatever else from the nearest row. No model is asked.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol, TypeAlias, cast

from kaizen.core.answer import Answer
from kaizen.core.context import Context
from kaizen.core.errors import ConfigError, InvalidInput
from kaizen.core.spec import Spec
from kaizen.learn.classify import choose
from kaizen.learn.data.rows import Row, canonical
from kaizen.learn.metrics.compare import blank, same
from kaizen.programs.prompt.spans import SpanFinder, is_span

if TYPE_CHECKING:
    from kaizen.learn.classify import Points

Kind: TypeAlias = Literal["label", "span", "copy"]

_REPEATED: Final = 2.0  # rows a value: from here on a field is taken for one of labels, whatever its type
_FOLDS: Final = 4


@dataclass(slots=True)
class Arm:
    """How one output field is filled.

    Args:
        kind: ``label`` by a classifier, ``span`` from the text, ``copy`` from the nearest row.
        how: what was chosen, such as ``ridge 0.3``.
        right: share of rows each candidate got right in cross-validation.
    """

    kind: Kind
    how: str
    right: Mapping[str, float] = field(default_factory=dict[str, float])


class WithoutModel:
    """A program's contract served from labelled rows.

    It is fitted at its first call. Fields of objects are filled one by one.

    Args:
        spec: the contract.
        rows: labelled rows to learn from.
        seed: of the partitions by which it chooses.

    Raises:
        InvalidInput: without rows.
    """

    def __init__(self, spec: Spec, rows: Sequence[Row], seed: int = 0) -> None:
        if not rows:
            raise InvalidInput("the arm without a model needs rows to learn from (--train)")
        self.spec = spec.variant("without_model")
        self._rows, self._seed = tuple(rows), seed
        self._fitting = asyncio.Lock()
        self._fitted: _Fitted | None = None

    @property
    def arms(self) -> Mapping[str, Arm]:
        """How each output is filled, by its path; empty before the first call."""
        return {} if self._fitted is None else self._fitted.arms

    async def __call__(self, ctx: Context, /, **inputs: Any) -> Answer:
        """The outputs for inputs.

        Raises:
            ConfigError: without the extra ``semantic``.
        """
        fitted = self._fitted or await self._fit(ctx)
        text = text_of(inputs)
        made = await ctx.embed([text])
        outputs = fitted.outputs(_points(made.data, made.dim), text)
        adapters = self.spec.adapters
        valid = {name: adapters[name].validate_python(value) for name, value in outputs.items()}
        return self.spec.answer_type.of(valid, inputs=inputs)

    async def _fit(self, ctx: Context) -> _Fitted:
        async with self._fitting:
            if self._fitted is None:
                texts = [text_of(row.inputs) for row in self._rows]
                made = await ctx.embed(texts)
                points = _points(made.data, made.dim)
                self._fitted = await asyncio.to_thread(_Fitted, self.spec, self._rows, texts, points, self._seed)
            return self._fitted


def text_of(inputs: Mapping[str, Any]) -> str:
    """Inputs as one text: a lone text as it is, else each on its line."""
    parts = [value if isinstance(value, str) else canonical(value).decode() for value in inputs.values()]
    return "\n".join(parts)


def _points(data: bytes, dim: int) -> Points:
    if find_spec("numpy") is None:
        raise ConfigError('the arm without a model needs numpy: pip install "kaizen-engine[semantic]"')
    import numpy as np

    return np.frombuffer(data, dtype="<f4").reshape(-1, dim)


class _Fitted:
    """What was learned."""

    def __init__(self, spec: Spec, rows: Sequence[Row], texts: Sequence[str], points: Points, seed: int) -> None:
        labelled = [name for name in spec.outputs if any(name in row.outputs for row in rows)]
        self._points, self._seed, self._texts = points, seed, texts
        self._leaves = [_leaves({name: row.outputs.get(name) for name in labelled}) for row in rows]
        self._objects = {path for row in rows for path in _objects({name: row.outputs.get(name) for name in labelled})}
        paths = list(dict.fromkeys(path for leaves in self._leaves for path in leaves if path not in self._objects))
        self._fields: dict[Path, _Field] = {path: self._field(spec, path) for path in paths}

    @property
    def arms(self) -> dict[str, Arm]:
        return {".".join(path): one.arm for path, one in self._fields.items()}

    def outputs(self, point: Points, text: str) -> dict[str, Any]:
        """By field name, as JSON values."""
        made: dict[str, Any] = {path[0]: {} for path in self._objects if len(path) == 1}
        for path, one in self._fields.items():
            value = one.value(point, text)
            if len(path) > 1 and value is None:
                continue  # an object says nothing of what it lacks
            _put(made, path, value)
        return made

    def _field(self, spec: Spec, path: Path) -> _Field:
        values = [leaves.get(path) for leaves in self._leaves]
        kind = self._kind(spec, path, values)
        if kind == "label":
            return _Labels(self._points, values, self._seed)
        if kind == "span":
            return _Spans(self._texts, values, self._seed)
        return _Copies(self._points, values)

    def _kind(self, spec: Spec, path: Path, values: Sequence[Any]) -> Kind:
        schema = spec.output_schema["properties"].get(path[0], {})
        if len(path) == 1 and _enumerated(schema, spec.output_schema.get("$defs", {})):
            return "label"
        filled = [(value, text) for value, text in zip(values, self._texts, strict=True) if not blank(value)]
        in_text = [isinstance(value, str) and is_span(text, value) for value, text in filled]
        if filled and sum(in_text) >= 0.8 * len(filled):
            return "span"
        distinct = len({canonical(value) for value in values})
        return "label" if len(values) >= _REPEATED * distinct else "copy"


Path: TypeAlias = tuple[str, ...]


class _Field(Protocol):
    """Fills one output."""

    arm: Arm

    def value(self, point: Points, text: str) -> Any:
        """The value for one input."""
        ...


class _Labels:
    """One of the values seen, by a classifier."""

    def __init__(self, points: Points, values: Sequence[Any], seed: int) -> None:
        chosen = choose(points, [canonical(value).decode() for value in values], seed)
        self.arm, self._guess = Arm("label", chosen.name, chosen.right), chosen.guess

    def value(self, point: Points, text: str) -> Any:
        return json.loads(self._guess(point)[0])


class _Copies:
    """The value of the nearest row."""

    def __init__(self, points: Points, values: Sequence[Any]) -> None:
        self.arm, self._points, self._values = Arm("copy", "nearest row"), points, values

    def value(self, point: Points, text: str) -> Any:
        return self._values[int((self._points @ point[0]).argmax())]


class _Spans:
    """Words of the text, or the commonest value where that is right more often."""

    def __init__(self, texts: Sequence[str], values: Sequence[Any], seed: int) -> None:
        known = [None if blank(value) else str(value) for value in values]
        self._none = next((value for value in values if blank(value)), None)
        common = Counter(known).most_common(1)[0][0]
        found = _held_out(texts, known, seed)
        right = {
            "spans": sum(map(same, known, found)) / len(known),
            "majority": sum(same(value, common) for value in known) / len(known),
        }
        how = max(right, key=lambda name: right[name])
        self.arm, self._common = Arm("span", how, right), common
        self._finder = SpanFinder(texts, known, seed) if how == "spans" else None

    def value(self, point: Points, text: str) -> Any:
        found = self._common if self._finder is None else self._finder.find(text)
        return self._none if found is None else found


def _held_out(texts: Sequence[str], values: Sequence[str | None], seed: int) -> list[str | None]:
    """What a finder that has not seen a row finds in it, for every row."""
    folds = min(_FOLDS, len(texts))
    found: list[str | None] = [None] * len(texts)
    for part in range(folds):
        kept = [place for place in range(len(texts)) if place % folds != part]
        if not kept:
            continue
        finder = SpanFinder([texts[place] for place in kept], [values[place] for place in kept], seed)
        for place in range(part, len(texts), folds):
            found[place] = finder.find(texts[place])
    return found


def _put(values: dict[str, Any], path: Path, value: Any) -> None:
    at = values
    for place, name in enumerate(path, 1):
        if place == len(path):
            at[name] = value
        else:
            at = at.setdefault(name, {})


def _leaves(value: Any, path: Path = ()) -> dict[Path, Any]:
    """The values in nested objects, by path; lists count as values."""
    if isinstance(value, Mapping) and (value or not path):
        made: dict[Path, Any] = {}
        for name, one in cast("Mapping[str, Any]", value).items():
            made |= _leaves(one, (*path, name))
        return made
    return {path: value}


def _objects(value: Any, path: Path = ()) -> set[Path]:
    """The paths at which there are objects."""
    if not isinstance(value, Mapping):
        return set()
    found: set[Path] = {path} if path else set()
    for name, one in cast("Mapping[str, Any]", value).items():
        found |= _objects(one, (*path, name))
    return found


def _enumerated(schema: Mapping[str, Any], definitions: Mapping[str, Any]) -> bool:
    """Whether a field can hold only a few values."""
    if "$ref" in schema:
        return _enumerated(definitions.get(schema["$ref"].rpartition("/")[2], {}), definitions)
    if "anyOf" in schema:
        parts = cast("Sequence[Mapping[str, Any]]", schema["anyOf"])
        return all(one.get("type") == "null" or _enumerated(one, definitions) for one in parts)
    return "enum" in schema or "const" in schema or schema.get("type") == "boolean"
