"""What was found: evaluations, and the candidates of searches."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Response
from pydantic_core import from_json

from kaizen.core.artifact import Version
from kaizen.core.scope import Scope
from kaizen.learn.evaluate.result import KIND
from kaizen.learn.optimize.kept import candidates
from kaizen.registry.registry import PARAMS
from kaizen.serve.http.entering import Admin, shown
from kaizen.serve.http.learn.inputs import Name, Which
from kaizen.serve.http.learn.seams import Learning
from kaizen.serve.shown.versions import score_of


def tried_routes(learning: Learning) -> APIRouter:
    """Reports of the caller's tenant."""
    routes = APIRouter(prefix="/api/v1", tags=["learn"])
    registry = learning.registry

    @routes.get("/evaluations")
    async def list_evaluations(
        who: Admin,
        program: Annotated[Name | None, Query()] = None,
        limit: Annotated[int, Query(ge=1, le=200)] = 50,
    ) -> Response:
        """The figures of the newest evaluations, newest first."""
        name = None if program is None else await _name(learning, who.scope, program)
        heads = sorted(await registry.heads(who.scope, KIND, name), key=lambda head: head.at)[-limit:]
        found = [await registry.archive.find(who.scope, KIND, head.name, head.version) for head in reversed(heads)]
        return shown({"evaluations": [_figures(one) for one in found if one is not None]})

    @routes.get("/evaluations/{program}/{number}")
    async def show_evaluation(
        who: Admin, program: Annotated[Name, Path()], number: Annotated[Which, Path()]
    ) -> Response:
        """One evaluation, with each row's address, score, record and error; contents stay behind the records."""
        name = await _name(learning, who.scope, program)
        found = await registry.version(who.scope, KIND, name, number)
        body: dict[str, Any] = from_json(found.artifact.body)
        rows = [dict(zip(("row", "score", "record", "error"), row, strict=True)) for row in body.get("rows", ())]
        return shown({**_about(found), **body, "rows": rows})

    @routes.get("/candidates")
    async def list_candidates(
        who: Admin,
        program: Annotated[Name, Query()],
        run: Annotated[str | None, Query(max_length=36, description="of this search alone")] = None,
        limit: Annotated[int, Query(ge=1, le=1000)] = 200,
    ) -> Response:
        """What searches tried, newest first; ``front`` marks the Pareto front of quality against cost of each."""
        found = await candidates(registry, who.scope, await _name(learning, who.scope, program), limit)
        return shown({"candidates": [one for one in found if run in (None, one.get("run"))]})

    _ = list_evaluations, show_evaluation, list_candidates
    return routes


async def _name(learning: Learning, scope: Scope, program: str) -> str:
    """A program's whole name: one that was evaluated need not have versions."""
    known = {name for kind, name in await learning.registry.names(scope) if kind != PARAMS}
    return program if program in known else (await learning.subject(scope, PARAMS, program)).name


def _about(found: Version) -> dict[str, Any]:
    parents = list(found.artifact.parents)
    return {"number": found.number, "at": found.at, "author": found.author, "reason": found.reason, "of": parents}


def _figures(found: Version) -> dict[str, Any]:
    body: dict[str, Any] = from_json(found.artifact.body)
    return {**_about(found), **score_of(found), "figures": body.get("figures"), "broken": body.get("broken")}
