"""What can be learned about a program: its params. A prompt is not a class; it is a value of this."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Final, Literal, TypeAlias

from pydantic_core import to_json

from kaizen.core.ids import digest
from kaizen.core.request import Decoding, Options

OutputMode: TypeAlias = Literal["schema", "json", "text"]
Layout: TypeAlias = Literal["chat", "plain"]
# A version comes out of a registry, and must not make one answer cost thousands of calls.
_BOUNDS: Final = {"nearest": (0, 10_000), "shown": (0, 10_000), "repairs": (0, 16), "votes": (1, 64)}


@dataclass(frozen=True, slots=True)
class Demo:
    """A worked example shown to the model: inputs and outputs by field name, as JSON-able values."""

    inputs: Mapping[str, Any]
    outputs: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Weights:
    """How one of the values that a field can have is chosen: the one with the highest sum of what speaks for it.

    Of a field with few values (a Literal, an enum, a bool) these are its options; of one of text, the phrases of the
    inputs that are most like its values in the demos, and ``absent``.

    Args:
        model: of the log-probability that the model gives to it.
        near: of what the demos say without the model: by a linear classifier on the points of their inputs (of more
            than 256, by the nearest); for a phrase, by how like those in the demos it is. On a scale of
            log-probabilities.
        lead: nats by which it usually leads whatever the inputs are, by the value's text: taken off. A model's liking
            for one label is a lead (Zhao et al. 2021, https://arxiv.org/abs/2102.09690).
        absent: what a field of text holds where the inputs have nothing for it; None is null.
    """

    model: float = 1.0
    near: float = 0.0
    lead: Mapping[str, float] = field(default_factory=dict[str, float])
    absent: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Params:
    """The learnable part of a program. None (and no demos) means: take it from the next place.

    Args:
        instructions: replaces the contract's docstring.
        demos: worked examples, in the order shown.
        nearest: show only so many of the demos, those nearest to the inputs, the nearest last.
        shown: show only the first so many of the demos; the others have their say by nearness, see ``Weights``.
        model: ref of the model, ``provider/model``.
        temperature, top_p, max_tokens, seed, stop: decoding, see ``Decoding``.
        output_mode: "schema" has the provider enforce the contract's JSON schema, "json" shows the schema
            in the prompt, "text" uses marked fields.
        layout: "plain" has the model go on with a text of fields and values, one a line, outside any conversation;
            with it ``output_mode`` and ``repairs`` mean nothing. Only models that complete text can do it.
        headings: what stands before a field's value in the plain layout, by field name; else its name.
        scored: fields whose value is chosen by the model's log-probabilities instead of being read from what it wrote.
        repairs: how many times a reply that misfits is shown back to the model with its error.
        votes: ask so many times at once, with other seeds, and give the answer that most of them agree with
            (self-consistency: Wang et al. 2022, https://arxiv.org/abs/2203.11171). Written answers only: not with
            ``scored`` or ``layout="plain"``. Without a ``temperature`` they are drawn at 0.7; at 0 most models would
            give the same one each time. 1 is no vote.
        options: what to wish of the layers, such as ``Options(exact=True)``.
        advice: shown after the inputs, so that the stable part of the prompt stays as it is.
        contract: digest of the contract these params were learned for; another one refuses them.
    """

    instructions: str | None = None
    demos: tuple[Demo, ...] = ()
    nearest: int | None = None
    shown: int | None = None
    model: str | None = None
    temperature: float | None = None
    top_p: float | None = None
    max_tokens: int | None = None
    seed: int | None = None
    stop: tuple[str, ...] = ()
    output_mode: OutputMode | None = None
    layout: Layout | None = None
    headings: Mapping[str, str] | None = None
    scored: Mapping[str, Weights] | None = None
    repairs: int | None = None
    votes: int | None = None
    options: Options | None = None
    advice: str | None = None
    contract: str | None = None

    def __post_init__(self) -> None:
        for name, (least, most) in _BOUNDS.items():
            value = getattr(self, name)
            if value is not None and not least <= value <= most:
                raise ValueError(f"{name} = {value} should be from {least} to {most}")

    def over(self, other: Params) -> Params:
        """These params, with what they leave open filled from ``other``."""
        if self == NOTHING:
            return other
        return replace(
            other, **{f.name: value for f in fields(self) if (value := getattr(self, f.name)) not in (None, ())}
        )

    @property
    def pool(self) -> tuple[Demo, ...]:
        """The demos that are shown whatever the inputs are; with ``nearest``, those that are chosen from."""
        return self.demos if self.nearest is not None or self.shown is None else self.demos[: self.shown]

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
