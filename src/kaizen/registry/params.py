"""Params as a file and as an artifact: canonical JSON to keep, TOML or JSON to read and edit.

A file loads without the code the params were learned with::

    from kaizen.registry.params import load

    Tuned = Triage.using(load(Path("triage.toml").read_bytes()))

It knows nothing of the single fields of ``Params``: what a field's type can say is what a file can hold.
"""

from __future__ import annotations

import difflib
import json
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cache
from typing import Any, Final, cast

from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic_core import PydanticSerializationError, to_json

from kaizen.core.artifact import Artifact
from kaizen.core.errors import Conflict, InvalidInput
from kaizen.core.params import NOTHING, Params
from kaizen.core.spec import Spec, shorten
from kaizen.registry.toml import NotWritable, to_toml_text

KIND: Final = "params"
PROGRAM: Final = "program"
"""The key under which a readable file says whose params it holds."""

_NAMES: Final = tuple(field.name for field in fields(Params))


@dataclass(frozen=True, slots=True)
class ParamsFile:
    """A readable file.

    Args:
        params: what it says.
        program: whose they are, where it says so.
    """

    params: Params
    program: str | None = None


def save(params: Params) -> bytes:
    """Canonical JSON: what the params leave open is left out, so that a later field changes no digest.

    Values of demos are kept as the JSON that models are shown: of a tuple or an enum, a list or its value.

    Raises:
        InvalidInput: a value is not of its field's type, or has no form in JSON.
    """
    try:
        data = to_json(_tree(params))
    except PydanticSerializationError as error:  # half a character
        raise InvalidInput(f"the params can't be written as JSON: {error}") from None
    load(data)
    return data


def load(text: bytes | str) -> Params:
    """The params of a file or an artifact's body.

    Raises:
        InvalidInput: it is neither JSON nor TOML, or a key or value is wrong; says which.
    """
    return read_file(text).params


def read_file(text: bytes | str) -> ParamsFile:
    """A readable file, or an artifact's body.

    Raises:
        InvalidInput: as ``load``.
    """
    tree = _parsed(text)
    program = tree.pop(PROGRAM, None)
    if program is not None and not isinstance(program, str):
        raise InvalidInput(f"the params: '{PROGRAM}' should be the name of a program")
    return ParamsFile(_read(tree), program)


def to_toml(params: Params, *, program: str | None = None, comment: Sequence[str] = ()) -> str:
    """A readable file: ``load`` gives the same params.

    Args:
        params: what to write.
        program: whose they are.
        comment: lines to put first.

    Raises:
        NotWritable: a demo holds what TOML has no form for, a null: ``to_json_text`` has one.
    """
    # a control character would end the comment, or is none that TOML allows in it
    shown = ("".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in line) for line in comment)
    head = "".join(f"# {line}\n" for line in shown)
    return head + to_toml_text({} if program is None else {PROGRAM: program}) + to_toml_text(_tree(params))


def to_json_text(params: Params, *, program: str | None = None) -> str:
    """The same as indented JSON, which has no comments."""
    tree = ({} if program is None else {PROGRAM: program}) | _tree(params)
    return json.dumps(tree, indent=2, ensure_ascii=False) + "\n"


def readable(params: Params, *, program: str | None = None, comment: Sequence[str] = ()) -> tuple[str, str]:
    """The most readable form there is, and the suffix of its files: TOML, else JSON."""
    try:
        return to_toml(params, program=program, comment=comment), ".toml"
    except NotWritable:
        return to_json_text(params, program=program), ".json"


def params_artifact(spec: Spec, params: Params, parents: Sequence[str] = ()) -> Artifact:
    """Params as an artifact of a program, with its contract's digest.

    Args:
        spec: the program's contract.
        params: what was learned.
        parents: refs of the artifacts it was made from.

    Raises:
        Conflict: they were made for another contract.
        InvalidInput: see ``save``.
    """
    stated = params.contract
    if stated not in (None, spec.contract):
        raise Conflict(
            f"{spec.name}: these params were made for another contract ({stated}) than the program has now "
            f"({spec.contract}): change them to fit its fields, and take their 'contract' out"
        )
    return Artifact(KIND, spec.name, save(Params(contract=spec.contract).over(params)), tuple(parents))


def params_of(artifact: Artifact) -> Params:
    """The params that an artifact of this kind holds.

    Raises:
        InvalidInput: it was written by a newer Kaizen, or is of another kind.
    """
    if artifact.kind != KIND:
        raise InvalidInput(f"{artifact.ref} holds no params")
    return load(artifact.body)


def shadowed(own: Params, params: Params) -> tuple[str, ...]:
    """Fields that a program's own params state: a release of ``params`` could not change them."""
    return tuple(
        name
        for name in _NAMES
        if name != "contract"
        and (stated := getattr(own, name)) not in (None, ())
        and getattr(params, name) not in (None, (), stated)
    )


def stated(params: Params) -> Mapping[str, Any]:
    """The fields that params say something about, as JSON-able values."""
    return _tree(params)


# -- inside ---------------------------------------------------------------------------------------


@cache
def _adapter() -> TypeAdapter[list[Params]]:
    # in a list: a dataclass takes no configuration from outside, what it stands in does
    return TypeAdapter(list[Params], config=ConfigDict(extra="forbid", allow_inf_nan=False))


def _tree(params: Params) -> dict[str, Any]:
    try:
        made = cast(
            "list[dict[str, Any]]", _adapter().dump_python([params], mode="json", exclude_defaults=True, warnings=False)
        )
    except PydanticSerializationError as error:
        raise InvalidInput(f"the params can't be written as JSON: {error}") from None
    return dict(sorted(made[0].items()))


def _parsed(text: bytes | str) -> dict[str, Any]:
    try:
        text = text.decode() if isinstance(text, bytes) else text
    except UnicodeDecodeError as error:
        raise InvalidInput(f"the params are no text in UTF-8: byte {error.start}") from None
    is_json = text.lstrip().startswith("{")
    try:
        tree: Any = json.loads(text) if is_json else tomllib.loads(text)
    except (json.JSONDecodeError, tomllib.TOMLDecodeError, RecursionError) as error:
        raise InvalidInput(f"the params are no {'JSON' if is_json else 'TOML'}: {error}") from None
    return tree


def _read(tree: Mapping[str, Any]) -> Params:
    if unknown := [name for name in tree if name not in _NAMES]:
        near = difflib.get_close_matches(unknown[0], _NAMES, n=1)
        hint = f"; did you mean '{near[0]}'?" if near else f"; there are {', '.join(_NAMES)}"
        raise InvalidInput(f"the params: '{unknown[0]}' is none of them{hint}")
    try:
        (params,) = _adapter().validate_json(to_json([tree]))
    except ValidationError as error:
        said = [
            f"{'.'.join(str(part) for part in item['loc'][1:])} = {shorten(item['input'])}: {item['msg']}"
            if item["loc"][1:]
            else item["msg"].removeprefix("Value error, ")
            for item in error.errors(include_url=False)
        ]
        raise InvalidInput(f"the params: {'; '.join(said)}") from None
    return params


EMPTY: Final = save(NOTHING)
"""The body of params that say nothing."""
