"""What searches begin with and what they leave: rows, params to start from, and the candidates in the registry."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from pydantic_core import from_json

from kaizen.core.artifact import BASE, Version
from kaizen.core.errors import ConfigError, NotFound
from kaizen.core.params import Params
from kaizen.core.scope import Scope
from kaizen.learn.data.rows import Row
from kaizen.learn.front import front
from kaizen.learn.optimize.board import KIND
from kaizen.registry.params import params_of
from kaizen.registry.registry import LATEST, PARAMS, PROD, Registry

_LEAST_ROWS: Final = 2


def check_enough(train: Sequence[Row], val: Sequence[Row]) -> None:
    """Make sure that there is something to learn from and to choose by.

    Raises:
        ConfigError: there is not.
    """
    if min(len(train), len(val)) < _LEAST_ROWS:
        raise ConfigError(f"{len(train)} rows to learn from and {len(val)} to choose by are too few: give some dozens")


async def start_at(registry: Registry, scope: Scope, name: str, which: str) -> Mapping[str, Params]:
    """The params that a search starts from: nothing for ``base``, and for what was never kept or released.

    Raises:
        NotFound: there is no such version.
    """
    if which == BASE:
        return {}
    try:
        return {name: params_of((await registry.version(scope, PARAMS, name, which)).artifact)}
    except NotFound:
        if which not in (LATEST, PROD):
            raise
        return {}


async def candidates(registry: Registry, scope: Scope, program: str, most: int) -> list[dict[str, Any]]:
    """What was tried for a program, newest first, each with its params and figures as JSON-able values.

    ``front`` says whether it is on the Pareto front of quality against cost of its own run. Cost is dollars a row where
    all of the run's are known, else tokens.

    Args:
        registry: where they are kept.
        scope: whose.
        program: its name.
        most: so many of the newest.
    """
    heads = (await registry.heads(scope, KIND, program))[-most:]
    found = [await registry.archive.find(scope, KIND, program, head.version) for head in heads]
    made = [_shown(version) for version in found if version is not None]
    runs: dict[str, list[dict[str, Any]]] = {}
    for one in made:
        if one.get("score") is not None and not one.get("partial"):
            runs.setdefault(str(one.get("run")), []).append(one)
    for tried in runs.values():
        _mark_front(tried)
    return made[::-1]


def _mark_front(tried: Sequence[dict[str, Any]]) -> None:
    """Say which candidates of one run are on its front."""
    unit = "tokens" if any(one.get("usd") is None for one in tried) else "usd"
    for one in front(tried, cost=lambda one: float(one.get(unit) or 0.0), score=lambda one: float(one["score"])):
        one["front"] = True


def _shown(version: Version) -> dict[str, Any]:
    body: dict[str, Any] = from_json(version.artifact.body)
    return {
        "number": version.number,
        "version": version.artifact.version,
        "at": version.at,
        "author": version.author,
        "parents": list(version.artifact.parents),
        "front": False,
        **body,
    }
