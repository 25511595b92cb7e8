"""The application: keys, what learns, and the OpenAPI document of them and of the gateway's own routes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, cast

from fastapi import APIRouter, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse
from starlette.exceptions import HTTPException

from kaizen.core.errors import KaizenError
from kaizen.govern.keys import Keys
from kaizen.serve.http.admin.document import document
from kaizen.serve.http.admin.keys import key_routes
from kaizen.serve.http.admin.reading import reading
from kaizen.serve.http.call import Receive, Scope, Send
from kaizen.serve.http.door import Door
from kaizen.serve.http.gateway import Application
from kaizen.serve.http.learn.described import Described, described
from kaizen.serve.http.learn.experiments import experiment_routes
from kaizen.serve.http.learn.jobs import job_routes
from kaizen.serve.http.learn.loops import loop_routes
from kaizen.serve.http.learn.prompts import prompt_routes
from kaizen.serve.http.learn.queue import queue_routes
from kaizen.serve.http.learn.registry import registry_routes
from kaizen.serve.http.learn.seams import Learning
from kaizen.serve.http.learn.tried import tried_routes
from kaizen.serve.http.problem import Problem, problem_of

_CODES: Final = {404: "not_found", 405: "method_not_allowed", 413: "too_large"}
_NO_CODE: Final = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; base-uri 'none'"


def make_admin(door: Door, keys: Keys, learning: Learning, *, max_body: int) -> Application:
    """The application.

    Args:
        door: lets callers in, those with the scope that a route needs.
        keys: what is administered.
        learning: what learns.
        max_body: bytes of a request at most.
    """
    routes = [
        key_routes(keys),
        prompt_routes(learning),
        registry_routes(learning),
        job_routes(learning),
        tried_routes(learning),
        experiment_routes(learning),
        loop_routes(learning),
        queue_routes(learning),
    ]
    return bounded(_made(door, routes, described(learning.programs)), max_body)


def bounded(application: Application, limit: int) -> Application:
    """An application that reads no more than so many bytes of a request."""

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        left = limit

        async def counted() -> Any:
            nonlocal left
            message = await receive()
            left -= len(message.get("body", b""))
            if left < 0:
                # FastAPI makes a 400 of any other error while it reads
                raise HTTPException(413, f"the body has more than the {limit} bytes that this gateway takes")
            return message

        await application(scope, counted, send)

    return answer


def _made(door: Door, routes: Sequence[APIRouter], programs: Described) -> FastAPI:
    admin = FastAPI(title="Kaizen", docs_url=None, redoc_url=None, openapi_url=None)
    admin.state.door = door
    for one in routes:
        admin.include_router(one)
    known: dict[str, Any] = {}

    def whole() -> dict[str, Any]:
        if not known:
            known.update(document(admin.openapi(), programs))
        return known

    @admin.get("/openapi.json", include_in_schema=False)
    async def openapi() -> JSONResponse:
        return JSONResponse(whole())

    @admin.get("/docs", include_in_schema=False)
    async def docs() -> HTMLResponse:
        return HTMLResponse(reading(whole()), headers={"content-security-policy": _NO_CODE})

    @admin.exception_handler(KaizenError)
    async def refused(request: Request, error: Exception) -> JSONResponse:
        return _answer(problem_of(error))

    @admin.exception_handler(RequestValidationError)
    async def malformed(request: Request, error: Exception) -> JSONResponse:
        first = cast("RequestValidationError", error).errors()[0]
        param = ".".join(str(one) for one in first["loc"][1:])
        return _answer(Problem(400, "invalid_request", f"{param}: {first['msg']}", param))

    @admin.exception_handler(HTTPException)
    async def elsewhere(request: Request, error: Exception) -> JSONResponse:
        found = cast("HTTPException", error)
        code = _CODES.get(found.status_code, "invalid_request")
        return _answer(Problem(found.status_code, code, str(found.detail)))

    _ = openapi, docs, refused, malformed, elsewhere  # registered by their decorators
    return admin


def _answer(problem: Problem) -> JSONResponse:
    headers: dict[str, str] = {}
    if problem.status == 401:
        headers["www-authenticate"] = 'Bearer realm="kaizen"'
    if problem.retry_after is not None:
        headers["retry-after"] = f"{max(1, round(problem.retry_after))}"
    said = {"code": problem.code, "message": problem.message, "param": problem.param}
    return JSONResponse({"error": said}, problem.status, headers)
