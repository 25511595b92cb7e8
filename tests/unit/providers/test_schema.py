from __future__ import annotations

from datetime import date
from enum import Enum
from typing import Any, Literal

import pytest
from pydantic import BaseModel, Field

from kaizen.providers.schema import ANTHROPIC, OPENAI, closed

NULL = {"$defs": {"A": {"type": "null"}}}


class Kind(Enum):
    A = "a"
    B = "b"


class Part(BaseModel):
    name: str = Field(max_length=9)
    tags: list[str] = Field(default=[], max_length=3)


class Whole(BaseModel):
    team: Literal["cards", "transfers"] = Field(description="who")
    urgency: int = Field(ge=1, le=5, examples=[3])
    part: Part = Field(description="a part")
    other: Part | None = None
    kind: Kind
    day: date


def test_openai_requires_everything_and_closes_every_object() -> None:
    schema = closed(Whole.model_json_schema(), OPENAI)
    assert schema is not None
    assert schema["required"] == ["team", "urgency", "part", "other", "kind", "day"]
    assert schema["additionalProperties"] is False
    properties = schema["properties"]
    assert properties["team"] == {
        "description": "who",
        "enum": ["cards", "transfers"],
        "title": "Team",
        "type": "string",
    }
    assert properties["urgency"] == {"maximum": 5, "minimum": 1, "title": "Urgency", "type": "integer"}
    assert properties["part"] == {"anyOf": [{"$ref": "#/$defs/Part"}], "description": "a part"}
    assert properties["other"] == {"anyOf": [{"$ref": "#/$defs/Part"}, {"type": "null"}]}
    assert properties["kind"] == {"$ref": "#/$defs/Kind"}
    assert properties["day"]["format"] == "date"
    part = schema["$defs"]["Part"]
    assert part["required"] == ["name", "tags"]
    assert part["additionalProperties"] is False
    assert part["properties"]["name"] == {"title": "Name", "type": "string", "description": "maxLength: 9"}
    assert part["properties"]["tags"]["maxItems"] == 3


def test_anthropic_keeps_optional_fields_and_says_bounds_in_words() -> None:
    schema = closed(Whole.model_json_schema(), ANTHROPIC)
    assert schema is not None
    assert "other" not in schema["required"]
    assert set(schema["properties"]["urgency"]["description"].split(", ")) == {"minimum: 1", "maximum: 5"}
    assert "maximum" not in schema["properties"]["urgency"]
    assert schema["$defs"]["Part"]["properties"]["tags"]["description"] == "maxItems: 3"


@pytest.mark.parametrize(
    ("schema", "expected"),
    [
        ({"oneOf": [{"type": "string"}, {"type": "null"}]}, {"anyOf": [{"type": "string"}, {"type": "null"}]}),
        ({"allOf": [{"type": "string"}], "description": "d"}, {"type": "string", "description": "d"}),
        ({"const": 1}, {"const": 1}),
        ({"type": "string", "format": "binary"}, {"type": "string", "description": 'format: "binary"'}),
        ({"type": "string", "minLength": 2, "description": "d"}, {"type": "string", "description": "d (minLength: 2)"}),
        ({"$ref": "#/$defs/A", "$defs": {"A": {}}} | NULL, {"$ref": "#/$defs/A"} | NULL),
        ({"type": "integer", "default": 1}, {"type": "integer"}),
    ],
)  # fmt: skip
def test_forms(schema: dict[str, Any], expected: dict[str, Any]) -> None:
    before = repr(schema)
    assert closed(schema, OPENAI) == expected
    assert repr(schema) == before  # the contract's own schema stays as it is


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "object", "additionalProperties": {"type": "integer"}},
        {"type": "object", "properties": {}, "additionalProperties": True},
        {"type": "object"},
        {"type": "object", "properties": {}, "patternProperties": {}},
        {},
        {"allOf": [{"type": "string"}, {"type": "null"}]},
        {"type": "array"},
        {"type": "array", "items": {}},
        {"type": "array", "prefixItems": [{"type": "string"}]},
        {"type": "array", "items": {"type": "object"}},
    ],
)
def test_what_a_closed_schema_cannot_say(schema: dict[str, Any]) -> None:
    assert closed(schema, OPENAI) is None
    assert closed(schema, ANTHROPIC) is None
