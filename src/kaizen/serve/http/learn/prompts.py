"""``GET /api/v1/prompts/{name}``: what runs, for applications that send their own requests."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Header, Path, Query, Response
from pydantic import BaseModel

from kaizen.core.artifact import BASE, Released
from kaizen.core.errors import InvalidInput
from kaizen.core.ids import digest
from kaizen.core.params import Params
from kaizen.core.scope import Scope
from kaizen.learn.data.rows import canonical
from kaizen.registry.params import load, stated
from kaizen.registry.registry import PROD
from kaizen.serve.http.entering import Caller, shown
from kaizen.serve.http.learn.inputs import Name, Which
from kaizen.serve.http.learn.seams import Learning
from kaizen.serve.shown.versions import base_tree


class Prompt(BaseModel):
    """Params as they run.

    ``instructions`` and ``demos`` are what the model is shown, ``decoding`` is how it is asked, ``params`` is all that
    the version states. ``version`` is its content address, or ``base`` for the params in the program's code, which are
    known only of programs that this server serves.
    """

    name: str
    version: str
    number: int
    ref: str
    label: str
    experiment: str | None
    arm: int
    instructions: str | None
    demos: list[dict[str, Any]]
    model: str | None
    decoding: dict[str, Any]
    params: dict[str, Any]


def prompt_routes(learning: Learning) -> APIRouter:
    """Params for other applications; the scope ``infer`` is enough."""
    routes = APIRouter(prefix="/api/v1/prompts", tags=["prompts"])

    @routes.get("/{name}", response_model=Prompt, responses={304: {"description": "It is what the caller has"}})
    async def get_prompt(
        who: Caller,
        name: Annotated[Name, Path()],
        label: Annotated[Which | None, Query(description="prod by default")] = None,
        version: Annotated[Which | None, Query(description="instead of a label")] = None,
        subject: Annotated[str, Query(max_length=256, description="whom it is for: an arm sticks to them")] = "",
        if_none_match: Annotated[str | None, Header(max_length=1000)] = None,
    ) -> Response:
        """Instructions, demos and decoding of what a label shows, or of a version."""
        if label is not None and version is not None:
            raise InvalidInput("give a label or a version, not both")
        found = await _prompt(learning, who.scope, name, version or label or PROD, subject or who.principal)
        tag = f'"{digest(canonical(found))}"'
        headers = {"etag": tag, "cache-control": "private, no-cache", "vary": "authorization, x-api-key"}
        if if_none_match is not None and tag in {one.strip() for one in if_none_match.split(",")}:
            return Response(None, 304, headers)
        return shown(found, headers=headers)

    _ = get_prompt
    return routes


async def _prompt(learning: Learning, scope: Scope, name: str, which: str, subject: str) -> dict[str, Any]:
    what = await learning.subject(scope, "params", name)
    view = await learning.releases.at(scope, what.name, which)
    found = view.resolve(what.name, subject) or Released(Params(), BASE, 0, what.name, "")
    base = load(canonical(base_tree(what.program)))
    params = found.params.over(base)
    decoding = params.decoding
    return {
        "name": what.name,
        "version": found.version,
        "number": found.number,
        "ref": found.ref,
        "label": found.label,
        "experiment": found.experiment,
        "arm": found.arm,
        "instructions": params.instructions,
        "demos": [{"inputs": demo.inputs, "outputs": demo.outputs} for demo in params.demos],
        "model": params.model,
        "decoding": {
            "temperature": decoding.temperature,
            "top_p": decoding.top_p,
            "max_tokens": decoding.max_tokens,
            "seed": decoding.seed,
            "stop": list(decoding.stop),
        },
        "params": stated(params),
    }
