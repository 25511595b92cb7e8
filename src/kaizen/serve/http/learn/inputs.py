"""What comes with a request: names, reasons, and rows."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial
from typing import Annotated, Any, Final, Self, TypeAlias

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from kaizen.core.context import Program
from kaizen.core.scope import Scope
from kaizen.learn.data.dataset import KIND, Dataset
from kaizen.learn.data.rows import Row, line_of, rows_of
from kaizen.learn.metrics.metric import metric
from kaizen.registry.registry import LATEST, Registry
from kaizen.serve.http.learn.seams import asked

MOST_ROWS: Final = 50_000


def _clean(text: str) -> str:
    """PostgreSQL keeps no text with a zero in it, and nobody means one."""
    if "\0" in text:
        raise ValueError("should have no zero characters")
    return text


Name: TypeAlias = Annotated[str, Field(min_length=1, max_length=256), AfterValidator(_clean)]
Reason: TypeAlias = Annotated[str, Field(max_length=2000), AfterValidator(_clean)]
Which: TypeAlias = Annotated[
    str, Field(max_length=64, description="base, latest, a label, a number or a content address")
]
Metric: TypeAlias = Annotated[str, Field(min_length=1, max_length=500)]
Ref: TypeAlias = Annotated[str, Field(pattern=r"^[^/\s]{1,100}/[^\s]{1,200}$")]
Seed: TypeAlias = Annotated[int, Field(ge=0, le=2**31 - 1)]
Calls: TypeAlias = Annotated[int, Field(ge=1, le=1_000_000)]
JobId: TypeAlias = Annotated[str, Field(min_length=36, max_length=36)]


class Body(BaseModel):
    """What a request says: nothing but what is known."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class Rows(Body):
    """Labelled rows: of a dataset in the registry, or as they are."""

    dataset: Name | None = Field(None, description="NAME or NAME@VERSION")
    rows: Annotated[list[dict[str, Any]], Field(min_length=1, max_length=MOST_ROWS)] | None = Field(
        None, description="objects with the program's fields as keys"
    )

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.dataset is None) == (self.rows is None):
            raise ValueError("give either a dataset or rows")
        return self

    @property
    def source(self) -> str:
        """Where they come from, for the reports."""
        return self.dataset or "rows of a request"


async def rows_in(registry: Registry, scope: Scope, program: Program, given: Rows) -> tuple[Row, ...]:
    """The rows that a request names or holds, checked against the program's contract.

    Raises:
        NotFound: there is no such dataset.
        InvalidInput: a row does not fit.
    """
    values: Sequence[dict[str, Any]] = given.rows or ()
    if given.dataset is not None:
        name, _, which = given.dataset.partition("@")
        version = await registry.version(scope, KIND, name, which or LATEST)
        values = [line_of(row) for row in Dataset.load(version.artifact).rows]
    # in a thread: thousands of rows take a while, and other callers wait for the loop
    return await asyncio.to_thread(partial(rows_of, values, program.spec))


def metric_of(text: str, program: Program) -> Program:
    """A metric by its name; a file of the server's is none.

    Raises:
        InvalidInput: there is none of that name, or it can't judge such answers.
    """
    with asked():
        return metric(text, program.spec)
