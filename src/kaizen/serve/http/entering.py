"""Who comes in, for the routes of the FastAPI application: by the same door as every call."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Final, TypeAlias

from fastapi import Depends, Request, Response
from pydantic_core import to_json

from kaizen.core.errors import Denied, InvalidInput
from kaizen.core.identity import INFER, Identity
from kaizen.serve.http.call import Call
from kaizen.serve.http.door import Door

ADMIN: Final = "admin"


async def _admin(request: Request) -> Identity:
    door: Door = request.app.state.door
    return await door.enter(Call(request.scope, request.receive, _unsent), ADMIN)


async def _caller(request: Request) -> Identity:
    door: Door = request.app.state.door
    call = Call(request.scope, request.receive, _unsent)
    try:
        return await door.enter(call, INFER)
    except Denied:
        return await door.enter(call, ADMIN)


Admin: TypeAlias = Annotated[Identity, Depends(_admin)]
"""A key with the scope ``admin``."""
Caller: TypeAlias = Annotated[Identity, Depends(_caller)]
"""A key with the scope ``infer`` or ``admin``."""


async def _unsent(message: object) -> None:
    raise InvalidInput(f"nothing is sent by this way: {message!r}")


def shown(body: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """JSON that no cache keeps; what is no number becomes null."""
    given = {"cache-control": "no-store", **(headers or {})}
    return Response(to_json(body, inf_nan_mode="null"), status, given, "application/json")
