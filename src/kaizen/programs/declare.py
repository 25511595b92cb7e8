"""How fields are declared: ``context.input``, ``context.output``, ``context.intermediate``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, Union, cast, get_args, get_origin

import pydantic
from pydantic import AfterValidator
from pydantic_core import PydanticUndefined
from typing_extensions import TypedDict

from kaizen.core.spec import FieldRole

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo

UNSERVED: Final = {
    "source": "no room reads from sources yet; pass the value as an input",
    "channel": "no room serves channels yet; leave it out",
    "security": "no room enforces classification and masking yet; mask the value before you pass it",
}


_CONSTRAINTS: Final = frozenset(
    {"ge", "gt", "le", "lt", "multiple_of", "min_length", "max_length", "pattern", "strict"}
    | {"allow_inf_nan", "max_digits", "decimal_places", "discriminator", "union_mode", "title"}
)


class Turn(TypedDict):
    """One turn of a conversation."""

    role: Literal["user", "assistant"]
    content: str


History = list[Turn]
"""The type of an input that takes a conversation: its turns stand before the present input in the prompt."""


def bare_type(annotation: Any) -> Any:
    """The annotation without Annotated and Optional."""
    origin = get_origin(annotation)
    if origin is Annotated:
        return bare_type(get_args(annotation)[0])
    if origin in (Union, UnionType):
        options = [option for option in get_args(annotation) if option is not NoneType]
        if len(options) == 1:
            return bare_type(options[0])
    return annotation


@dataclass(frozen=True, slots=True)
class SecurityConstraint:
    """Who may see a field and how it is masked. Refused at definition until a room enforces it."""

    classification: str | None = None
    masking: str | None = None


@dataclass(frozen=True, slots=True)
class Declared:
    """What stands behind a field's ``=`` until its class is made."""

    role: FieldRole
    info: FieldInfo
    validators: tuple[AfterValidator, ...] = ()
    feeds: Any = None
    mistakes: tuple[str, ...] = ()

    def typed(self, annotation: Any) -> Any:
        """The annotation with the field's own checks."""
        return Annotated[annotation, *self.validators] if self.validators else annotation


def _declare(
    role: FieldRole,
    desc: str,
    *,
    default: Any = PydanticUndefined,
    validation: Callable[[Any], object] | None = None,
    examples: Sequence[Any] | None = None,
    feeds: Any = None,
    unserved: dict[str, object] | None = None,
    constraints: dict[str, Any],
) -> Any:
    made: Any = pydantic.Field(
        default=default,
        description=desc or None,
        examples=list(examples) if examples else None,
        **{name: value for name, value in constraints.items() if name in _CONSTRAINTS},
    )
    info = cast("FieldInfo", made)
    mistakes = [f"`{name}=`: {UNSERVED[name]}" for name, value in (unserved or {}).items() if value is not None]
    mistakes += [f"`{name}=`: {_misused(role, name)}" for name in constraints if name not in _CONSTRAINTS]
    validators = (AfterValidator(_checked(validation)),) if validation is not None else ()
    return Declared(role, info, validators, feeds, tuple(mistakes))


def _misused(role: FieldRole, name: str) -> str:
    if name in ("default", "default_factory"):
        return f"an {role} has no default, since what was not written must not be made up; allow None in its type"
    return f"it is no constraint; there are {', '.join(sorted(_CONSTRAINTS))}"


def _checked(validation: Callable[[Any], object]) -> Callable[[Any], Any]:
    name = getattr(validation, "__name__", "validation")

    def check(value: Any) -> Any:
        if validation(value) is False:
            raise ValueError(f"refused by {name}")
        return value

    return check


def input(
    desc: str = "",
    *,
    default: Any = PydanticUndefined,
    validation: Callable[[Any], object] | None = None,
    examples: Sequence[Any] | None = None,
    source: object = None,
    channel: object = None,
    security: SecurityConstraint | None = None,
    **constraints: Any,
) -> Any:
    """Declare an input.

    Args:
        desc: what it means; the model reads it.
        default: makes it optional.
        validation: a callable that gets the typed value; it returns False or raises ValueError to refuse it.
        examples: shown in the JSON schema.
        source: refused at definition until a room serves it.
        channel: likewise.
        security: likewise.
        **constraints: pydantic's: ``ge, gt, le, lt, multiple_of, min_length, max_length, pattern, strict ...``
    """
    unserved = {"source": source, "channel": channel, "security": security}
    return _declare(
        "input",
        desc,
        default=default,
        validation=validation,
        examples=examples,
        unserved=unserved,
        constraints=constraints,
    )


def output(
    desc: str = "",
    *,
    validation: Callable[[Any], object] | None = None,
    examples: Sequence[Any] | None = None,
    channel: object = None,
    security: SecurityConstraint | None = None,
    init: Literal[False] = False,
    **constraints: Any,
) -> Any:
    """Declare an output: what the model writes and the caller gets. Arguments as for ``input``.

    ``init`` is there for type checkers: an output is never passed in.
    """
    del init
    return _declare(
        "output",
        desc,
        validation=validation,
        examples=examples,
        unserved={"channel": channel, "security": security},
        constraints=constraints,
    )


def intermediate(
    desc: str = "",
    *,
    signature: Any = None,
    validation: Callable[[Any], object] | None = None,
    init: Literal[False] = False,
    **constraints: Any,
) -> Any:
    """Declare an intermediate: written before the outputs (reasoning) and kept in the record.

    Args:
        desc: what it means; the model reads it.
        signature: another program that runs first instead; its inputs are this one's fields of the same
            names, and its output of this field's name (or its only output) becomes this field's value.
        validation: as for ``input``.
        init: for type checkers only.
        **constraints: pydantic's.
    """
    del init
    return _declare("intermediate", desc, validation=validation, feeds=signature, constraints=constraints)
