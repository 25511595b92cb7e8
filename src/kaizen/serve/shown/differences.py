"""How two versions differ, and what both scored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, assert_never

from kaizen.core.artifact import Version
from kaizen.core.scope import Scope
from kaizen.registry.diff import Change, Items, Values, Words, differences
from kaizen.registry.registry import Registry
from kaizen.serve.shown.versions import Held, score_of


async def scores_beside(registry: Registry, scope: Scope, old: Held, new: Held) -> list[dict[str, Any]]:
    """The latest score of each metric, and on each dataset where that is said, of both."""
    before = _latest(await registry.children(scope, old.ref, "evaluation"))
    after = _latest(await registry.children(scope, new.ref, "evaluation"))
    names = dict.fromkeys([*before, *after])
    return [{"metric": name, "old": before.get(name), "new": after.get(name)} for name in names]


def _latest(evaluations: Sequence[Version]) -> dict[str, Mapping[str, Any]]:
    said = [score_of(one) for one in evaluations]
    return {" on ".join(filter(None, (one.get("metric") or "score", one.get("data")))): one for one in said}


def changed(old: Held, new: Held) -> dict[str, Change]:
    """The fields in which two versions differ; beside the code, what a version does not state is as the code says."""
    code = old.tree if old.version is None else new.tree if new.version is None else dict[str, Any]()
    return differences({**code, **old.tree}, {**code, **new.tree})


def diff_json(old: Held, new: Held, scores: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Two versions side by side."""
    changes = changed(old, new)
    return {
        "kind": old.what.kind,
        "name": old.what.name,
        "old": old.shown,
        "new": new.shown,
        "changes": {name: _change_json(change) for name, change in changes.items()},
        "scores": list(scores),
    }


def _change_json(change: Change) -> dict[str, Any]:
    match change:
        case Words(pieces):
            return {"words": [list(piece) for piece in pieces]}
        case Items(removed, added, moved):
            return {"removed": list(removed), "added": list(added), "moved": moved}
        case Values(old, new):
            return {"old": old, "new": new}
        case _:
            assert_never(change)
