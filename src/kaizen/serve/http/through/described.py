"""The OpenAPI document's paths of what passes through, of the page's data, and of other applications' traces."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, get_args

from kaizen.ledger.costs import CostsBy

_FORMS: Final = frozenset({"/v1/audio/transcriptions", "/v1/audio/translations", "/v1/images/edits"})
_PASSED: Final[Mapping[str, tuple[str, str]]] = {
    "/v1/rerank": ("Documents in the order of their use for a query", "application/json"),
    "/v1/audio/transcriptions": ("What a recording says", "application/json"),
    "/v1/audio/translations": ("What a recording says, in English", "application/json"),
    "/v1/audio/speech": ("A text, spoken", "audio/mpeg"),
    "/v1/images/generations": ("Images for a text", "application/json"),
    "/v1/images/edits": ("Images made of others", "application/json"),
    "/v1/moderations": ("Whether a text is fit to be shown", "application/json"),
}
_ID: Final = {"name": "id", "in": "query", "required": True, "schema": {"type": "string"}}
_LOOKED_AT: Final[Mapping[str, tuple[str, list[dict[str, Any]]]]] = {
    "/api/v1/records": (
        "The latest calls of the key's tenant",
        [{"name": "limit", "in": "query", "schema": {"type": "integer", "minimum": 1, "maximum": 500}}],
    ),
    "/api/v1/runs": ("The calls of a run, in order", [_ID]),
    "/api/v1/contents": ("What went into a call and what came out", [_ID]),
    "/api/v1/costs": (
        "Costs by group",
        [
            {"name": "by", "in": "query", "schema": {"type": "string", "enum": list(get_args(CostsBy))}},
            {"name": "seconds", "in": "query", "schema": {"type": "number", "minimum": 1, "maximum": 31_622_400}},
        ],
    ),
}


def described(errors: Mapping[str, Any]) -> dict[str, Any]:
    """The paths.

    Args:
        errors: the responses of calls that fail, by status.
    """
    refused = {**errors, "415": {**errors["400"], "description": "The body is of a type that is not taken"}}
    paths: dict[str, Any] = {path: {"post": _passed(path, *what, refused)} for path, what in _PASSED.items()}
    for path, (what, parameters) in _LOOKED_AT.items():
        looked = {"operationId": _id(path), "summary": what, "parameters": parameters}
        paths[path] = {"get": {**looked, "responses": _answered("application/json", errors)}}
    body = {"application/json": {"schema": {"type": "object"}}, "application/x-protobuf": {"schema": _BYTES}}
    paths["/v1/traces"] = {
        "post": {
            "operationId": _id("/v1/traces"),
            "summary": "OpenTelemetry traces of other applications, as OTLP has them",
            "requestBody": {"required": True, "content": body},
            "responses": _answered("application/json", refused, "application/x-protobuf"),
        }
    }
    return paths


_BYTES: Final = {"type": "string", "format": "binary"}


def _passed(path: str, what: str, answer: str, errors: Mapping[str, Any]) -> dict[str, Any]:
    kind = "multipart/form-data" if path in _FORMS else "application/json"
    properties: dict[str, Any] = {"model": {"type": "string"}}
    if path in _FORMS:
        properties["image" if "images" in path else "file"] = _BYTES
    schema = {"type": "object", "required": list(properties), "properties": properties}
    return {
        "operationId": _id(path),
        "summary": f"{what}; passed on to the model's provider as it is",
        "requestBody": {"required": True, "content": {kind: {"schema": schema}}},
        "responses": _answered(answer, errors),
    }


def _answered(kind: str, errors: Mapping[str, Any], *others: str) -> dict[str, Any]:
    content: dict[str, Any] = {}
    for one in (kind, *others):
        content[one] = {"schema": {"type": "object"} if one == "application/json" else _BYTES}
    return {"200": {"description": "The answer", "content": content}, **errors}


def _id(path: str) -> str:
    return path.strip("/").replace("/", "_")
