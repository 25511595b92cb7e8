"""The ways of answering that params ask for change what the model is asked and what is taken from its reply."""

from __future__ import annotations

import asyncio
import json
import math
import threading
from array import array
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Literal

import pytest
from pydantic import BeforeValidator

from kaizen import Demo, Params, Signature, context
from kaizen.core.answer import Answer
from kaizen.core.context import Context
from kaizen.core.errors import ConfigError, ContentFiltered, OutputInvalid, Unsupported
from kaizen.core.params import Weights
from kaizen.core.request import Embeddings, Reply, Request, TokenLogprob
from kaizen.core.scope import Scope
from kaizen.programs import weigh
from kaizen.programs.function import program
from kaizen.programs.prompt.spans import SpanFinder
from kaizen.programs.weigh import Reading, weighs
from tests.unit.programs.house import Open


class Mood(Signature):
    """Say how a text sounds."""

    text: str = context.input("what was written")
    label: Literal["good", "bad"] = context.output("how it sounds")


class Booking(Signature):
    """Read a booking."""

    text: str = context.input("what was written")
    day: str | None = context.output("the day")
    guest: str = context.output("the guest")


class Rated(Signature):
    """Rate a text."""

    text: str = context.input("what was written")
    label: Literal["good", "bad"] = context.output("how it sounds")
    rate: Annotated[float, BeforeValidator(lambda percent: percent / 100)] = context.output("percent")


DEMOS = (
    Demo({"text": "the soup was lovely"}, {"label": "good"}),
    Demo({"text": "the waiter shouted"}, {"label": "bad"}),
    Demo({"text": "my phone does not charge"}, {"label": "bad"}),
)
BOOKINGS = (
    Demo({"text": "see you on Monday, Ann"}, {"day": "Monday", "guest": "Ann"}),
    Demo({"text": "hello there"}, {"day": None, "guest": ""}),
    Demo({"text": "thank you"}, {"day": None, "guest": ""}),
)


def told(text: str, *places: Mapping[str, float]) -> Callable[[Request], Reply]:
    """A reply whose tokens are the first of each place; the rest of the text is one more token."""
    logprobs: list[TokenLogprob] = []
    rest = text
    for place in places:
        token = next(iter(place))
        assert rest.startswith(token)
        rest = rest[len(token) :]
        top = tuple((other, math.log(chance)) for other, chance in place.items())
        logprobs.append(TokenLogprob(token, math.log(place[token]), top))
    if rest:
        logprobs.append(TokenLogprob(rest, 0.0, ((rest, 0.0),)))
    return lambda request: Reply(model=request.model, text=text, logprobs=tuple(logprobs))


GOOD = told(" good\n", {" good": 0.7, " bad": 0.3})


class Letters:
    """An embedder: texts with the same letters lie near."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    async def embed(self, _: Scope, texts: Sequence[str], /) -> Embeddings:
        self.texts += texts
        points = [[text.count(chr(at)) for at in range(97, 123)] for text in texts]
        lengths = [math.sqrt(sum(one * one for one in point)) or 1.0 for point in points]
        numbers = [one / length for point, length in zip(points, lengths, strict=True) for one in point]
        return Embeddings("test/letters", 26, array("f", numbers).tobytes())


@pytest.fixture
def letters(house: Open, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    def opened(*args: Any, **options: Any) -> Any:
        here = house(*args, **options)
        monkeypatch.setattr(here.app._runner, "_embedder", Letters())
        return here

    return opened


async def outputs(program: Any, params: Params, **inputs: Any) -> dict[str, Any]:
    return dict((await program.using(params)(**inputs)).outputs)


def test_only_these_fields_ask_for_it() -> None:
    assert not weighs(Params(demos=DEMOS, nearest=2, layout="chat"))
    assert all(map(weighs, (Params(layout="plain"), Params(scored={"label": Weights()}))))


@pytest.mark.parametrize("layout", ["plain", "chat"])
async def test_a_model_whose_weight_is_nothing_is_not_asked(letters: Open, layout: Any) -> None:
    here = letters([" good\n"])
    params = Params(layout=layout, demos=DEMOS[:2], shown=1, scored={"label": Weights(model=0.0, near=9.0)})
    for demo in DEMOS[:2]:
        assert await outputs(Mood, params, text=demo.inputs["text"]) == dict(demo.outputs)
    found = {"day": Weights(model=0.0, near=1.0), "guest": Weights(model=0.0, near=1.0)}
    booked = Params(layout="plain", demos=BOOKINGS, scored=found)
    assert set(await outputs(Booking, booked, text="on Friday")) == {"day", "guest"}
    assert here.calls == 0


async def test_those_behind_the_ones_shown_have_a_say_and_no_place(letters: Open) -> None:
    here = letters(GOOD)
    params = Params(layout="plain", demos=DEMOS, shown=1, scored={"label": Weights(near=50.0)})
    assert await outputs(Mood, params, text=DEMOS[-1].inputs["text"]) == dict(DEMOS[-1].outputs)
    shown = "".join(message.text for message in here.model.requests[0].messages[:-1])
    assert [demo.inputs["text"] in shown for demo in DEMOS] == [True, *[False] * (len(DEMOS) - 1)]
    chat = letters(['{"label": "good"}'])
    await outputs(Mood, Params(demos=DEMOS, shown=1), text="hi")
    assert len(chat.model.requests[0].messages) == 4


@pytest.mark.parametrize(
    "params",
    [
        Params(demos=DEMOS[:1], nearest=1),
        Params(scored={"label": Weights()}),
        Params(layout="plain", scored={"label": Weights()}),
        Params(layout="plain"),
    ],
    ids=["nearest", "weighed", "plain and weighed", "plain"],
)
async def test_what_is_written_is_validated_once(letters: Open, params: Params) -> None:
    text = '{"label": "good", "rate": 50}'
    written = told(text, {text[:11]: 1.0}, {"good": 0.7, "bad": 0.3})

    def model(request: Request) -> Reply:
        if not request.plain:
            return written(request)
        return GOOD(request) if request.top_logprobs else _says(" 50" if params.scored else " good\nrate: 50")

    letters(model)
    assert await outputs(Rated, params, text="hi") == {"label": "good", "rate": 0.5}


class Sure(Signature):
    """Say whether a text sounds good."""

    text: str = context.input("what was written")
    bad: Annotated[bool, BeforeValidator(lambda good: not good)] = context.output("whether it sounds bad")


@pytest.mark.parametrize("layout", ["chat", "plain"])
async def test_what_is_chosen_is_validated_once(house: Open, layout: Any) -> None:
    told_so = told('{"bad": true}', {'{"bad": ': 1.0}, {"true": 0.7, "false": 0.3})
    house(told_so if layout == "chat" else told(" yes\n", {" yes": 0.7, " no": 0.3}))
    assert await outputs(Sure, Params(layout=layout, scored={"bad": Weights()}), text="hi") == {"bad": False}


def _never(value: Any) -> Any:
    if value == "bad":
        raise ValueError("it is never bad")
    return value


class Kind(Signature):
    """Say how a text sounds, kindly."""

    text: str = context.input("what was written")
    label: Annotated[Literal["good", "bad"], BeforeValidator(_never)] = context.output("how it sounds")


async def test_what_is_chosen_has_to_fit_its_field(house: Open) -> None:
    house(told('{"label": "good"}', {'{"label": "': 1.0}, {"good": 0.3, "bad": 0.7}))
    weights = Weights(lead={"good": 2.0})
    with pytest.raises(OutputInvalid) as caught:
        await outputs(Kind, Params(scored={"label": weights}), text="hi")
    assert caught.value.problem == "'label' = 'bad': Value error, it is never bad"


async def test_the_plain_layout_has_the_model_go_on_with_a_text(house: Open) -> None:
    here = house([" bad", " good"])
    params = Params(layout="plain", demos=DEMOS[:2], headings={"label": "mood"})
    assert await outputs(Mood, params, text="fine") == {"label": "bad"}
    assert await outputs(Mood, params, text="hm") == {"label": "good"}
    first, second = here.model.requests
    assert first.plain
    assert (first.stable, first.decoding.stop, first.output) == (1, ("\n",), None)
    assert "".join(message.text for message in first.messages) == (
        "Say how a text sounds.\n\ntext: the soup was lovely\nmood: good\n\n"
        "text: the waiter shouted\nmood: bad\n\ntext: fine\nmood:"
    )
    assert first.messages[0] == second.messages[0]
    assert (first.options.compress, first.options.semantic) == (False, False)


async def test_several_fields_are_written_in_one_call(house: Open) -> None:
    here = house([" none\nguest: Ann"])
    params = Params(layout="plain", demos=BOOKINGS)
    assert await outputs(Booking, params, text="it is me, Ann") == {"day": None, "guest": "Ann"}
    (request,) = here.model.requests
    assert request.decoding.stop == ("\n\n",)


@pytest.mark.parametrize(
    "reply", [" none", " nobody\n", Reply(model="m", text=" no", finish="length")], ids=["missing", "wrong", "cut"]
)
async def test_a_plain_text_that_does_not_fit_is_an_error(house: Open, reply: Any) -> None:
    house([reply])
    with pytest.raises(OutputInvalid):
        await outputs(Booking if reply == " none" else Mood, Params(layout="plain"), text="hi")


async def test_what_the_provider_withholds_is_an_error(house: Open) -> None:
    house([Reply(model="m", finish="content_filter")])
    with pytest.raises(ContentFiltered):
        await outputs(Mood, Params(layout="plain"), text="hi")


async def test_a_value_is_chosen_by_log_probability(house: Open) -> None:
    here = house(GOOD)
    plain = Params(layout="plain", scored={"label": Weights()})
    assert await outputs(Mood, plain, text="hi") == {"label": "good"}
    lead = Params(layout="plain", scored={"label": Weights(lead={"good": 1.0})})
    assert await outputs(Mood, lead, text="hi") == {"label": "bad"}
    request = here.model.requests[0]
    assert request.output is not None
    assert request.output.schema == {"enum": [" good\n", " bad\n"]}
    assert (request.top_logprobs, request.decoding.temperature) == (100, 0.0)


async def test_near_demos_have_a_say(house: Open) -> None:
    pytest.importorskip("wordllama")
    here = house(GOOD)
    params = Params(layout="plain", demos=DEMOS, scored={"label": Weights(near=1.0)})
    assert await outputs(Mood, params, text="the waiter shouted at us") == {"label": "bad"}
    assert await outputs(Mood, params, text="the soup was so lovely") == {"label": "good"}
    assert here.model.requests[0].messages[0] == here.model.requests[1].messages[0]


@pytest.mark.parametrize("layout", ["plain", "chat"])
async def test_only_the_nearest_demos_are_shown_the_nearest_last(house: Open, layout: Any) -> None:
    pytest.importorskip("wordllama")
    here = house([" good"] if layout == "plain" else ['{"label": "good"}'])
    await outputs(Mood, Params(layout=layout, demos=DEMOS, nearest=2), text="the soup and the waiter")
    shown = "".join(message.text for message in here.model.requests[0].messages)
    assert "phone" not in shown
    assert shown.count("the soup was lovely") == shown.count("the waiter shouted") == 1


async def test_nearest_demos_are_shown_in_a_conversation_that_is_repaired(letters: Open) -> None:
    here = letters(['{"label": "so so"}', '{"label": "bad"}'])
    assert await outputs(Mood, Params(demos=DEMOS, nearest=1), text="waiters shout") == {"label": "bad"}
    first, second = here.model.requests
    assert [message.text for message in first.messages[1:]] == [
        "text: the waiter shouted",
        '{"label":"bad"}',
        "text: waiters shout",
    ]
    assert (second.messages[:4], len(second.messages), first.stable) == (first.messages, 6, 3)
    assert first.options.semantic is None


async def test_with_nearest_demos_a_stream_gives_partials(letters: Open) -> None:
    letters(['{"label": "good", "rate": 50}'])
    partials = [one async for one in Rated.using(demos=DEMOS, nearest=2).stream(text="the soup")]
    assert {"label": "good", "rate": None} in [dict(one.outputs) for one in partials]


async def test_what_is_shown_of_the_demos_is_made_once(letters: Open) -> None:
    here = letters(['{"label": "good"}'] * 2)
    program = Mood.using(Params(demos=DEMOS, nearest=1))
    await program(text="the soup is lovely")
    await program(text="the lovely soup")
    first, second = here.model.requests
    assert all(one is other for one, other in zip(first.messages[:3], second.messages[:3], strict=True))


async def test_each_demo_is_embedded_once_in_whatever_set_it_stands(letters: Open) -> None:
    here = letters(['{"label": "good"}'] * 4)
    made, reading = here.app._runner._embedder, Reading(Mood.spec)
    sets = (DEMOS, DEMOS[:2], DEMOS[1:], DEMOS)

    @program
    async def asks(ctx: Context, text: str) -> str:
        for demos in sets:
            params = Params(demos=demos, nearest=1, scored={"label": Weights(near=0.0)}, model="test/model")
            with pytest.raises(Unsupported, match="log-probabilities"):
                await ctx.fork(overrides={reading.spec.name: params}).call(reading, text=text)
        return text

    await asks(text="the soup")
    assert sorted(made.texts) == sorted([*(demo.inputs["text"] for demo in DEMOS), *["the soup"] * 4])


@pytest.mark.parametrize(("near", "made"), [(0.0, 0), (1.0, 1)])
async def test_nothing_is_learned_that_has_no_weight(
    letters: Open, monkeypatch: pytest.MonkeyPatch, near: float, made: int
) -> None:
    pytest.importorskip("numpy")
    letters(GOOD)
    fitted: list[int] = []

    class Counting(weigh.Classifier):
        def __init__(self, points: Any, values: Any, count: int) -> None:
            fitted.append(count)
            super().__init__(points, values, count)

    monkeypatch.setattr(weigh, "Classifier", Counting)
    program = Mood.using(Params(layout="plain", demos=DEMOS, nearest=2, scored={"label": Weights(near=near)}))
    for _ in range(2):
        await program(text="the soup was lovely")
    assert fitted == [2] * made


async def test_others_go_on_while_it_learns_of_the_demos_once(house: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    here = house(told(" Friday\n", {" Friday": 0.9, " none": 0.1}))
    free, begun = threading.Event(), threading.Event()
    made: list[bool] = []

    def learns(*rows: Any) -> SpanFinder:
        begun.set()
        made.append(free.wait(20))  # False where the loop was stalled: nobody could set it
        return SpanFinder(*rows)

    monkeypatch.setattr(weigh, "SpanFinder", learns)
    scored = {"day": Weights(), "guest": Weights(absent="")}
    program = Booking.using(Params(layout="plain", demos=BOOKINGS, scored=scored))

    async def asks() -> str | None:
        return (await program(text="on Friday")).day

    async with asyncio.timeout(30), asyncio.TaskGroup() as group:
        given_up = group.create_task(asks())
        others = [group.create_task(asks()) for _ in range(3)]
        assert await asyncio.to_thread(begun.wait, 20)
        given_up.cancel()
        await asyncio.sleep(0.01)
        free.set()
    assert [one.result() for one in others] == ["Friday"] * 3
    assert made == [True, True]  # one a field
    assert here.calls == 6


async def test_what_could_not_be_learned_is_tried_again(house: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    house(told(" Friday\n", {" Friday": 0.9, " none": 0.1}))
    tries: list[int] = []

    def learns(*rows: Any) -> SpanFinder:
        tries.append(1)
        if len(tries) == 1:
            raise ConfigError("not now")
        return SpanFinder(*rows)

    monkeypatch.setattr(weigh, "SpanFinder", learns)
    program = Booking.using(Params(layout="plain", demos=BOOKINGS, scored={"day": Weights(), "guest": Weights()}))
    with pytest.raises(ConfigError, match="not now"):
        await program(text="on Friday")
    assert (await program(text="on Friday")).day == "Friday"


async def test_nearest_demos_need_an_embedder(house: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    here = house([" good"])
    monkeypatch.setattr(here.app._runner, "_embedder", None)
    with pytest.raises(ConfigError, match="embedder"):
        await outputs(Mood, Params(layout="plain", demos=DEMOS, nearest=2), text="hi")
    assert here.calls == 0


async def test_a_copied_value_is_a_phrase_of_the_inputs_or_nothing(house: Open) -> None:
    here = house(told(" Friday\n", {" Fri": 0.3, " none": 0.5, " on": 0.01}))
    params = Params(layout="plain", demos=BOOKINGS, scored={"day": Weights(), "guest": Weights(absent="")})
    assert await outputs(Booking, params, text="on Friday") == {"day": None, "guest": ""}
    bold = {"day": Weights(lead={"none": 1.0}), "guest": Weights(lead={"none": 1.0}, absent="")}
    assert await outputs(Booking, Params(layout="plain", demos=BOOKINGS, scored=bold), text="on Friday") == {
        "day": "Friday",
        "guest": "Friday",
    }
    asked = [request.messages[-1].text.splitlines()[-1] for request in here.model.requests]
    assert asked == ["day:", "guest:"] * 2
    first = here.model.requests[0].output
    assert first is not None
    assert set(first.schema["enum"]) == {" on\n", " Friday\n"}  # no value in the demos is longer than a word


async def test_demos_say_which_phrases_are_proposed_and_how_likely_they_are(house: Open) -> None:
    here = house(told(" tea\n", {" tea": 0.5, " Tuesday": 0.4, " none": 0.1}))
    days = ("Monday", "Friday", "Sunday", "Thursday", "Saturday")
    demos = tuple(Demo({"text": f"we come for tea on {day} as ever"}, {"day": day, "guest": ""}) for day in days)
    params = Params(layout="plain", demos=demos, scored={"day": Weights(near=1.0), "guest": Weights(absent="")})
    text = "we come for tea on Tuesday as ever, all of us, with the dog"
    assert (await outputs(Booking, params, text=text))["day"] == "Tuesday"
    first = here.model.requests[0].output
    assert first is not None
    assert first.schema["enum"][0] == " Tuesday\n"
    assert len(first.schema["enum"]) == 8
    deaf = Params(layout="plain", demos=demos, scored={"day": Weights(), "guest": Weights(absent="")})
    assert (await outputs(Booking, deaf, text=text))["day"] == "tea"


async def test_without_a_phrase_there_is_nothing_to_ask(house: Open) -> None:
    here = house(GOOD)
    params = Params(layout="plain", scored={"day": Weights(), "guest": Weights(absent="?")})
    assert await outputs(Booking, params, text=" ") == {"day": None, "guest": "?"}
    assert here.calls == 0


async def test_a_copied_field_is_shown_examples_with_and_without_a_value(house: Open) -> None:
    pytest.importorskip("wordllama")
    here = house(told(" thank\n", {" thank": 0.3, " none": 0.5}))
    scored = {"day": Weights(), "guest": Weights(absent="")}
    await outputs(Booking, Params(layout="plain", demos=BOOKINGS, nearest=2, scored=scored), text="thank you")
    shown = here.model.requests[0].messages[0].text
    assert "day: Monday" in shown
    assert "day: none" in shown
    assert "guest" not in shown


async def test_weighed_and_written_fields_go_together(house: Open) -> None:
    def model(request: Request) -> Reply:
        return told(" Friday\n", {" Fri": 0.9, " none": 0.1})(request) if request.top_logprobs else _says(" Ann")

    here = house(model)
    params = Params(layout="plain", demos=BOOKINGS, scored={"day": Weights()})
    assert await outputs(Booking, params, text="Ann, Friday") == {"day": "Friday", "guest": "Ann"}
    assert here.calls == 2


@pytest.mark.parametrize("mode", ["json", "text"])
async def test_values_are_weighed_in_a_conversation_too(house: Open, mode: str) -> None:
    text = '{"label": "good"}' if mode == "json" else "<label>good</label>"
    start = text.index("good")
    here = house(told(text, {text[:start]: 1.0}, {"good": 0.7, "bad": 0.3}), mode=mode)
    assert await outputs(Mood, Params(scored={"label": Weights()}), text="hi") == {"label": "good"}
    assert await outputs(Mood, Params(scored={"label": Weights(lead={"good": 1.0})}), text="hi") == {"label": "bad"}
    assert {request.top_logprobs for request in here.model.requests} == {20}
    assert not here.model.requests[0].plain


async def test_a_value_that_stands_twice_can_not_be_weighed(house: Open) -> None:
    text = '{"label": "good"} {"label": "good"}'
    house(told(text, {text: 1.0}))
    with pytest.raises(OutputInvalid):
        await outputs(Mood, Params(scored={"label": Weights()}), text="hi")


async def test_a_model_without_log_probabilities_is_named(house: Open) -> None:
    house([" good\n", '{"label": "good"}'])
    for layout in ("plain", "chat"):
        with pytest.raises(Unsupported, match="reports no log-probabilities"):
            await outputs(Mood, Params(layout=layout, scored={"label": Weights()}), text="hi")


@pytest.mark.parametrize("params", [Params(scored={"x": Weights()}), Params(scored={"day": Weights()})])
async def test_fields_that_can_not_be_weighed_are_named(house: Open, params: Params) -> None:
    here = house([])
    with pytest.raises(Unsupported, match="can't be weighed"):
        await outputs(Booking, params, text="hi")
    assert here.calls == 0


async def test_a_stream_gives_the_whole_at_the_end(house: Open) -> None:
    house(GOOD)
    program = Mood.using(Params(layout="plain", scored={"label": Weights()}))
    seen = [dict(partial.outputs) async for partial in program.stream(text="hi")]
    assert seen[-1] == {"label": "good"}


async def test_what_speaks_for_each_value_can_be_read(house: Open) -> None:
    house(GOOD)
    reading = Reading(Mood.spec)

    @program
    async def asks(ctx: Context, text: str) -> str:
        params = Params(layout="plain", scored={"label": Weights()}, model="test/model")
        answer: Answer = await ctx.fork(overrides={reading.spec.name: params}).call(reading, text=text)
        return json.dumps(answer.outputs["weighed"]["label"])

    said = json.loads(await asks(text="hi"))
    assert (said["texts"], said["values"], said["near"]) == (["good", "bad"], ["good", "bad"], None)
    assert [round(math.exp(one), 6) for one in said["likely"]] == [0.7, 0.3]


async def test_what_can_not_be_read_is_an_error(house: Open) -> None:
    house(["no JSON"])
    reading = Reading(Mood.spec, Params(scored={"label": Weights()}))

    @program
    async def asks(ctx: Context, text: str) -> str:
        return str(await ctx.call(reading, text=text))

    with pytest.raises(OutputInvalid):
        await asks(text="hi")


def _says(text: str) -> Reply:
    return Reply(model="m", text=text)
