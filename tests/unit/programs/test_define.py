"""A wrong declaration says everything that is wrong with it at once, and what to write instead."""

from __future__ import annotations

import sys
from collections.abc import Callable
from datetime import date
from typing import Any

import pytest
from pydantic import BaseModel

from kaizen import Context, SecurityConstraint, Signature, context, program, signature, tool
from kaizen.core.errors import DefinitionError
from kaizen.programs.define import RESERVED, caller_module
from tests.unit.programs.test_signature import NAME as OTHER
from tests.unit.programs.test_signature import Judged, Triage

NAME = __name__


def made(fields: dict[str, Any], values: dict[str, Any] | None = None, bases: tuple[type, ...] = (Signature,)) -> Any:
    """A class with these annotated fields and plain values."""
    annotations = {name: annotation for name, (annotation, _) in fields.items()}
    body = {name: declared for name, (_, declared) in fields.items() if declared is not None}
    return type("Made", bases, {"__module__": NAME, "__annotations__": annotations, **body, **(values or {})})


def mistakes(*args: Any, **kwargs: Any) -> tuple[str, ...]:
    with pytest.raises(DefinitionError) as caught:
        made(*args, **kwargs)
    assert caught.value.where == f"{NAME}.Made"
    return caught.value.mistakes


OUT = {"done": (bool, context.output())}


class Opaque:
    pass


@pytest.mark.parametrize(
    ("field", "said"),
    [
        ((str, None), "'x' has no role: write `x: str = context.input(...)`, `context.output(...)` or"),
        ((str, 5), "'x' has no role"),
        (("str", None), "'x' has no role: write `x: str ="),
        (("Later", context.input()), "'x' refers to 'Later', which is not defined yet: define it above this class"),
        (("list[Later]", context.input()), "'x' refers to 'Later'"),
        ((list["Later"], context.input()), "'x' refers to 'Later'"),  # type: ignore[name-defined]  # noqa: F821
        (("list[", context.input()), "'x' has no usable type"),
        (("int.no", context.input()), "'x' has no usable type"),
        ((Opaque, context.input()), "'x' has the type Opaque, which has no JSON form: make it a dataclass"),
        ((list[Opaque], context.output()), "has no JSON form"),
        ((Callable[[], int], context.output()), "'x'"),
        ((str, context.input(ge=1)), "'x'"),
        ((bool, context.output(pattern="a")), "'x'"),
        ((str, context.output(pattern="(")), "'x' has a type or constraint that can't be used"),
        ((int, context.output(max_length=3)), "'x'"),
        ((int, context.input(default="no")), "'x' has a default that breaks its own rule"),
        ((int, context.input(default=5, le=3)), "'x' has a default that breaks its own rule"),
        ((str, context.input(source="mail")), "`source=`: no room reads from sources yet; pass the value as an input"),
        ((str, context.input(channel="web")), "`channel=`: no room serves channels yet; leave it out"),
        ((str, context.output(channel="web")), "`channel=`"),
        ((str, context.input(security=SecurityConstraint("secret"))), "`security=`: no room enforces"),
        ((str, context.output(security=SecurityConstraint())), "`security=`"),
        ((str, context.input(max_lenght=3)), "`max_lenght=`: it is no constraint; there are allow_inf_nan"),
        ((str, context.output(alias="y")), "`alias=`"),
        ((str, context.output(default="x")), "`default=`: an output has no default"),
        ((str, context.intermediate(default="x")), "`default=`: an intermediate has no default"),
        ((str, context.intermediate(signature=5)), "`signature=` takes a signature or another program, not 5"),
        (
            (str, context.intermediate(signature=Judged)),
            f"{OTHER}.Judged needs text, which is no input or earlier intermediate",
        ),
        ((str | int, context.output(max_length=3)), "`max_length` says nothing about its type"),
        ((list[int], context.output(ge=3)), "`ge` says nothing about its type"),
        ((context.input(), context.input()), "'x' hides the type of the same name: rename the field"),
    ],
)
def test_a_mistake_names_field_and_remedy(field: Any, said: str) -> None:
    (mistake,) = mistakes({"x": field} | OUT)
    assert mistake.startswith("field 'x'")
    assert said in mistake


@pytest.mark.parametrize("name", sorted(RESERVED))
def test_names_of_the_face_are_taken(name: str) -> None:
    (mistake,) = mistakes({name: (str, context.input())} | OUT)
    assert mistake == f"field '{name}': this name is taken by the face of a signature; choose another"


def test_the_face_is_reserved_whole() -> None:
    face = {name for name in dir(Signature) if not name.startswith("_")}
    assert face <= RESERVED


def test_all_mistakes_come_at_once() -> None:
    found = mistakes(
        {
            "a": ("Later", context.input()),
            "b": (Opaque, context.input()),
            "record": (str, context.input()),
            "c": (int, None),
            "d": (int, context.input(default="x")),
            "_e": (str, context.input()),
        },
        {"f": context.input()},
    )
    named = [mistake.split("'")[1] for mistake in found if mistake.startswith("field")]
    assert sorted(named) == ["_e", "a", "b", "c", "d", "f", "record"]
    assert "there is no output: write `answer: str = context.output(...)`" in found
    assert len(found) == 8


def test_an_output_with_a_mistake_is_an_output() -> None:
    (mistake,) = mistakes({"answer": ("Later", context.output())})
    assert mistake.startswith("field 'answer' refers to 'Later'")


def test_a_field_without_type_is_told_how_to_write_it() -> None:
    assert mistakes(OUT, {"x": context.input()}) == ("field 'x' has no type: write `x: str = context.input(...)`",)


def test_which_output_fills_an_intermediate_has_to_be_clear() -> None:
    fields = {"message": (str, context.input()), "mind": (str, context.intermediate(signature=Triage))} | OUT
    (mistake,) = mistakes(fields)
    assert mistake == (f"field 'mind': {OTHER}.Triage has no output of that name, and several others to choose from")
    del fields["mind"]
    made({"message": fields["message"], "team": (str, context.intermediate(signature=Triage))} | OUT)


def test_an_intermediate_may_read_an_earlier_one() -> None:
    made(
        {
            "message": (str, context.input()),
            "team": (str, context.intermediate(signature=Triage)),
            "good": (bool, context.intermediate(signature=signature("team -> good: bool"))),
        }
        | OUT
    )
    fields = {"text": (str, context.input()), "summary": (str, context.intermediate(signature=Judged))} | OUT
    made({"text": fields["text"], "good": (bool, context.intermediate(signature=Judged))} | OUT)


def test_mistakes_of_a_mixin_are_those_of_the_class() -> None:
    class Noted:
        note: Later = context.input()  # type: ignore[name-defined]  # noqa: F821

    (mistake,) = mistakes(OUT, bases=(Noted, Signature))
    assert "'note' refers to 'Later'" in mistake


def test_a_forward_reference_inside_a_model_is_a_mistake_too() -> None:
    class Tree(BaseModel):
        child: Unknown  # type: ignore[name-defined]  # noqa: F821

    (mistake,) = mistakes({"x": (Tree, context.input())} | OUT)
    assert mistake.startswith("field 'x'")


def test_bounds_of_dates_are_kept_though_no_schema_shows_them() -> None:
    made({"x": (date, context.output(ge=date(2026, 1, 1)))})


def test_a_module_that_is_gone_leaves_the_local_names() -> None:
    body = {"__module__": "gone", "__annotations__": {"x": "int"}, "x": context.output()}
    assert "gone" not in sys.modules
    assert type("Made", (Signature,), body).spec.outputs["x"].annotation is int


def test_a_definition_outside_any_function_belongs_to_its_module() -> None:
    assert caller_module() == NAME
    scope: dict[str, Any] = {"__name__": "made.up"}
    exec("from kaizen import signature\nshort = signature('q -> a')", scope)  # noqa: S102
    assert scope["short"].spec.name == "made.up.QToA"


# -- the short form ---------------------------------------------------------------------------------


def test_the_short_form_names_inputs_and_outputs() -> None:
    short = signature("question, passages: list[str] -> answer: str, sure: float", doc="Answer it.")
    assert (list(short.spec.inputs), list(short.spec.outputs)) == (["question", "passages"], ["answer", "sure"])
    assert (short.spec.doc, short.spec.name) == ("Answer it.", f"{NAME}.QuestionPassagesToAnswerSure")
    assert short.spec.fields["passages"].annotation == list[str]
    assert signature("q -> a", name="Asked").spec.name == f"{NAME}.Asked"


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("Literal['a, b', 'c']", "Literal['a, b', 'c']"),
        ("Literal[1]", "Literal[1]"),
        ("dict[str, list[int]]", "dict[str, list[int]]"),
        ("str | None", "str | None"),
        ("Optional[int]", "Optional[int]"),
        ("Union[int, None]", "Optional[int]"),
        ("tuple[int, str]", "tuple[int, str]"),
        ("date", "datetime.date"),
        ("Any", "Any"),
    ],
)
def test_the_short_form_reads_types(written: str, meant: str) -> None:
    import datetime
    import typing

    names = vars(typing) | {"datetime": datetime}
    assert signature(f"q -> a: {written}").spec.fields["a"].annotation == eval(meant, names)  # noqa: S307 - our own words


@pytest.mark.parametrize(
    ("short", "said"),
    [
        ("question", "has no '->': write \"question -> answer: str\""),
        ("a b -> c", "'a b' is no name for a field"),
        ("a -> a", "field 'a' stands twice"),
        ("a -> b: Foo", "'Foo' is not among str, int"),
        ("a -> b:", "field 'b' has a type that can't be read"),
        ("a -> b: list[", "field 'b' has a type that can't be read"),
        ("a -> b: __import__('os')", "is not a type"),
        ("a -> b: Literal[1.5]", "a Literal holds text, whole numbers and booleans"),
        ("a -> b: Literal[x]", "field 'b' has a type that can't be read"),
        ("a -> b: int[str]", "field 'b' has a type that can't be read"),
        ("a ->", "there is no output"),
    ],
)
def test_the_short_form_says_what_it_cannot_read(short: str, said: str) -> None:
    with pytest.raises(DefinitionError) as caught:
        signature(short)
    assert said in str(caught.value)


# -- functions --------------------------------------------------------------------------------------


def wrong(make: Any, function: Any) -> tuple[str, ...]:
    with pytest.raises(DefinitionError) as caught:
        make(function)
    assert caught.value.where.startswith(NAME)
    return caught.value.mistakes


def test_functions_that_are_no_programs_say_why() -> None:
    def plain(x: int) -> int:
        return x

    async def bare(x, *args: int, **kw: int) -> int: ...  # type: ignore[no-untyped-def]

    async def positional(x: int, /) -> int: ...

    async def later(x: Later) -> int: ...  # type: ignore[name-defined]  # noqa: F821

    async def opaque(x: Opaque) -> Opaque: ...

    async def declared(
        a: int = context.input(source="mail"), b: int = context.output(), c: int = context.input(default="x")
    ) -> int: ...

    assert wrong(program, plain) == ("@program takes an `async def`; a plain function becomes a @tool",)
    assert wrong(tool, plain) == ("a tool needs a docstring: it tells the model what the tool does",)
    assert [said.split("'")[1] for said in wrong(program, bare)] == ["x", "*args: ", "**kw: "]
    assert "inputs are passed by name" in wrong(program, positional)[0]
    assert "'Later' is not defined" in wrong(program, later)[0]
    assert [said.split("'")[1] for said in wrong(program, opaque)] == ["x", "result"]
    assert [said.split("'")[1] for said in wrong(program, declared)] == ["a", "b"]


async def test_a_parameter_takes_constraints_checks_and_defaults() -> None:
    @program
    async def held(
        ctx: Context,
        a: int = context.input("how many", ge=1, validation=lambda n: n != 7),
        b: list[str] = context.input(default=["x"]),  # noqa: B008 - how a parameter is declared
        c: str = "y",
    ) -> int:
        return 0

    assert list(held.spec.inputs) == ["a", "b", "c"]
    assert held.spec.inputs["a"].description == "how many"
    assert held.spec.validate_inputs({"a": 3}) == {"a": 3, "b": ["x"], "c": "y"}
    for bad in (0, 7):
        with pytest.raises(Exception, match="input 'a'"):
            held.spec.validate_inputs({"a": bad})
