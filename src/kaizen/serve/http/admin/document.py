"""The OpenAPI document: the gateway's own routes, from the very types that decode them, beside the admin's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from kaizen.serve.http.learn.described import Described
from kaizen.serve.http.through.described import described
from kaizen.serve.http.wires.chat_body import ChatBody, NamedChoice, ObjectFormat, PlainFormat, SchemaFormat, ToolParam
from kaizen.serve.http.wires.embeddings import EmbeddingsBody
from kaizen.serve.http.wires.messages_body import MessagesBody, OutputConfig
from kaizen.serve.http.wires.messages_body import ToolParam as MessagesTool
from kaizen.serve.http.wires.native_body import NativeBody
from kaizen.serve.http.wires.responses_body import FunctionChoice, FunctionTool, ResponsesBody, TextParam

_PREFIX: Final = "#/components/schemas/"
# By path: what it does, what it takes, whether it can stream.
_POSTS: Final[Mapping[str, tuple[str, type, bool]]] = {
    "/v1/chat/completions": ("OpenAI's chat completions", ChatBody, True),
    "/v1/responses": ("OpenAI's Responses API; nothing is stored", ResponsesBody, True),
    "/v1/embeddings": ("OpenAI's embeddings", EmbeddingsBody, False),
    "/v1/messages": ("Anthropic's messages", MessagesBody, True),
    "/v1/messages/count_tokens": ("An estimate of a prompt's tokens", MessagesBody, False),
    "/api/v1/infer": ("The native call, with every wish that the layers know", NativeBody, True),
}
_GETS: Final[Mapping[str, tuple[str, str, tuple[str, ...]]]] = {
    "/api/v1/programs": ("The programs that are served", "application/json", ("401", "403")),
    "/v1/models": ("The models that this key may ask", "application/json", ("401",)),
    "/health/live": ("Whether this process runs", "application/json", ()),
    "/health/ready": ("Whether stores and providers answer", "application/json", ("503",)),
    "/metrics": ("Counts for Prometheus", "text/plain", ("401", "403")),
}
_ERRORS: Final = {
    "400": "A parameter is malformed or not supported; it is named",
    "401": "There is no key, or it is not known",
    "402": "The budget is spent",
    "403": "The key may not do this",
    "404": "There is no such model",
    "408": "The request took too long to arrive",
    "409": "It contradicts what is there",
    "413": "The body, or the prompt, is too long",
    "422": "No candidate meets a constraint, or content was refused",
    "429": "A limit is reached; retry-after says until when",
    "500": "The gateway failed",
    "502": "The provider failed",
    "503": "The provider or the storage can't be reached",
    "504": "No answer came in time",
}
# Parts of a body that are decoded later, by their own types.
_LATER: Final[Mapping[str, Mapping[str, Any]]] = {
    "ChatBody": {
        "tools": list[ToolParam] | None,
        "tool_choice": NamedChoice | str | None,
        "response_format": PlainFormat | ObjectFormat | SchemaFormat | None,
    },
    "ResponsesBody": {
        "tools": list[FunctionTool] | None,
        "tool_choice": FunctionChoice | str | None,
        "text": TextParam | None,
    },
    "MessagesBody": {"tools": list[MessagesTool] | None, "output_config": OutputConfig | None},
    "NativeBody": {"tools": list[ToolParam] | None, "tool_choice": NamedChoice | str | None},
}


def document(base: Mapping[str, Any], programs: Described) -> dict[str, Any]:
    """The whole document.

    Args:
        base: FastAPI's, of the admin's routes.
        programs: those that are served.
    """
    bodies = [body for _, body, _ in _POSTS.values()]
    later = [kind for kinds in _LATER.values() for kind in kinds.values()]
    shown, components = msgspec.json.schema_components([*bodies, *later], ref_template=f"{_PREFIX}{{name}}")
    schemas: dict[str, Any] = {**dict(base.get("components", {}).get("schemas", {})), **components}
    after = dict(
        zip(((name, field) for name, kinds in _LATER.items() for field in kinds), shown[len(bodies) :], strict=True)
    )
    for (name, field), schema in after.items():
        place = components[name]["properties"].get(field)
        if place is not None:
            components[name]["properties"][field] = schema
    schemas["Error"] = {"type": "object", "required": ["error"], "properties": {"error": {"type": "object"}}}
    paths: dict[str, Any] = {path: dict(routes) for path, routes in base.get("paths", {}).items()}
    for routes in paths.values():
        for operation in routes.values():
            operation["responses"] = {**operation["responses"], **_errors(_ERRORS)}
    paths |= {path: {"post": _post(path, *what)} for path, what in _POSTS.items()}
    paths |= {path: {"get": _get(*what)} for path, what in _GETS.items()}
    paths |= described(_errors(_ERRORS))
    paths |= programs.paths(_errors(_ERRORS))
    schemas |= programs.schemas
    key = {"type": "http", "scheme": "bearer", "description": "A key of `kaizen keys create`, or a token"}
    return {
        **base,
        "info": {**base["info"], "description": "Models behind the wires of OpenAI and Anthropic, and one of our own."},
        "paths": paths,
        "components": {"schemas": schemas, "securitySchemes": {"key": key}},
        "security": [{"key": []}],
    }


def _post(path: str, what: str, body: type, streams: bool) -> dict[str, Any]:
    content: dict[str, Any] = {"application/json": {"schema": {"type": "object"}}}
    if streams:
        content["text/event-stream"] = {"schema": {"type": "string"}}
    schema = {"$ref": f"{_PREFIX}{body.__name__}"}
    return {
        "operationId": path.strip("/").replace("/", "_"),
        "summary": what,
        "requestBody": {"required": True, "content": {"application/json": {"schema": schema}}},
        "responses": {"200": {"description": "The answer", "content": content}, **_errors(_ERRORS)},
    }


def _get(what: str, kind: str, errors: tuple[str, ...]) -> dict[str, Any]:
    schema = {"type": "string"} if kind == "text/plain" else {"type": "object"}
    responses = {"200": {"description": "The answer", "content": {kind: {"schema": schema}}}}
    return {"summary": what, "responses": responses | _errors({status: _ERRORS[status] for status in errors})}


def _errors(statuses: Mapping[str, str]) -> dict[str, Any]:
    schema = {"$ref": f"{_PREFIX}Error"}
    content = {"application/json": {"schema": schema}}
    return {status: {"description": words, "content": content} for status, words in statuses.items()}
