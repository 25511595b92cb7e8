"""Values from text, such as the cells of a CSV file: what a field may hold says how its text is read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, cast

from pydantic_core import from_json

from kaizen.core.errors import InvalidInput
from kaizen.core.spec import shorten

_ALTERNATIVES: Final = ("anyOf", "oneOf", "allOf")
_TEXT: Final = frozenset({"string"})


class FieldReader:
    """Reads the fields of one JSON schema from text.

    Text for a field that holds strings (dates and enums of strings too) is taken as it is; for any other it is JSON.
    Where a field takes strings and other things, text that is no JSON is a string.

    Args:
        schema: of an object.
        what: what its fields are called in messages.
    """

    def __init__(self, schema: Mapping[str, Any], what: str = "input") -> None:
        self._what = what
        self.kinds = {name: kinds(one, schema.get("$defs", {})) for name, one in schema["properties"].items()}

    def value(self, name: str, text: str) -> Any:
        """The value of one field.

        Raises:
            InvalidInput: if it should be JSON and is not.
        """
        wanted = self.kinds.get(name, _TEXT)
        if wanted <= {"string", "null"}:
            return text
        try:
            return from_json(text, allow_inf_nan=False)
        except (ValueError, TypeError):  # the latter for bytes of the command line that are no UTF-8
            if "string" in wanted:
                return text
        shown = " or ".join(sorted(wanted))
        said = f"{self._what} '{name}' should be JSON ({shown}), not {shorten(text)}"
        raise InvalidInput(said, detail={self._what: name})

    def takes_text(self, name: str) -> bool:
        """Whether a field can be a string."""
        return "string" in self.kinds.get(name, _TEXT)

    def takes_nothing(self, name: str) -> bool:
        """Whether a field can be null."""
        return "null" in self.kinds.get(name, _TEXT)


def kinds(schema: Mapping[str, Any], definitions: Mapping[str, Any]) -> frozenset[str]:
    """The JSON types a schema admits."""
    if "$ref" in schema:
        return kinds(definitions[schema["$ref"].rpartition("/")[2]], definitions)
    for word in _ALTERNATIVES:
        if word in schema:
            return frozenset[str]().union(*(kinds(part, definitions) for part in schema[word]))
    values: list[object] = [schema["const"]] if "const" in schema else schema.get("enum", [])
    if values and "type" not in schema:
        return frozenset("string" if isinstance(value, str) else "other" for value in values)
    kind = schema.get("type", ["any", "string"])
    return frozenset(cast("list[str]", kind)) if isinstance(kind, list) else frozenset({str(kind)})
