"""The face of a signature: what a class body declares is what the program takes, writes and gives."""

from __future__ import annotations

import asyncio
import copy
import json
import pickle
import time
from dataclasses import dataclass
from datetime import date, datetime
from enum import Enum
from typing import Annotated, Any, Generic, Literal, Optional, TypeVar

import pytest
from pydantic import BaseModel
from typing_extensions import TypedDict

from kaizen import Demo, History, Media, Params, Signature, context, signature
from kaizen.core.errors import Conflict, DefinitionError, InvalidInput, OutputInvalid, Unsupported
from kaizen.core.message import Message
from kaizen.core.params import Weights
from tests.unit.programs import elsewhere
from tests.unit.programs.house import Open

T = TypeVar("T")
U = TypeVar("U")
NAME = __name__


class Level(Enum):
    LOW = "low"
    HIGH = "high"


class Item(BaseModel):
    name: str
    price: float


@dataclass
class Point:
    x: int
    y: int


class Box(TypedDict):
    size: int


class Triage(Signature):
    """Name the team that owns a bank customer's message, and how urgent it is."""

    message: str = context.input("what the customer wrote")
    team: Literal["cards", "transfers", "accounts"] = context.output("the team that owns it")
    urgency: int = context.output("1 can wait .. 5 now", ge=1, le=5)


@signature
class Plain:
    """Say yes or no."""

    question: str = context.input()
    thought: str = context.intermediate("why")
    yes: bool = context.output()


class Everything(Signature):
    """Every type there is."""

    text: str = context.input()
    maybe: Optional[int] = context.input(default=None)  # noqa: UP045 - the older spelling counts too
    level: Level = context.output()
    number: int = context.output()
    share: float = context.output()
    sure: bool = context.output()
    kind: Literal["a", "b"] = context.output()
    note: str | None = context.output()
    words: list[str] = context.output()
    counts: dict[str, int] = context.output()
    when: datetime = context.output()
    item: Item = context.output()
    point: Point = context.output()
    box: Box = context.output()
    items: list[Item] = context.output()


FULL: dict[str, Any] = {
    "level": "high",
    "number": 3,
    "share": 0.5,
    "sure": True,
    "kind": "a",
    "note": None,
    "words": ["x", "y"],
    "counts": {"k": 2},
    "when": "2026-01-02T03:04:05",
    "item": {"name": "n", "price": 1.5},
    "point": {"x": 1, "y": 2},
    "box": {"size": 7},
    "items": [{"name": "m", "price": 2.0}],
}
TYPED: dict[str, Any] = FULL | {
    "level": Level.HIGH,
    "when": datetime(2026, 1, 2, 3, 4, 5),  # noqa: DTZ001 - as written, without a zone
    "item": Item(name="n", price=1.5),
    "point": Point(1, 2),
    "items": [Item(name="m", price=2.0)],
}


def test_every_type_goes_through_compile_render_and_parse() -> None:
    compiled = Everything.compile()
    assert list(compiled.output_schema["properties"]) == list(FULL)
    assert compiled.output_schema["required"] == list(FULL)
    assert compiled.input_schema["required"] == ["text"]
    messages = compiled.render(text="hi")
    assert messages[-1].text.splitlines() == ["text: hi", "maybe: null"]
    for name in FULL:
        assert f"- {name} (" in messages[0].text
    answer = compiled.parse(json.dumps(FULL))
    assert isinstance(answer, Everything)
    assert answer.outputs == TYPED
    for name, value in TYPED.items():
        assert getattr(answer, name) == value
        assert type(getattr(answer, name)) is type(value)


def test_what_is_not_known_before_a_call_is_not_rendered() -> None:
    demos = (Demo({"message": "my card"}, {"team": "cards", "urgency": 2}),)
    for params in (Params(layout="plain"), Params(demos=demos, nearest=1)):
        with pytest.raises(Unsupported, match="not rendered before a call"):
            Triage.using(params).compile().render(message="x")
    weighed = Params(demos=demos, scored={"team": Weights()})
    for params in (weighed, Params(nearest=1)):
        shown = Triage.using(params).compile().render(message="x")
        assert len(shown) == 2 + 2 * len(params.demos)


async def test_every_type_goes_through_a_run_and_its_record(house: Open) -> None:
    here = house([json.dumps(FULL)])
    answer = await Everything(text="x", maybe=4)
    assert answer.outputs == TYPED
    assert answer.maybe == 4
    kept = Everything.spec.load_answer(await here.kept(answer.record.output_digest) or b"", {})
    assert kept == answer


def test_every_type_is_an_input_too() -> None:
    class Inputs(Signature):
        level: Level = context.input()
        when: date = context.input()
        item: Item = context.input()
        point: Point = context.input()
        box: Box = context.input()
        done: bool = context.output()

    messages = Inputs.compile().render(
        level="high", when=date(2026, 1, 2), item={"name": "n", "price": 1}, point=Point(1, 2), box={"size": 1}
    )
    assert messages[-1].text.splitlines() == [
        "level: high",
        "when: 2026-01-02",
        'item: {"name":"n","price":1.0}',
        'point: {"x":1,"y":2}',
        'box: {"size":1}',
    ]


@pytest.mark.parametrize(
    "cls", [Triage, elsewhere.Triage, elsewhere.Decorated, elsewhere.local()], ids=lambda cls: cls.spec.name
)
def test_the_two_forms_and_both_kinds_of_annotation_say_the_same(cls: Any) -> None:
    assert issubclass(cls, Signature)
    assert cls.spec.contract == Triage.spec.contract
    assert cls.spec.doc == Triage.__doc__
    assert cls.spec.name == f"{cls.__module__}.{cls.__qualname__}"
    assert cls.compile().parse('{"team": "cards", "urgency": 2}').outputs == {"team": "cards", "urgency": 2}


def test_programs_of_two_modules_have_two_names() -> None:
    assert Triage.spec.name == f"{NAME}.Triage"
    assert elsewhere.Triage.spec.name == "tests.unit.programs.elsewhere.Triage"


def test_an_intermediate_is_written_before_the_outputs() -> None:
    compiled = Plain.compile()  # type: ignore[attr-defined]
    assert list(compiled.output_schema["properties"]) == ["thought", "yes"]
    assert compiled.parse('{"thought": "hm", "yes": false}').outputs == {"thought": "hm", "yes": False}


class Summary(Signature):
    """Sum it up."""

    text: str = context.input()
    summary: str = context.output()


class Judged(Signature):
    """Judge a text by its summary."""

    text: str = context.input()
    summary: str = context.intermediate(signature=Summary, max_length=20)
    gist: str = context.intermediate(signature=Summary)
    good: bool = context.output()


async def test_an_intermediate_can_be_filled_by_another_program(house: Open) -> None:
    here = house(['{"summary": "short"}', '{"summary": "again"}', '{"good": true}'])
    answer = await Judged(text="long")
    assert answer.outputs == {"summary": "short", "gist": "again", "good": True}
    assert here.model.requests[2].messages[-1].text.splitlines() == ["text: long", "summary: short", "gist: again"]
    assert "summary" not in Judged.compile().output_schema["properties"]
    records = await here.records(kind="program")
    assert {(record.ref, record.step) for record in records} == {
        (Summary.spec.name, "0.0"),
        (Summary.spec.name, "0.1"),
        (Judged.spec.name, "0"),
    }


async def test_what_fills_an_intermediate_has_to_fit_it(house: Open) -> None:
    here = house(['{"summary": "far more than twenty characters"}'])
    with pytest.raises(OutputInvalid, match="does not fit the field 'summary'"):
        await Judged(text="long")
    assert here.calls == 1


def test_a_subclass_inherits_overrides_and_adds() -> None:
    class Wide(Triage):
        urgency: int = context.output("0 .. 9", ge=0, le=9)
        reason: str = context.output()

    class Narrow(Wide):
        """Only cards."""

        team: Literal["cards"] = context.output()

    assert list(Wide.spec.fields) == ["message", "team", "urgency", "reason"]
    assert Wide.spec.doc == Triage.spec.doc
    assert Wide.compile().output_schema["properties"]["urgency"]["maximum"] == 9
    assert Triage.compile().output_schema["properties"]["urgency"]["maximum"] == 5
    assert (Narrow.spec.doc, Narrow.compile().output_schema["properties"]["team"]["const"]) == ("Only cards.", "cards")


def test_the_nearer_base_wins_in_a_diamond() -> None:
    class Left(Triage):
        left: str = context.output()

    class Right(Triage):
        urgency: int = context.output(ge=7)

    class Both(Left, Right):
        pass

    assert list(Both.spec.fields) == ["message", "team", "urgency", "left"]
    assert Both.compile().output_schema["properties"]["urgency"]["minimum"] == 7


def test_a_decorated_class_may_extend_a_signature() -> None:
    @signature
    class Child(Triage):
        reason: str = context.output()

    assert issubclass(Child, Triage)
    assert list(Child.spec.outputs) == ["team", "urgency", "reason"]


class Noted:
    note: str = context.input("a note")
    other = 5


class Silent:
    speed: int


def test_plain_classes_carry_fields_for_several_signatures() -> None:
    class One(Noted, Silent, Signature):
        a: str = context.output()

    class Two(Noted, Triage):
        note: str = context.input("another")

    class Three(Two):
        pass

    assert (list(One.spec.inputs), list(One.spec.outputs)) == (["note"], ["a"])
    assert list(Two.spec.inputs) == ["message", "note"]
    assert Three.spec.fields["note"].description == "another"

    @signature
    class Four(Noted):
        a: str = context.output()

    assert list(Four.spec.inputs) == ["note"]  # type: ignore[attr-defined]


class Extract(Signature, Generic[T]):
    """Extract."""

    text: str = context.input()
    found: T = context.output()
    all: list[T] = context.output()


class Backwards(Generic[T], Signature):
    text: str = context.input()
    found: T = context.output()


@signature
class Decorated(Generic[T]):
    text: str = context.input()
    found: Annotated[T, "kept"] | None = context.output()


class Pair(Signature, Generic[T, U]):
    text: str = context.input()
    first: T = context.output()
    second: U = context.output()


def test_a_generic_signature_is_a_program_for_each_type() -> None:
    made = Extract[Item]
    assert made is Extract[Item]
    assert issubclass(made, Extract)
    assert made.spec.name == f"{NAME}.Extract[Item]"
    text = '{"found": {"name": "n", "price": 1}, "all": [{"name": "m", "price": 2}]}'
    assert made.compile().parse(text).outputs == {"found": Item(name="n", price=1), "all": [Item(name="m", price=2)]}
    assert Backwards[int].compile().parse('{"found": 3}').outputs == {"found": 3}
    assert Decorated[int].compile().parse('{"found": null}').outputs == {"found": None}  # type: ignore[index]


def test_types_that_are_called_alike_are_told_apart() -> None:
    assert Extract[Item] is not Extract[elsewhere.Item]
    assert Extract[Item].spec.contract != Extract[elsewhere.Item].spec.contract
    assert Extract[list[int]] is not Extract[list[str]]
    assert Extract[list[int]].spec.name == f"{NAME}.Extract[list[int]]"


def test_a_generic_signature_is_extended_with_and_without_its_types() -> None:
    class Items(Extract[Item]):
        count: int = context.output()

    class Sub(Extract[U], Generic[U]):
        sure: bool = context.output()

    class Half(Pair[int, U], Generic[U]):
        pass

    assert Items.spec.fields["found"].annotation is Item
    assert list(Items.spec.outputs) == ["found", "all", "count"]
    assert Sub[int].spec.fields["all"].annotation == list[int]
    assert {name: field.annotation for name, field in Half[str].spec.outputs.items()} == {"first": int, "second": str}
    with pytest.raises(TypeError, match="not generic"):
        _ = Triage[int]  # type: ignore[type-var, index]
    with pytest.raises(TypeError):
        _ = Pair[int]  # type: ignore[misc]


def test_annotations_find_names_of_the_function_and_the_class_around_them() -> None:
    class Local(BaseModel):
        x: int

    class Inner(Signature):
        class Own(Enum):
            A = "a"

        q: str = context.input()
        one: Local = context.output()
        two: Own = context.output()

    assert Inner.compile().parse('{"one": {"x": 1}, "two": "a"}').outputs == {"one": Local(x=1), "two": Inner.Own.A}


def test_class_variables_are_no_fields() -> None:
    from typing import ClassVar

    class WithConstant(Triage):
        limit: ClassVar[int] = 5
        _private: int = 3

    assert list(WithConstant.spec.fields) == list(Triage.spec.fields)


@pytest.mark.parametrize("name", ["copy", "json", "schema", "dict", "validate", "model_fields", "ctx", "self", "cls"])
async def test_a_field_may_be_called_as_a_method_of_pydantics(name: str, house: Open) -> None:
    house([f'{{"{name}2": "b"}}'])
    made = signature(f"{name} -> {name}2")
    assert (await made(**{name: "a"})).outputs == {f"{name}2": "b"}


def test_constraints_reach_the_schema_and_the_check() -> None:
    class Held(Signature):
        code: str = context.input("a code", pattern="^[A-Z]+$", max_length=3, examples=["ABC"])
        size: int = context.input(default=3, ge=1, lt=9, multiple_of=3)
        words: list[str] = context.output(min_length=1, max_length=2)
        when: date = context.output(ge=date(2026, 1, 1))
        even: int = context.output(validation=lambda n: n % 2 == 0)

    compiled = Held.compile()
    code = compiled.input_schema["properties"]["code"]
    assert (code["pattern"], code["maxLength"], code["examples"], code["description"]) == (
        "^[A-Z]+$",
        3,
        ["ABC"],
        "a code",
    )
    for inputs, said in (
        ({"code": "abc"}, "code"),
        ({"code": "ABCD"}, "code"),
        ({"code": "A", "size": 9}, "size"),
        ({"code": "A", "size": 4}, "size"),
    ):
        with pytest.raises(InvalidInput, match=f"input '{said}' = "):
            compiled.render(**inputs)
    good = '{"words": ["a"], "when": "2026-02-01", "even": 2}'
    assert compiled.parse(good).outputs["even"] == 2
    for bad in (good.replace('["a"]', "[]"), good.replace("2026", "2025"), good.replace("2}", "3}")):
        with pytest.raises(OutputInvalid):
            compiled.parse(bad)


def test_a_check_of_the_authors_refuses_by_false_or_by_raising() -> None:
    def known(value: str) -> None:
        if value != "ok":
            raise ValueError("unknown to us")

    class Checked(Signature):
        a: str = context.input(validation=known)
        b: str = context.input(default="x", validation=str.islower)
        c: str = context.output()

    Checked.compile().render(a="ok")
    with pytest.raises(InvalidInput, match="unknown to us"):
        Checked.compile().render(a="no")
    with pytest.raises(InvalidInput, match="refused by islower"):
        Checked.compile().render(a="ok", b="X")


def test_a_conversation_stands_before_the_input() -> None:
    class Chat(Signature):
        history: History = context.input(min_length=1)
        older: History | None = context.input(default=None)
        question: str = context.input()
        answer: str = context.output()

    turns = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}]
    messages = Chat.compile().render(history=turns, question="how?")
    assert messages[1:] == (
        Message.of("user", "hi"),
        Message.of("assistant", "hello"),
        Message.of("user", "question: how?"),
    )
    with pytest.raises(InvalidInput, match=r"history\.0\.role"):
        Chat.compile().render(history=[{"role": "judge", "content": "x"}], question="how?")


def test_media_are_parts_of_the_input() -> None:
    class Look(Signature):
        image: Media = context.input()
        more: list[Media] = context.input(default=[])
        seen: str = context.output()

    one = Media("image", "image/png", data="AAAA")
    last = Look.compile().render(image=one, more=[one, one])[-1]
    assert last.text.splitlines() == ["image: (1 attached)", "more: (2 attached)"]
    assert last.parts[1:] == (one, one, one)
    assert Look.compile().render(image={"kind": "image", "media_type": "image/png", "data": "AAAA"})[-1].parts[1] == one


# -- inputs -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("inputs", "said"),
    [
        ({}, "input 'message' is missing"),
        ({"message": "x", "mesage": "y"}, "'mesage' is no input; the inputs are message"),
        ({"message": 5}, "input 'message' = 5: Input should be a valid string"),
        ({"message": None}, "input 'message' = None: Input should be a valid string"),
    ],
)
async def test_inputs_that_do_not_fit_are_named_before_any_call(house: Open, inputs: Any, said: str) -> None:
    here = house()
    with pytest.raises(InvalidInput) as caught:
        await Triage(**inputs)
    assert said in str(caught.value)
    assert caught.value.detail["program"] == Triage.spec.name
    assert here.calls == 0
    (record,) = await here.records()
    assert (record.status, record.error_code, record.model_calls) == ("error", "invalid_input", 0)


async def test_all_inputs_that_do_not_fit_are_named_at_once(house: Open) -> None:
    house()
    with pytest.raises(InvalidInput) as caught:
        await Everything(maybe="x", other=1)  # type: ignore[arg-type, call-arg]
    problems = caught.value.detail["problems"]
    assert isinstance(problems, list)
    assert len(problems) == 3


async def test_a_huge_value_is_never_shown_whole_nor_kept(house: Open) -> None:
    here = house()
    secret = "s3cret" * 100_000
    for value in ({"a": [secret] * 10}, [secret] * 10, 10**400):
        with pytest.raises(InvalidInput) as caught:
            await Triage(message=value)
        assert len(str(caught.value)) < 300
    for record in await here.records():
        assert "s3cret" not in repr(record)
        assert record.error == "'message': Input should be a valid string"


async def test_what_an_authors_check_says_is_not_kept(house: Open) -> None:
    def never(value: str) -> None:
        raise ValueError(f"{value} is bad")

    class Checked(Signature):
        a: str = context.input(validation=never)
        c: str = context.output()

    here = house()
    with pytest.raises(InvalidInput, match="s3cret is bad"):
        await Checked(a="s3cret")
    (record,) = await here.records()
    assert record.error == "'a': refused by its check"


async def test_blank_is_not_missing(house: Open) -> None:
    here = house(['{"team": "cards", "urgency": 1}'])
    assert (await Triage(message="")).team == "cards"
    assert here.model.requests[0].messages[-1].text == "message: "


def test_inputs_go_by_name() -> None:
    with pytest.raises(TypeError, match="by name: message"):
        Triage("my card")  # type: ignore[arg-type, misc]


# -- the call ---------------------------------------------------------------------------------------


def test_execute_gives_the_typed_answer_and_its_record(house: Open) -> None:
    here = house(['{"team": "cards", "urgency": 5}'])
    answer = Triage.execute(message="Someone stole my card")
    assert isinstance(answer, Triage)
    assert (answer.team, answer.urgency, answer.message) == ("cards", 5, "Someone stole my card")
    assert answer.record.ref == Triage.spec.name
    assert answer.record.model_calls == here.calls == 1
    assert answer.record.params is not None
    assert repr(answer) == "Triage(team='cards', urgency=5)"


async def test_a_call_is_awaited_once(house: Open) -> None:
    house(['{"team": "cards", "urgency": 5}'])
    call = Triage(message="x")
    with pytest.raises(AttributeError, match="has not run yet"):
        _ = call.team
    with pytest.raises(AttributeError, match="has not run yet"):
        _ = call.record
    with pytest.raises(AttributeError, match="has not run yet"):
        _ = call.outputs
    assert repr(call) == "Triage()"
    answer = await call
    with pytest.raises(RuntimeError, match="awaited already"):
        await call
    with pytest.raises(AttributeError, match="no field 'teem'"):
        _ = answer.teem  # type: ignore[attr-defined]
    with pytest.raises(AttributeError, match="no field '_x'"):
        _ = answer._x  # type: ignore[attr-defined]


async def test_answers_can_be_copied_and_pickled(house: Open) -> None:
    house(['{"team": "cards", "urgency": 5}'])
    answer = await Triage(message="x")
    for twin in (copy.copy(answer), copy.deepcopy(answer), pickle.loads(pickle.dumps(answer))):  # noqa: S301
        assert twin == answer
        assert twin.record == answer.record


async def test_using_is_the_same_program_with_other_params(house: Open) -> None:
    here = house(['{"team": "cards", "urgency": 5}'] * 3)
    warm = Triage.using(model="test/other", temperature=0.7)
    hot = warm.using(Params(temperature=1.0), seed=4)
    assert warm.spec is Triage.spec
    assert (warm.__name__, warm.__qualname__, warm.__doc__) == ("Triage", "Triage", Triage.__doc__)
    for program in (Triage, warm, hot):
        assert isinstance(await program(message="x"), Triage)
    asked = [(request.model, request.decoding.temperature, request.decoding.seed) for request in here.model.requests]
    assert asked == [("test/model", None, None), ("test/other", 0.7, None), ("test/model", 1.0, 4)]
    versions = [record.params for record in await here.records(kind="program")]
    assert len(set(versions)) == 3


def test_using_refuses_what_is_no_param() -> None:
    with pytest.raises(DefinitionError, match="'temprature' is no param; the params are advice, demos"):
        Triage.using(temprature=1)
    with pytest.raises(DefinitionError) as caught:
        Triage.using(temperature="hot", output_mode="xml")
    assert [mistake.split(" = ")[0] for mistake in caught.value.mistakes] == ["temperature", "output_mode"]


async def test_params_of_another_contract_are_refused(house: Open) -> None:
    here = house(['{"team": "cards", "urgency": 5}'])
    params = Params(instructions="learned", contract=Triage.spec.contract)
    await Triage.using(params)(message="x")
    with pytest.raises(Conflict, match="another contract"):
        await Summary.using(params)(text="x")
    assert here.calls == 1


async def test_the_example_of_the_docs_works(house: Open) -> None:
    here = house(['{"team": "cards", "urgency": 5}'] * 2)
    answer = await Triage(message="Someone stole my card")
    assert (answer.team, answer.urgency) == ("cards", 5)
    record = answer.record
    shown = (record.id, record.model, record.tokens_in, record.tokens_out, record.cost_usd, record.latency_ms)
    assert all(value is not None for value in shown[:4])
    assert (record.cost_usd, record.cache_tier) == (None, "model")
    assert record.params == (await here.records(kind="program"))[0].params
    async for partial in Triage.stream(message="..."):
        assert partial.team in ("cards", None)


async def test_a_program_works_in_any_number_of_loops(house: Open) -> None:
    here = house(lambda request: '{"team": "cards", "urgency": 5}')

    def in_a_loop_of_its_own(number: int) -> str:
        async def several() -> list[Triage]:
            return await asyncio.gather(*(Triage(message=str(number)) for _ in range(5)))

        return "".join(answer.message for answer in asyncio.run(several()))

    found = await asyncio.gather(*(asyncio.to_thread(in_a_loop_of_its_own, number) for number in range(6)))
    assert found == [str(number) * 5 for number in range(6)]
    assert len(await here.records(kind="program")) == 30


# -- compile ----------------------------------------------------------------------------------------


def test_compile_is_made_once_a_class() -> None:
    assert Triage.compile() is Triage.compile()
    other = Triage.using(instructions="Else.")
    assert other.compile() is not Triage.compile()
    assert other.compile().render(message="x")[0].text.startswith("Else.")

    class Child(Triage):
        """Child."""

    assert Child.compile() is not Triage.compile()


@pytest.mark.alone
def test_compile_takes_little_time() -> None:
    firsts: list[float] = []
    for number in range(5):
        before = time.process_time()  # with the definition, which does most of the work
        made = type(
            f"Fresh{number}",
            (Signature,),
            {
                "__module__": NAME,
                "__annotations__": {"a": str, "b": int, "c": list[Item]},
                "a": context.input(),
                "b": context.output(ge=number),
                "c": context.output(),
            },
        )
        made.compile()
        firsts.append(time.process_time() - before)
    before = time.process_time()
    for _ in range(10_000):
        Triage.compile()
    cached = (time.process_time() - before) / 10_000
    assert min(firsts) < 0.010
    assert cached < 20e-6


def test_parse_raises_with_the_text_and_the_problem() -> None:
    with pytest.raises(OutputInvalid) as caught:
        Triage.compile().parse('{"team": "loans", "urgency": 9}')
    assert caught.value.reply == '{"team": "loans", "urgency": 9}'
    assert "'team'" in caught.value.problem
    assert "'urgency'" in caught.value.problem


def test_contracts_differ_by_types_and_not_by_words() -> None:
    def made(doc: str, desc: str, **rule: Any) -> str:
        body = {
            "__module__": NAME,
            "__doc__": doc,
            "__annotations__": {"a": str, "b": int},
            "a": context.input(desc),
            "b": context.output(**rule),
        }
        return type("Made", (Signature,), body).spec.contract

    assert made("x", "y") == made("other", "words")
    assert made("x", "y") != made("x", "y", ge=1)
