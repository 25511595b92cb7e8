"""Labelled rows: inputs and what should come out, checked against a contract when they are read."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError
from pydantic_core import from_json

from kaizen.core.errors import InvalidInput
from kaizen.core.ids import digest
from kaizen.core.spec import Spec, dump, shorten
from kaizen.learn.data.files import Row as FileRow
from kaizen.learn.data.files import RowFile
from kaizen.learn.data.text import FieldReader

GROUP: Final = "_group"
"""The column that names a row's group; ``group`` does, too, where that is no field."""

_PLAIN: Final = (str, int, float, bool, type(None))


@dataclass(frozen=True, slots=True)
class Row:
    """A labelled row; values are JSON-able.

    Args:
        inputs: by field name.
        outputs: what should come out, by field name: all of it, or the fields that somebody labelled.
        group: rows that belong together, such as those of one customer: none of them may be trained on while another
            is tested on.
        others: columns that are no fields, to slice by.
    """

    inputs: Mapping[str, Any]
    outputs: Mapping[str, Any]
    group: str | None = None
    others: Mapping[str, Any] = field(default_factory=dict[str, Any])

    @property
    def key(self) -> str:
        """Content address of inputs and outputs, whatever the order of their names."""
        return digest(canonical([self.inputs, self.outputs]))

    @property
    def asked(self) -> str:
        """Content address of the inputs alone."""
        return digest(canonical(self.inputs))


def canonical(value: Any) -> bytes:
    """JSON bytes that are the same for equal values: keys in order, no spaces."""
    plain_value = from_json(dump(value))
    return json.dumps(plain_value, sort_keys=True, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")


def plain(value: Any) -> Any:
    """A value in its JSON form: enums, dates, models and the like become what JSON has for them."""
    return value if type(value) in _PLAIN else from_json(dump(value))


def plain_values(values: Mapping[str, Any], names: Iterable[str]) -> dict[str, Any]:
    """The values of some fields, those that are there, in their JSON form."""
    return {name: plain(values[name]) for name in names if name in values}


def read_rows(
    path: Path, spec: Spec, *, labelled: bool = True, renames: Mapping[str, str] | None = None
) -> tuple[Row, ...]:
    """The rows of a JSONL, CSV or Parquet file, whose columns have the names of the contract's fields.

    Columns of other names are kept beside (``Row.others``). In a CSV file an empty cell of a field that may be null is
    null.

    Args:
        path: the file.
        spec: the contract of the program that the rows are for.
        labelled: whether each row must have an output.
        renames: columns to call otherwise, old name to new.

    Raises:
        NotFound: there is no such file.
        ConfigError: its name ends in no known way, or what reads it is not installed.
        InvalidInput: a row can't be read or does not fit; the message names the line.
    """
    source = RowFile(path, renames or {})
    reader = _Reader(spec, source, labelled=labelled)
    rows = tuple(reader.row(each) for each in source.rows())
    if not rows:
        raise InvalidInput(f"{path} holds no rows")
    return rows


def rows_of(values: Iterable[Mapping[str, Any]], spec: Spec, *, labelled: bool = True) -> tuple[Row, ...]:
    """Rows that are at hand as JSON-able values, such as those of a request, checked as ``read_rows`` checks a file's.

    Raises:
        InvalidInput: a row does not fit; the message says which.
    """
    reader = _Reader(spec, _AtHand(), labelled=labelled)
    return tuple(reader.row(FileRow(number, number, value)) for number, value in enumerate(values, 1))


def line_of(row: Row) -> dict[str, Any]:
    """A row as a line of a file, as ``read_rows`` takes it."""
    group = {} if row.group is None else {GROUP: row.group}
    return {**row.others, **row.inputs, **row.outputs, **group}


@dataclass(frozen=True, slots=True)
class _AtHand:
    """Rows that come from no file, with values of JSON's own types."""

    is_text: bool = False
    is_binary: bool = False

    def where(self, row: FileRow) -> str:
        """How to call a row in a message."""
        return f"row {row.number}"


class _Reader:
    """Makes rows of one file's lines."""

    def __init__(self, spec: Spec, source: RowFile | _AtHand, *, labelled: bool) -> None:
        self._spec, self._source, self._labelled = spec, source, labelled
        self._outputs = {name: one for name, one in spec.fields.items() if one.role != "input"}
        self._texts = (FieldReader(spec.input_schema), FieldReader(spec.output_schema, "output"))

    def row(self, given: FileRow) -> Row:
        """One row.

        Raises:
            InvalidInput: naming the line.
        """
        spec = self._spec
        inputs = {name: value for name, value in given.values.items() if name in spec.inputs}
        outputs = {name: value for name, value in given.values.items() if name in self._outputs}
        others = {name: value for name, value in given.values.items() if name not in spec.fields}
        group = others.pop(GROUP, None) or others.pop("group", None)
        where = self._source.where(given)
        try:
            if self._source.is_text:
                inputs, outputs = self._read(0, inputs), self._read(1, outputs)
            elif self._source.is_binary:
                inputs, outputs = self._filled(0, inputs), self._filled(1, outputs)
            self._check_names(inputs, outputs, others)
            checked = spec.validate_inputs(inputs)
        except InvalidInput as error:
            raise InvalidInput(f"{where}: {error.message}", rules=error.rules) from None
        return Row(
            plain_values(checked, inputs),
            {name: self._output(where, name, value) for name, value in outputs.items()},
            None if group is None else str(group),
            others,
        )

    def _read(self, which: int, values: Mapping[str, str]) -> dict[str, Any]:
        reader = self._texts[which]
        return {
            name: None if not text and reader.takes_nothing(name) else reader.value(name, text)
            for name, text in values.items()
        }

    def _filled(self, which: int, values: Mapping[str, Any]) -> dict[str, Any]:
        """The columns that hold something: null is how a table leaves a field out."""
        reader = self._texts[which]
        return {name: value for name, value in values.items() if value is not None or reader.takes_nothing(name)}

    def _check_names(self, inputs: Mapping[str, Any], outputs: Mapping[str, Any], others: Mapping[str, Any]) -> None:
        spec = self._spec
        missing = [name for name, one in spec.inputs.items() if one.required and name not in inputs]
        if missing:
            raise InvalidInput(f"no input {', '.join(map(repr, missing))}{_nearest(missing, others)}")
        if self._labelled and not outputs.keys() & spec.outputs.keys():
            wanted = list(spec.outputs)
            raise InvalidInput(
                f"no output: one of {', '.join(map(repr, wanted))} has to be there{_nearest(wanted, others)}"
            )

    def _output(self, where: str, name: str, value: Any) -> Any:
        try:
            return plain(self._spec.adapters[name].validate_python(value))
        except ValidationError as error:
            problem = error.errors(include_url=False, include_context=False)[0]["msg"]
            raise InvalidInput(f"{where}: output '{name}' = {shorten(value)}: {problem}") from None


def _nearest(wanted: Iterable[str], others: Mapping[str, Any]) -> str:
    """What else is there, and which of it may be meant."""
    if not others:
        return ""
    for name in wanted:
        if found := difflib.get_close_matches(name, list(others), n=1):
            return f"; did you mean {found[0]!r} by it? (--rename {found[0]}={name})"
    return f"; other columns: {', '.join(others)} (--rename OLD=NEW calls one otherwise)"
