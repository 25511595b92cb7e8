"""The ways of answering that params ask for change what the model is asked and what is taken from its reply."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from typing import Any, Literal

import pytest

from kaizen import Demo, Params, Signature, context
from kaizen.core.answer import Answer
from kaizen.core.context import Context
from kaizen.core.errors import ConfigError, ContentFiltered, OutputInvalid, Unsupported
from kaizen.core.params import Weights
from kaizen.core.request import Reply, Request, TokenLogprob
from kaizen.programs.function import program
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


async def outputs(program: Any, params: Params, **inputs: Any) -> dict[str, Any]:
    return dict((await program.using(params)(**inputs)).outputs)


def test_only_these_fields_ask_for_it() -> None:
    assert not weighs(Params(demos=DEMOS, layout="chat"))
    assert all(map(weighs, (Params(layout="plain"), Params(nearest=2), Params(scored={"label": Weights()}))))


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
