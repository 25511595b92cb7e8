"""The document's words on programs: schemas by reference, intermediates left out."""

from __future__ import annotations

import pytest
from pydantic import BaseModel

from kaizen import Signature, context
from kaizen.core.errors import Conflict, InvalidInput, NotFound
from kaizen.core.scope import Scope
from kaizen.ledger.ledger import Ledger
from kaizen.registry.registry import Registry
from kaizen.registry.releases import Releases
from kaizen.serve.http.learn.described import described
from kaizen.serve.http.learn.inputs import metric_of
from kaizen.serve.http.learn.seams import Learning, Served
from kaizen.serve.http.learn.work import Jobs
from kaizen.stores.memory import MemoryStore
from kaizen.stores.registry.memory import MemoryArchive

ACME = Scope("acme", "prod")


class Line(BaseModel):
    """One line of an invoice."""

    text: str
    amount: float


class Invoice(Signature):
    """Read an invoice.

    The second paragraph is for the model.
    """

    lines: list[Line] = context.input("as it was scanned")
    thoughts: str = context.intermediate("what strikes one")
    total: float = context.output("the sum")
    first: Line = context.output("the first of them")


def learning(**programs: str) -> Learning:
    registry = Registry(MemoryArchive())

    def none(*_: object, **__: object) -> None:
        raise AssertionError("not called here")

    served = {name: Served(Invoice, target) for name, target in programs.items()}
    return Learning(
        programs=served,
        ledger=Ledger(MemoryStore(), bytes(32)),
        registry=registry,
        releases=Releases(registry),
        within=none,  # type: ignore[arg-type]  # not called
        start=none,  # type: ignore[arg-type]  # not called
        evaluate=none,  # type: ignore[arg-type]  # not called
        optimize=none,  # type: ignore[arg-type]  # not called
        loops=none,  # type: ignore[arg-type]  # not called
        jobs=Jobs(None),  # type: ignore[arg-type]  # none is begun
    )


def test_a_program_is_a_path_with_typed_schemas() -> None:
    name = Invoice.spec.name
    made = described({name: Served(Invoice, "invoice.py:Invoice")})
    assert set(made.schemas) == {f"{name}.Inputs", f"{name}.Outputs", f"{name}.Inputs.Line", f"{name}.Outputs.Line"}
    inputs, outputs = made.schemas[f"{name}.Inputs"], made.schemas[f"{name}.Outputs"]
    assert inputs["properties"]["lines"]["items"] == {"$ref": f"#/components/schemas/{name}.Inputs.Line"}
    assert list(outputs["properties"]) == outputs["required"] == ["total", "first"]
    assert "$defs" not in str(made.schemas)
    post = made.paths({"404": {}})[f"/api/v1/programs/{name}"]["post"]
    assert post["summary"] == "Read an invoice."
    assert set(post["responses"]) == {"200", "404"}


def test_a_served_program_is_found_by_the_last_part_of_its_name() -> None:
    here = learning(**{"a.Invoice": "a.py:Invoice", "b.Invoice": "b.py:Invoice", "a.Other": "a.py:Other"})
    assert here.served("a.Invoice").target == "a.py:Invoice"
    assert here.served("Other").target == "a.py:Other"
    with pytest.raises(Conflict, match=r"a\.Invoice, b\.Invoice"):
        here.served("Invoice")
    with pytest.raises(NotFound, match=r"did you mean a\.Invoice"):
        here.served("a.Invoic")
    with pytest.raises(NotFound, match="there is a"):
        here.served("zzz")


async def test_what_is_not_served_is_looked_for_in_the_registry() -> None:
    here = learning()
    with pytest.raises(NotFound, match="the registry has no params/zzz"):
        await here.subject(ACME, "params", "zzz")
    with pytest.raises(NotFound):
        await here.subject(ACME, "dataset", "zzz")


def test_a_metric_that_is_none_is_the_callers_mistake() -> None:
    assert metric_of("accuracy", Invoice).spec.name
    for text in ("truth", "accuracy:colour", "x.py:Mine", "0.5*accuracy, ,"):
        with pytest.raises(InvalidInput):
            metric_of(text, Invoice)
