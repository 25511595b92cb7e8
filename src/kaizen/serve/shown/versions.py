"""Versions and labels: which one is meant, what it says, and how it is written down."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pydantic_core import from_json

from kaizen.core.artifact import BASE, Arm, Artifact, Head, Move, Version
from kaizen.core.context import Program
from kaizen.core.errors import Conflict, NotFound
from kaizen.core.params import NOTHING, Params
from kaizen.core.scope import Scope
from kaizen.programs.signature import Signature
from kaizen.registry.params import params_artifact, params_of, read_file, save, stated
from kaizen.registry.registry import LATEST, PARAMS, PROD, Registry
from kaizen.serve.arguments import nearest


@dataclass(frozen=True, slots=True)
class Subject:
    """One kind and name, and the version that was named with it, if any.

    Args:
        kind, name: of the artifacts.
        which: what stood behind the ``@``.
        program: the program itself, where it is at hand.
    """

    kind: str
    name: str
    which: str | None = None
    program: Program | None = None

    @property
    def full(self) -> str:
        """``kind/name``."""
        return f"{self.kind}/{self.name}"


async def subject(registry: Registry, scope: Scope, word: tuple[str, str | None, Program | None]) -> Subject:
    """What is meant.

    Args:
        registry: where it is looked for.
        scope: whose.
        word: a name (of params its last part is enough, of others ``kind/name``), a version, and the program where it
            is at hand.

    Raises:
        NotFound: there is nothing of that name; says what there is.
        Conflict: several names end so.
    """
    name, which, program = word
    if program is not None:
        return Subject(PARAMS, name, which, program)
    names = await registry.names(scope)
    kind, slash, rest = name.partition("/")
    if slash and kind in {known for known, _ in names}:
        name = rest
    else:
        kind = PARAMS
    known = [one for of, one in names if of == kind]
    known += [move.name for move in await registry.archive.moves(scope, kind) if move.name not in known]
    if name in known:
        return Subject(kind, name, which)
    alike = [one for one in known if one.endswith(f".{name}")]
    if len(alike) > 1:
        raise Conflict(f"several names end in {name}: {', '.join(alike)}")
    if alike:
        return Subject(kind, alike[0], which)
    there = nearest(name, known) or (f"; there is {', '.join(known[:5])}" if known else "")
    raise NotFound(f"the registry has no {kind}/{name}{there}")


# -- what a version says --------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Held:
    """A version, or the params in the code.

    Args:
        what: of which kind and name.
        version: None for ``base``.
        tree: what it says, as JSON-able values.
    """

    what: Subject
    version: Version | None
    tree: Mapping[str, Any]

    @property
    def ref(self) -> str:
        """``kind/name@version``."""
        return f"{self.what.full}@{self.address}"

    @property
    def address(self) -> str:
        """The content address, or ``base``."""
        return BASE if self.version is None else self.version.artifact.version

    @property
    def shown(self) -> str:
        """A number, or ``base``."""
        return BASE if self.version is None else f"{self.version.number}"


async def held(registry: Registry, scope: Scope, what: Subject, which: str | None) -> Held:
    """One version of it: ``base``, ``latest``, a label, a number or a content address; None takes the latest.

    Raises:
        NotFound, Conflict: see ``Registry.version``.
    """
    which = which or LATEST
    if what.kind == PARAMS:
        if which == BASE or (which == LATEST and not await registry.heads(scope, PARAMS, what.name)):
            return Held(what, None, base_tree(what.program))
        arms = await registry.arms(scope, PARAMS, what.name, which)
        if arms == (Arm(BASE),) or (arms is None and which == PROD):
            return Held(what, None, base_tree(what.program))
    version = await registry.version(scope, what.kind, what.name, which)
    return Held(what, version, from_json(version.artifact.body))


def base_tree(program: Program | None) -> Mapping[str, Any]:
    """What the code says, as far as it is known: the docstring, and what the program brings."""
    if program is None:
        return {}
    own = program.compile().params if isinstance(program, type) and issubclass(program, Signature) else NOTHING
    return stated(own.over(Params(instructions=program.spec.doc or None, contract=program.spec.contract)))


def shows(arms: Sequence[Arm], version: str) -> bool:
    """Whether a label shows a version, alone or among others."""
    return any(arm.version == version for arm in arms)


def labels_of(moves: Sequence[Move]) -> dict[tuple[str, str], dict[str, tuple[Arm, ...]]]:
    """By kind and name, what each label shows after these moves."""
    labels: dict[tuple[str, str], dict[str, tuple[Arm, ...]]] = {}
    for move in moves:
        labels.setdefault((move.kind, move.name), {})[move.label] = move.arms
    return labels


async def arm_of(registry: Registry, scope: Scope, what: Subject, which: str, share: float) -> Arm:
    """What a label is to show to a share of the subjects.

    Raises:
        NotFound: there is no such version.
        Conflict: it was made for another contract than the program has now.
    """
    if which == BASE:
        return Arm(BASE, share)
    version = await registry.version(scope, what.kind, what.name, which)
    if what.kind == PARAMS and what.program is not None:
        _check_contract(what.program, params_of(version.artifact).contract, version.number)
    return Arm(version.artifact.version, share)


def _check_contract(program: Program, contract: str | None, number: int) -> None:
    if contract not in (None, program.spec.contract):
        raise Conflict(
            f"version {number} was made for another contract than {program.spec.name} has now: "
            f"`kaizen registry edit` makes one of it that fits"
        )


async def version_for(
    registry: Registry, scope: Scope, what: Subject, params: Params, parents: Sequence[str]
) -> Artifact:
    """A person's params as an artifact, with the contract of the program, or else of the newest version.

    Raises:
        Conflict: they were made for another contract than the program has.
    """
    if what.program is not None:
        return params_artifact(what.program.spec, params, parents)
    if params.contract is None and await registry.heads(scope, PARAMS, what.name):
        newest = await registry.version(scope, PARAMS, what.name)
        params = replace(params, contract=read_file(newest.artifact.body).params.contract)
    return Artifact(PARAMS, what.name, save(params), tuple(parents))


# -- as JSON --------------------------------------------------------------------------------------


def arms_json(arms: Sequence[Arm], numbers: Mapping[str, int]) -> list[dict[str, Any]]:
    """What a label shows."""
    return [{"version": arm.version, "number": numbers.get(arm.version), "weight": arm.weight} for arm in arms]


def move_json(move: Move, heads: Sequence[Head]) -> dict[str, Any]:
    """A move, with the numbers of the versions it shows; 0 for ``base``."""
    return {
        "id": move.id,
        "kind": move.kind,
        "name": move.name,
        "label": move.label,
        "arms": arms_json(move.arms, numbers_of(heads)),
        "actor": move.actor,
        "reason": move.reason,
        "at": move.at,
        "undoes": move.undoes or None,
    }


def numbers_of(heads: Sequence[Head]) -> dict[str, int]:
    """Numbers by content address; 0 for ``base``."""
    return {head.version: head.number for head in heads} | {BASE: 0}


def head_json(head: Head) -> dict[str, Any]:
    """A version without its body."""
    return {
        "kind": head.kind,
        "name": head.name,
        "number": head.number,
        "version": head.version,
        "author": head.author,
        "reason": head.reason,
        "at": head.at,
        "parents": list(head.parents),
        "bytes": head.size,
    }


def head_of(version: Version) -> Head:
    """A version without its body."""
    artifact = version.artifact
    about = (version.author, version.reason, version.at, len(artifact.body))
    return Head(version.number, artifact.kind, artifact.name, artifact.version, artifact.parents, *about)


def name_json(key: tuple[str, str], heads: Sequence[Head], labels: Mapping[str, Sequence[Arm]]) -> dict[str, Any]:
    """A kind and name with what its labels show."""
    return {
        "kind": key[0],
        "name": key[1],
        "versions": len(heads),
        "latest": head_json(heads[-1]) if heads else None,
        "labels": {label: arms_json(arms, numbers_of(heads)) for label, arms in labels.items()},
    }


def held_json(one: Held, labels: Sequence[str], scores: Sequence[Version]) -> dict[str, Any]:
    """A version, whole, with its scores."""
    version = one.version
    about: dict[str, Any] = {
        "kind": one.what.kind,
        "name": one.what.name,
        "number": 0 if version is None else version.number,
        "version": one.address,
        "labels": list(labels),
        "body": one.tree,
        "scores": [score_of(score) for score in scores],
    }
    if version is not None:
        parents = list(version.artifact.parents)
        about |= {"author": version.author, "reason": version.reason, "at": version.at, "parents": parents}
    return about


def score_of(evaluation: Version) -> dict[str, Any]:
    """What an evaluation says, without its rows."""
    body = from_json(evaluation.artifact.body)
    return {
        "evaluation": f"{evaluation.artifact.name}@{evaluation.number}",
        **{key: value for key, value in body.items() if isinstance(value, str | int | float | None)},
    }
