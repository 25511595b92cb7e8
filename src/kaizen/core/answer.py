"""What a program gives: its outputs as attributes, and the record of how they came about."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

from kaizen.core.record import Record


class Answer:
    """Outputs by name, as attributes and as ``outputs``; ``record`` once the runner has kept it."""

    _outputs: Mapping[str, Any]
    _record: Record | None

    @classmethod
    def of(
        cls,
        outputs: Mapping[str, Any],
        *,
        inputs: Mapping[str, Any] | None = None,
        record: Record | None = None,
    ) -> Self:
        """An answer with these outputs, and the inputs they are for. All must be valid already."""
        self = cls.__new__(cls)
        state = self.__dict__
        if inputs:
            state.update(inputs)
        state.update(outputs)
        state["_outputs"] = outputs
        state["_record"] = record
        return self

    @property
    def outputs(self) -> Mapping[str, Any]:
        """Output and intermediate values by field name."""
        outputs = self.__dict__.get("_outputs")
        if outputs is None:
            raise AttributeError(f"{type(self).__name__} has no outputs yet: it was not returned by a run")
        return outputs

    @property
    def record(self) -> Record:
        """The program call's record; its tokens and cost are summed over its model calls."""
        record = self.__dict__.get("_record")
        if record is None:
            raise AttributeError(f"{type(self).__name__} has no record yet: it was not returned by a run")
        return record

    def stamped(self, record: Record) -> Self:
        """The same answer under another record."""
        copy = self.__class__.__new__(self.__class__)
        copy.__dict__.update(self.__dict__)
        copy.__dict__["_record"] = record
        return copy

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and self.__dict__.get("_outputs") == other.__dict__.get("_outputs")

    __hash__ = None  # pyright: ignore[reportAssignmentType] - outputs are mutable values

    def __repr__(self) -> str:
        shown = ", ".join(f"{name}={value!r}" for name, value in self.__dict__.get("_outputs", {}).items())
        return f"{type(self).__name__}({shown})"
