"""A program whose cheap model answers first."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal

import pytest

from kaizen import Signature, cascade, context, errors
from kaizen.core.request import Reply, Request, Spare, TokenLogprob, Usage
from kaizen.programs.wrap.cascade import value_tokens
from kaizen.testing.scripted import Line
from tests.unit.programs.house import Open

MODELS = ["a/cheap", "b/strong"]
HELLO = {"message": "hello"}


class Triage(Signature):
    """Name the team that owns a message."""

    message: str = context.input("what the customer wrote")
    team: Literal["cards", "accounts"] = context.output("the team")


class Check(Signature):
    """Say how likely it is that the team is right."""

    message: str = context.input("what the customer wrote")
    team: str = context.input("the team")
    likely: float = context.output("0 to 1")


def said(team: str, *, model: str = "a/cheap", probability: float | None = None) -> Reply:
    text = f'{{"team": "{team}"}}'
    pieces = ['{"team": "', team, '"}']
    sure = [0.01, probability or 1.0, 0.01]  # how the model feels about the brackets says nothing
    tokens = tuple(TokenLogprob(one, math.log(p)) for one, p in zip(pieces, sure, strict=True))
    return Reply(model=model, text=text, usage=Usage(1, 1), logprobs=tokens if probability else ())


def script(cheap: Line | list[Line]) -> Callable[[Request], Line]:
    """The cheap model's answers in order, the last again and again; the strong one's is always accounts."""
    answers = list(cheap) if isinstance(cheap, list) else [cheap]

    def line(request: Request) -> Line:
        if request.model == "b/strong":
            return said("accounts", model="b/strong")
        return answers.pop(0) if len(answers) > 1 else answers[0]

    return line


def models(house: Any) -> list[str]:
    return [request.model for request in house.model.requests]


async def run(house: Any, made: Any) -> str:
    return (await house.app.run(made, HELLO)).outputs["team"]


async def test_an_answer_that_fits_counts(house: Open) -> None:
    here = house(script(said("cards")))
    assert await run(here, cascade(Triage, MODELS)) == "cards"
    assert models(here) == ["a/cheap"]


@pytest.mark.parametrize("cheap", [said("nobody"), errors.Unavailable("down")], ids=["misfit", "failure"])
async def test_a_misfit_or_a_failure_goes_on_without_a_repair(house: Open, cheap: Any) -> None:
    here = house(script(cheap))
    assert await run(here, cascade(Triage, MODELS)) == "accounts"
    assert models(here) == MODELS


@pytest.mark.parametrize(("probability", "team"), [(0.9, "cards"), (0.5, "accounts"), (None, "accounts")])
async def test_the_probability_of_the_values_decides(house: Open, probability: float | None, team: str) -> None:
    here = house(script(said("cards", probability=probability)))
    assert await run(here, cascade(Triage, MODELS, by="probability", least=0.8)) == team
    assert here.model.requests[0].top_logprobs == 0
    assert all(request.top_logprobs is None for request in here.model.requests[1:])


async def test_a_stream_is_heard_too(house: Open) -> None:
    here = house(script(said("cards", probability=0.9)))
    items = [one async for one in here.app.stream(cascade(Triage, MODELS, by="probability"), HELLO)]
    assert items[-1].outputs["team"] == "cards"
    assert models(here) == ["a/cheap"]


@pytest.mark.parametrize(
    ("samples", "team"),
    [
        ([said("cards"), said("cards"), said("accounts"), said("cards")], "cards"),
        ([said("cards"), said("cards"), said("nobody"), said("accounts")], "accounts"),
        ([said("nobody")], "accounts"),
    ],
    ids=["three of four", "two of four", "none fits"],
)
async def test_agreement_of_samples_decides(house: Open, samples: list[Line], team: str) -> None:
    here = house(script(samples))
    assert await run(here, cascade(Triage, MODELS, by="agreement", samples=4, least=0.75)) == team
    sampled = [request.decoding for request in here.model.requests if request.model == "a/cheap"]
    assert sorted(one.seed or 0 for one in sampled) == [0, 1, 2, 3]
    assert {one.temperature for one in sampled} == {0.7}
    assert all(isinstance(one.seed, Spare) for one in sampled)


@pytest.mark.parametrize(("verdict", "team"), [(0.9, "cards"), ((0.9, "good"), "cards"), (0.1, "accounts")])
async def test_a_function_may_verify(house: Open, verdict: Any, team: str) -> None:
    def check(inputs: Any, answer: Any) -> Any:
        assert (inputs["message"], answer.team) == ("hello", "cards")
        return verdict

    async def checked(inputs: Any, answer: Any) -> Any:
        return check(inputs, answer)

    for verifier in (check, checked):
        assert await run(house(script(said("cards"))), cascade(Triage, MODELS, by=verifier)) == team


@pytest.mark.parametrize(("likely", "team"), [(0.9, "cards"), (0.2, "accounts")])
async def test_a_program_may_verify(house: Open, likely: float, team: str) -> None:
    def line(request: Request) -> Line:
        if "likely" in str(request.messages):
            return f'{{"likely": {likely}}}'
        return script(said("cards"))(request)

    here = house(line)
    assert await run(here, cascade(Triage, MODELS, by=Check)) == team
    assert here.model.count == (2 if team == "cards" else 3)


async def test_the_last_models_misfit_is_the_callers(house: Open) -> None:
    here = house([said("nobody")] * 3)
    with pytest.raises(errors.OutputInvalid):
        await run(here, cascade(Triage, MODELS))


def test_mistakes_are_told_at_once() -> None:
    with pytest.raises(errors.DefinitionError, match=r"(?s)at least two.*a confidence from 0 to 1"):
        cascade(Triage, ["a/cheap"], least=2.0)
    with pytest.raises(errors.DefinitionError, match="agreement needs at least two"):
        cascade(Triage, MODELS, samples=1)


def test_the_tokens_of_values_are_found_by_their_names() -> None:
    text = ['{"', "team", '": "', "car", "ds", '", "n', '": 1', "2}"]
    reply = Reply(model="m/x", text="".join(text), logprobs=tuple(TokenLogprob(one, 0.0) for one in text))
    found = [one.token for one in value_tokens(reply, {"team": "cards", "n": 12})]
    assert found == ["car", "ds", '": 1', "2}"]
    assert [one.token for one in value_tokens(reply, {"team": "cards"})] == ["car", "ds"]
    assert value_tokens(reply, {"missing": 1}) == reply.logprobs
    cut = Reply(model="m/x", logprobs=tuple(TokenLogprob(one, 0.0) for one in ('{"team"', ": {")))
    assert value_tokens(cut, {"team": "cards"}) == cut.logprobs
