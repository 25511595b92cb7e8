"""The OpenAPI document's paths of the programs that are served, with the schemas of their fields."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, cast

from kaizen.core.spec import Spec
from kaizen.serve.http.learn.seams import Served

_PREFIX: Final = "#/components/schemas/"
_QUERY: Final = (
    ("version", "base, latest, a label, a number or a content address; what is released by default"),
    ("stream", "true: server-sent events, partial outputs as they are written, then the answer"),
    ("subject", "whom it is for: an experiment's arm sticks to them"),
)

_EVENTS: Final = {"type": "string"}


@dataclass(frozen=True, slots=True)
class Described:
    """What the document says of the programs.

    Args:
        posts: the operation of each path, without what errors look like.
        schemas: that they refer to.
    """

    posts: Mapping[str, dict[str, Any]] = field(default_factory=dict[str, dict[str, Any]])
    schemas: Mapping[str, Any] = field(default_factory=dict[str, Any])

    def paths(self, errors: Mapping[str, Any]) -> dict[str, Any]:
        """The paths.

        Args:
            errors: the responses of calls that fail, by status.
        """
        return {
            path: {"post": {**post, "responses": {**post["responses"], **errors}}} for path, post in self.posts.items()
        }


def described(programs: Mapping[str, Served]) -> Described:
    """What the document says of programs."""
    posts: dict[str, dict[str, Any]] = {}
    schemas: dict[str, Any] = {}
    for name, one in programs.items():
        spec = one.program.spec
        given, got = f"{name}.Inputs", f"{name}.Outputs"
        schemas |= _lifted(given, spec.input_schema) | _lifted(got, outputs_schema(spec))
        answer = {
            "type": "object",
            "required": ["outputs", "record"],
            "properties": {"outputs": {"$ref": f"{_PREFIX}{got}"}, "record": {"type": "string"}},
        }
        posts[f"/api/v1/programs/{name}"] = {
            "operationId": f"run_{name.replace('.', '_')}",
            "tags": ["programs"],
            "summary": spec.doc.partition("\n")[0] or name,
            "parameters": [
                {"name": word, "in": "query", "description": what, "schema": {"type": "string", "maxLength": 256}}
                for word, what in _QUERY
            ],
            "requestBody": {
                "required": True,
                "content": {"application/json": {"schema": {"$ref": f"{_PREFIX}{given}"}}},
            },
            "responses": {
                "200": {
                    "description": "The outputs; with stream=true events: partial, step, and answer or error",
                    "content": {"application/json": {"schema": answer}, "text/event-stream": {"schema": _EVENTS}},
                }
            },
        }
    return Described(posts, schemas)


def outputs_schema(spec: Spec) -> dict[str, Any]:
    """JSON schema of what a caller gets: intermediates are left out."""
    schema = spec.output_schema
    kept = {name: one for name, one in schema.get("properties", {}).items() if name in spec.outputs}
    needed = [name for name in schema.get("required", ()) if name in kept]
    return {**schema, "title": "Outputs", "properties": kept, "required": needed}


def _lifted(name: str, schema: Mapping[str, Any]) -> dict[str, Any]:
    """A schema and those inside it under names of the document's own, since ``$defs`` are not found there."""
    own = {key: value for key, value in schema.items() if key != "$defs"}
    inner = {f"{name}.{key}": value for key, value in schema.get("$defs", {}).items()}
    return {key: _pointed(value, name) for key, value in {name: own, **inner}.items()}


def _pointed(value: Any, name: str) -> Any:
    match value:
        case {"$ref": str(ref)} if ref.startswith("#/$defs/"):
            return {**cast("dict[str, Any]", value), "$ref": f"{_PREFIX}{name}.{ref.removeprefix('#/$defs/')}"}
        case dict():
            return {key: _pointed(one, name) for key, one in cast("dict[str, Any]", value).items()}
        case list():
            return [_pointed(one, name) for one in cast("list[Any]", value)]
        case _:
            return value
