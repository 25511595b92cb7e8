"""The registry over HTTP: versions, their differences, labels and how they moved."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Final, Self

from fastapi import APIRouter, Path, Query, Response
from pydantic import Field, model_validator
from pydantic_core import to_json

from kaizen.core.artifact import Artifact
from kaizen.core.errors import Denied, InvalidInput, NotFound
from kaizen.core.identity import Identity
from kaizen.core.scope import Scope
from kaizen.learn.data.dataset import KIND as DATASET
from kaizen.learn.data.dataset import Dataset
from kaizen.learn.data.rows import canonical
from kaizen.learn.evaluate.result import KIND as EVALUATION
from kaizen.learn.experiment.definition import KIND as EXPERIMENT
from kaizen.learn.loop.plan import KIND as LOOP
from kaizen.learn.metrics.judge import KIND as AGREEMENT
from kaizen.learn.optimize.board import KIND as CANDIDATE
from kaizen.registry.params import read_file
from kaizen.registry.registry import PARAMS, PROD
from kaizen.serve.http.entering import Admin, shown
from kaizen.serve.http.learn.inputs import Body, Name, Reason, Which
from kaizen.serve.http.learn.seams import Learning
from kaizen.serve.shown.differences import diff_json, scores_beside
from kaizen.serve.shown.versions import (
    Subject,
    arm_of,
    head_json,
    head_of,
    held,
    held_json,
    labels_of,
    move_json,
    name_json,
    shows,
    version_for,
)

# What Kaizen itself goes by: an experiment or a loop is begun by its own route, a judge's agreement is measured.
_OWN: Final = frozenset({EVALUATION, EXPERIMENT, LOOP, AGREEMENT, CANDIDATE})
_TEXT: Final = 4 * 1024 * 1024


class NewVersion(Body):
    """A version to be made. No label moves. Of params, ``params`` or ``text``; of anything else, ``body``."""

    kind: Name = PARAMS
    name: Name | None = Field(None, description="of params: the program's name, if the text does not say it")
    params: dict[str, Any] | None = None
    text: str | None = Field(None, max_length=_TEXT, description="TOML or JSON, as `kaizen registry pull` writes it")
    body: dict[str, Any] | None = None
    reason: Reason = ""

    @model_validator(mode="after")
    def _one(self) -> Self:
        wanted = ("params", "text") if self.kind == PARAMS else ("body",)
        given = [name for name in ("params", "text", "body") if getattr(self, name) is not None]
        if len(given) != 1 or given[0] not in wanted:
            raise ValueError(f"of kind {self.kind}, give one of {', '.join(wanted)}")
        if self.name is None and self.kind != PARAMS:
            raise ValueError("name is missing")
        return self


class NewArm(Body):
    """A version that a label is to show, and to what share of the subjects."""

    version: Which
    weight: float = Field(1.0, gt=0, le=1)


class NewMove(Body):
    """A label to be moved."""

    kind: Name = PARAMS
    name: Name
    label: Name = PROD
    arms: Annotated[list[NewArm], Field(min_length=1, max_length=20)]
    reason: Reason = ""
    since: Annotated[str, Field(max_length=64)] | None = Field(
        None, description="id of the move that was seen last, empty for none: refused where it moved since"
    )


class Rollback(Body):
    """A label that is to show what it showed before."""

    kind: Name = PARAMS
    name: Name
    label: Name = PROD
    reason: Reason = ""
    since: Annotated[str, Field(max_length=64)] | None = None


def registry_routes(learning: Learning) -> APIRouter:
    """The registry of the caller's tenant. All of it needs the scope ``admin``: bodies may hold contents."""
    routes = APIRouter(prefix="/api/v1/registry", tags=["registry"])
    here = _Here(learning)

    @routes.get("")
    async def list_names(who: Admin, kind: Annotated[Name | None, Query()] = None) -> Response:
        """What has versions, and what its labels show."""
        return shown({"names": await here.names(who.scope, kind)})

    @routes.get("/diff")
    async def show_difference(
        who: Admin,
        name: Annotated[Name, Query()],
        kind: Annotated[Name, Query()] = PARAMS,
        old: Annotated[Which, Query()] = PROD,
        new: Annotated[Which, Query()] = "latest",
    ) -> Response:
        """What differs between two versions, word by word, and their scores."""
        return shown(await here.diff(who.scope, kind, name, old, new))

    @routes.get("/history")
    async def list_moves(
        who: Admin,
        name: Annotated[Name, Query()],
        kind: Annotated[Name, Query()] = PARAMS,
        label: Annotated[Name | None, Query()] = None,
    ) -> Response:
        """Who moved which label, when and why, oldest first."""
        what = await learning.subject(who.scope, kind, name)
        moves = await learning.registry.history(who.scope, what.kind, what.name, label)
        heads = await learning.registry.heads(who.scope, what.kind, what.name)
        return shown({"moves": [move_json(move, heads) for move in moves]})

    @routes.get("/{kind}/{name:path}")
    async def show_version(
        who: Admin, kind: Annotated[Name, Path()], name: Annotated[str, Path(max_length=400)]
    ) -> Response:
        """Its versions; with ``/{version}`` behind the name one of them, whole, with its scores."""
        return shown(await here.show(who.scope, kind, name))

    @routes.post("", status_code=201)
    async def put_version(new: NewVersion, who: Admin) -> Response:
        """Make a version; one that is there already is the one there is."""
        return shown(await here.put(who, new), 201)

    @routes.post("/label", status_code=201)
    async def move_label(new: NewMove, who: Admin) -> Response:
        """Have a label show a version, or several by weight: ``prod`` is what runs."""
        return shown(await here.label(who, new), 201)

    @routes.post("/rollback", status_code=201)
    async def roll_back(new: Rollback, who: Admin) -> Response:
        """Have a label show the version that it showed before the present one."""
        return shown(await here.rollback(who, new), 201)

    _ = list_names, show_difference, list_moves, show_version, put_version, move_label, roll_back
    return routes


@dataclass(frozen=True, slots=True)
class _Here:
    """What the routes do."""

    learning: Learning

    async def names(self, scope: Scope, kind: str | None) -> list[dict[str, Any]]:
        registry = self.learning.registry
        heads = await registry.heads(scope, kind)
        labels = labels_of(await registry.archive.moves(scope, kind))
        keys = sorted({*labels, *((head.kind, head.name) for head in heads)})
        by_name = {key: [head for head in heads if (head.kind, head.name) == key] for key in keys}
        return [name_json(key, by_name[key], labels.get(key, {})) for key in keys]

    async def show(self, scope: Scope, kind: str, name: str) -> dict[str, Any]:
        """A name may hold slashes, so what stands behind the last one is a version only where the whole is no name."""
        registry = self.learning.registry
        before, slash, which = name.rpartition("/")
        known = {one for _, one in await registry.names(scope, kind)}
        if not slash or name in known:
            return await self._versions(scope, await self.learning.subject(scope, kind, name))
        what = await self.learning.subject(scope, kind, before)
        one = await held(registry, scope, what, which)
        labels = await registry.labels(scope, what.kind, what.name)
        scores = await registry.children(scope, one.ref, EVALUATION)
        return held_json(one, [label for label, arms in labels.items() if shows(arms, one.address)], scores)

    async def _versions(self, scope: Scope, what: Subject) -> dict[str, Any]:
        heads = await self.learning.registry.heads(scope, what.kind, what.name)
        labels = await self.learning.registry.labels(scope, what.kind, what.name)
        made = name_json((what.kind, what.name), heads, labels)
        listed = [
            {**head_json(head), "labels": [label for label, arms in labels.items() if shows(arms, head.version)]}
            for head in heads
        ]
        return {**made, "versions": listed}

    async def diff(self, scope: Scope, kind: str, name: str, old: str, new: str) -> dict[str, Any]:
        registry = self.learning.registry
        what = await self.learning.subject(scope, kind, name)
        before, after = await held(registry, scope, what, old), await held(registry, scope, what, new)
        return diff_json(before, after, await scores_beside(registry, scope, before, after))

    async def put(self, who: Identity, new: NewVersion) -> dict[str, Any]:
        _check_own(new.kind)
        registry, scope = self.learning.registry, who.scope
        artifact = await self._params(scope, new) if new.kind == PARAMS else _other(new.kind, new.name, new.body)
        known = await registry.archive.find(scope, artifact.kind, artifact.name, artifact.version)
        version = await registry.put(scope, artifact, author=who.principal, reason=new.reason)
        return {**head_json(head_of(version)), "known": known is not None}

    async def _params(self, scope: Scope, new: NewVersion) -> Artifact:
        file = read_file(new.text if new.text is not None else to_json(new.params))
        name = new.name or file.program
        if name is None:
            raise InvalidInput("it is not said whose params these are: give a name")
        try:
            what = await self.learning.subject(scope, PARAMS, name)
        except NotFound:  # the first of its name
            what = Subject(PARAMS, name)
        return await version_for(self.learning.registry, scope, what, file.params, ())

    async def label(self, who: Identity, new: NewMove) -> dict[str, Any]:
        _check_own(new.kind)
        registry, scope = self.learning.registry, who.scope
        what = await self.learning.subject(scope, new.kind, new.name)
        arms = [await arm_of(registry, scope, what, arm.version, arm.weight) for arm in new.arms]
        move = await registry.label(
            scope,
            what.kind,
            what.name,
            new.label,
            arms,
            actor=who.principal,
            reason=new.reason,
            since=new.since,
        )
        return move_json(move, await registry.heads(scope, what.kind, what.name))

    async def rollback(self, who: Identity, new: Rollback) -> dict[str, Any]:
        _check_own(new.kind)
        registry, scope = self.learning.registry, who.scope
        what = await self.learning.subject(scope, new.kind, new.name)
        move = await registry.rollback(
            scope, what.kind, what.name, new.label, actor=who.principal, reason=new.reason, since=new.since
        )
        return move_json(move, await registry.heads(scope, what.kind, what.name))


def _check_own(kind: str) -> None:
    if kind in _OWN:
        raise Denied(f"{kind}s are Kaizen's own: they are neither put nor moved by hand")


def _other(kind: str, name: str | None, body: Mapping[str, Any] | None) -> Artifact:
    artifact = Artifact(kind, name or "", canonical(body))
    # one that can't be read would be found out only by who needs it
    return Dataset.load(artifact).artifact() if kind == DATASET else artifact
