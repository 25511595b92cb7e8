"""Schemas on their way to a grammar; what the real model makes of them is in the contract tests."""

from __future__ import annotations

import json
from typing import Any

import pytest

from kaizen.core.request import ToolSpec
from kaizen.providers.grammar import schema_grammar, tool_grammar


def parsed(grammar: str) -> dict[str, Any]:
    head, _, schema = grammar.partition("%json ")
    assert head == "%llguidance {}\nstart: "
    value = json.loads(schema)
    assert value.pop("x-guidance")["whitespace_flexible"] is False
    return value


def test_words_go_and_properties_of_their_names_stay() -> None:
    schema = {
        "title": "T",
        "description": "d",
        "properties": {"title": {"title": "T", "type": "string"}, "default": {"default": 1, "enum": ["title"]}},
    }
    assert parsed(schema_grammar(schema)) == {
        "properties": {"title": {"type": "string"}, "default": {"enum": ["title"]}},
        "additionalProperties": False,
    }


def test_objects_are_closed_unless_they_say_otherwise() -> None:
    open_map = {"type": "object", "additionalProperties": {"type": "object", "properties": {}}}
    assert parsed(schema_grammar(open_map))["additionalProperties"] == {
        "type": "object",
        "properties": {},
        "additionalProperties": False,
    }
    assert parsed(schema_grammar({"properties": {}, "additionalProperties": True}))["additionalProperties"] is True
    assert "additionalProperties" not in parsed(schema_grammar({"properties": {}, "allOf": [{"properties": {}}]}))
    assert parsed(schema_grammar({"patternProperties": {"^a": True}}))["additionalProperties"] is False


@pytest.mark.parametrize(
    ("pattern", "kept"),
    [
        (r"^a\d+$", True),
        (r"^\\b$", True),
        (r"(?:a|b)", True),
        (r"(?P<x>a)", True),
        (r"\bword", False),
        (r"a\\\b", False),
        (r"(?=a)", False),
        (r"(?<!a)b", False),
        (r"(a)\1", False),
    ],
)
def test_patterns_llguidance_does_not_know_are_dropped(pattern: str, kept: bool) -> None:
    assert ("pattern" in parsed(schema_grammar({"type": "string", "pattern": pattern}))) is kept


def test_tools_keep_their_definitions_apart() -> None:
    one = ToolSpec(
        "one",
        "",
        {"properties": {"a": {"$ref": "#/$defs/X"}}, "$defs": {"X": {"$ref": "#/$defs/Y"}, "Y": {"type": "null"}}},
    )
    two = ToolSpec(
        "two", "", {"properties": {"a": {"anyOf": [{"$ref": "#/$defs/X"}]}}, "$defs": {"X": {"type": "string"}}}
    )
    grammar = parsed(
        tool_grammar([one, two], required=False, answer={"$ref": "#/$defs/X", "$defs": {"X": {"const": 1}}})
    )
    assert grammar["$defs"] == {
        "t0.X": {"$ref": "#/$defs/t0.Y"},
        "t0.Y": {"type": "null"},
        "t1.X": {"type": "string"},
        "answer.X": {"const": 1},
    }
    first, second, answer = grammar["anyOf"]
    assert list(first["properties"]) == ["tool", "arguments"]
    assert first["properties"]["arguments"]["properties"]["a"] == {"$ref": "#/$defs/t0.X"}
    assert second["properties"]["arguments"]["properties"]["a"] == {"anyOf": [{"$ref": "#/$defs/t1.X"}]}
    assert answer["properties"] == {"answer": {"$ref": "#/$defs/answer.X"}}
    assert len(parsed(tool_grammar([one], required=True, answer=None))["anyOf"]) == 1
    assert parsed(tool_grammar([one], required=False, answer=None))["anyOf"][1]["properties"] == {
        "answer": {"type": "string"}
    }


def test_schemas_that_are_no_mappings_pass() -> None:
    assert parsed(schema_grammar({"type": "array", "items": True, "prefixItems": [False]}))["prefixItems"] == [False]
