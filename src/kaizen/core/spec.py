"""The contract behind every program: name, doc, typed inputs, typed outputs. No behaviour but checking values."""

from __future__ import annotations

import reprlib
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias, cast

import pydantic
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError
from pydantic_core import to_json

from kaizen.core.answer import Answer
from kaizen.core.errors import InvalidInput
from kaizen.core.ids import digest

FieldRole: TypeAlias = Literal["input", "intermediate", "output"]

if TYPE_CHECKING:
    # pydantic loads it when a field is first made: a third of what importing a signature would cost
    from pydantic.fields import FieldInfo

_SHOWN = 80
_SHOWN_PROBLEMS = 20
_WORDS = frozenset({"description", "title", "examples", "default"})
_BY_NAME = frozenset({"properties", "$defs"})  # keys whose value maps names, which may look like words


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a contract.

    Args:
        name: its name; inputs, intermediates and outputs share one namespace.
        role: input, intermediate (written by the model before the outputs) or output.
        annotation: its type.
        info: pydantic's field, with default, description and constraints.
        feeds: for an intermediate that another program fills: that program (see ``programs.chain``).
    """

    name: str
    role: FieldRole
    annotation: Any
    info: FieldInfo
    feeds: Any = None

    @property
    def description(self) -> str:
        """What the field means, in the author's words."""
        return self.info.description or ""

    @property
    def required(self) -> bool:
        """Whether a value must be given."""
        return self.info.is_required()


class Spec:
    """A contract. Two Specs with equal fields have equal ``contract`` digests, whatever their words say.

    Args:
        name: the program's ref, ``<module>.<Class>``.
        doc: what the program does, the default instructions.
        fields: in the order declared.
        answer_type: the class whose instances carry this contract's outputs.
    """

    def __init__(self, name: str, doc: str, fields: Iterable[Field], answer_type: type[Answer] = Answer) -> None:
        self.name, self.doc, self.answer_type = name, doc, answer_type
        self.fields = {field.name: field for field in fields}

    def __repr__(self) -> str:
        inputs = ", ".join(self.inputs)
        return f"Spec({self.name}: {inputs} -> {', '.join(self.written)})"

    def variant(self, way: str) -> Spec:
        """The same contract for another program that serves it in its own way: ``bank.Triage:best_of``."""
        return Spec(f"{self.name}:{way}", self.doc, self.fields.values(), self.answer_type)

    # -- fields -----------------------------------------------------------------------------------

    @cached_property
    def inputs(self) -> dict[str, Field]:
        """Fields a caller gives."""
        return {f.name: f for f in self.fields.values() if f.role == "input"}

    @cached_property
    def outputs(self) -> dict[str, Field]:
        """Fields a caller gets."""
        return {f.name: f for f in self.fields.values() if f.role == "output"}

    @cached_property
    def fed(self) -> dict[str, Field]:
        """Intermediates that another program fills before the model is asked."""
        return {f.name: f for f in self.fields.values() if f.feeds is not None}

    @cached_property
    def written(self) -> dict[str, Field]:
        """Fields the model writes: intermediates first, then outputs."""
        thinking = {f.name: f for f in self.fields.values() if f.role == "intermediate" and f.feeds is None}
        return thinking | self.outputs

    # -- schemas ----------------------------------------------------------------------------------

    @cached_property
    def input_model(self) -> type[BaseModel]:
        """A pydantic model of the inputs; unknown names are refused."""
        return _model(self.name, "Inputs", self.inputs)

    @cached_property
    def output_model(self) -> type[BaseModel]:
        """A pydantic model of what the model writes."""
        return _model(self.name, "Outputs", self.written)

    @cached_property
    def input_schema(self) -> dict[str, Any]:
        """JSON schema of the inputs."""
        return self.input_model.model_json_schema()

    @cached_property
    def output_schema(self) -> dict[str, Any]:
        """JSON schema of what the model writes."""
        return self.output_model.model_json_schema()

    @cached_property
    def contract(self) -> str:
        """Digest of names, types and constraints; descriptions and doc don't count, params may replace those."""
        return digest(to_json([_bare(self.input_schema), _bare(self.output_schema)]))

    @cached_property
    def adapters(self) -> dict[str, TypeAdapter[Any]]:
        """What validates an intermediate or output field by itself, its constraints included."""
        fields = self.fed | self.written
        typed = {name: cast("Any", Annotated)[field.annotation, field.info] for name, field in fields.items()}
        return {name: TypeAdapter(one) for name, one in typed.items()}

    # -- values -----------------------------------------------------------------------------------

    def validate_inputs(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Typed inputs by name, defaults filled in.

        Raises:
            InvalidInput: names every field that is missing, unknown or breaks a rule, its value shortened; of more
                than 20 mistakes the first 20.
        """
        try:
            # the validator itself, not model_validate: a call less on the hot path
            return self.input_model.__pydantic_validator__.validate_python(values).__dict__
        except ValidationError as error:
            found = error.errors(include_url=False, include_context=False)
            shown = found[:_SHOWN_PROBLEMS]  # a list of a million wrong items is not worth a message of 100 MB
            more = f"; and {len(found) - len(shown)} more" if len(found) > len(shown) else ""
            problems = [_problem(item, self.inputs) for item in shown]
            raise InvalidInput(
                f"{self.name}: " + "; ".join(problems) + more,
                rules="; ".join(_rule(item) for item in shown) + more,
                detail={"program": self.name, "problems": problems},
            ) from None

    def validate_outputs(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Typed outputs by name, intermediates included.

        Raises:
            pydantic.ValidationError: if they don't fit.
        """
        return self.output_model.__pydantic_validator__.validate_python(values).__dict__

    def load_answer(self, data: bytes, inputs: Mapping[str, Any]) -> Answer:
        """An answer kept as JSON, fed intermediates included.

        Raises:
            pydantic.ValidationError: if it is of another contract.
        """
        values = _kept_model(self).__pydantic_validator__.validate_json(data).__dict__
        return self.answer_type.of(values, inputs=inputs)


def dump(values: Any) -> bytes:
    """Canonical JSON bytes of field values: pydantic models, dataclasses, enums, dates and bytes included."""
    return to_json(values, serialize_unknown=False)


def shorten(value: object, limit: int = _SHOWN) -> str:
    """A value's repr, cut so that a message stays one line and shows little of a user's data."""
    cut = reprlib.Repr()  # stops early: a huge value must not be written out only to be cut
    cut.maxlist = cut.maxtuple = cut.maxdict = cut.maxset = cut.maxfrozenset = cut.maxdeque = limit
    cut.maxother = cut.maxlong = limit + 1
    text = repr(value[:limit]) if isinstance(value, str | bytes) else cut.repr(value)
    text = text.replace("\n", " ")
    return text if len(text) <= limit else f"{text[: limit - 1]}…"


@cache
def _kept_model(spec: Spec) -> type[BaseModel]:
    return _model(spec.name, "Kept", spec.fed | spec.written)


def _model(name: str, part: str, fields: Mapping[str, Field]) -> type[BaseModel]:
    config = ConfigDict(extra="forbid", arbitrary_types_allowed=False, protected_namespaces=())
    model_name = name.rsplit(".", 1)[-1] + part
    definitions: dict[str, Any] = {f.name: (f.annotation, f.info) for f in fields.values()}
    if not any(hasattr(BaseModel, name) for name in fields):
        return pydantic.create_model(model_name, __config__=config, **definitions)
    with warnings.catch_warnings():
        # nobody calls the methods of these models, so a field may be named as one of them, such as `copy`
        warnings.filterwarnings("ignore", "Field name .* shadows an attribute", UserWarning)
        return pydantic.create_model(model_name, __config__=config, **definitions)


def _problem(item: Any, fields: Mapping[str, Field]) -> str:
    where = ".".join(str(part) for part in item["loc"])
    name = str(item["loc"][0]) if item["loc"] else ""
    match item["type"]:
        case "missing" if name in fields:
            return f"input '{where}' is missing"
        case "extra_forbidden" if name not in fields:
            return f"'{where}' is no input; the inputs are {', '.join(fields) or 'none'}"
        case _:
            return f"input '{where}' = {shorten(item['input'])}: {item['msg']}"


def _rule(item: Any) -> str:
    """The broken rule without the value; what an author's own check says may show the value, so it is left out."""
    name = str(item["loc"][0]) if item["loc"] else ""
    said = "refused by its check" if item["type"] in ("value_error", "assertion_error") else item["msg"]
    return f"'{name}': {said}"


def _bare(schema: object) -> object:
    """A schema without its words, so that only types and constraints count."""
    match schema:
        case dict():
            items = cast("dict[str, object]", schema).items()
            return {
                key: _named(value) if key in _BY_NAME else _bare(value) for key, value in items if key not in _WORDS
            }
        case list():
            return [_bare(item) for item in cast("list[object]", schema)]
        case _:
            return schema


def _named(schemas: object) -> dict[str, object]:
    return {name: _bare(schema) for name, schema in cast("dict[str, object]", schemas).items()}
