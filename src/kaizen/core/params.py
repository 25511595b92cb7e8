"""What can be learned about a program: its params. A prompt is not a class; it is a value of this."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Final, Literal, TypeAlias

from pydantic_core import to_json

from kaizen.core.ids import digest
from kaizen.core.request import Decoding, Options

OutputMode: TypeAlias = Literal["schema", "json", "text"]


@dataclass(frozen=True, slots=True)
class Demo:
    """A worked example shown to the model: inputs and outputs by field name, as JSON-able values."""

    inputs: Mapping[str, Any]
    outputs: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Params:
    """The learnable part of a program. None (and no demos) means: take it from the next place.

    Args:
        instructions: replaces the contract's docstring.
        demos: worked examples, in the order shown.
        model: ref of the model, ``provider/model``.
        temperature, top_p, max_tokens, seed, stop: decoding, see ``Decoding``.
        output_mode: "schema" has the provider enforce the contract's JSON schema, "json" shows the schema
            in the prompt, "text" uses marked fields.
        repairs: how many times a reply that misfits is shown back to the model with its error.
        options: what to wish of the layers, such as ``Options(exact=True)``.
        advice: shown after the inputs, so that the stable part of the prompt stays as it is.
        contract: digest of the contract these params were learned for; another one refuses them.
    """

    instructions: str | None = None
    demos: tuple[Demo, ...] = ()
    model: str | None = None
    temperature: float | None = None
    top_p: float | None = None
    max_tokens: int | None = None
    seed: int | None = None
    stop: tuple[str, ...] = ()
    output_mode: OutputMode | None = None
    repairs: int | None = None
    options: Options | None = None
    advice: str | None = None
    contract: str | None = None

    def over(self, other: Params) -> Params:
        """These params, with what they leave open filled from ``other``."""
        if self == NOTHING:
            return other
        return replace(
            other, **{f.name: value for f in fields(self) if (value := getattr(self, f.name)) not in (None, ())}
        )

    @property
    def decoding(self) -> Decoding:
        """The sampling parameters of a request."""
        return Decoding(self.temperature, self.top_p, self.max_tokens, self.seed, self.stop)

    @property
    def version(self) -> str:
        """Content address: equal params have equal versions."""
        return digest(to_json(self))


NOTHING: Final = Params()
"""Params that leave everything open."""
