"""People's words on answers: what they may be, and how they are kept."""

from __future__ import annotations

from typing import Any

import pytest

from kaizen.core.errors import InvalidInput, NotFound
from kaizen.core.record import Record
from kaizen.core.scope import Scope
from kaizen.ledger.scores import keep_feedback, said_with, value_of
from tests.unit.programs.house import House, Open
from tests.unit.programs.test_signature import Triage

GOOD = '{"team": "cards", "urgency": 2}'


async def answered(here: House) -> Record:
    return (await Triage(message="x")).record


@pytest.mark.parametrize(
    ("given", "value"),
    [
        ({"score": 0.7}, 0.7),
        ({"stars": 1}, 0.0),
        ({"stars": 4}, 0.75),
        ({"thumbs": "up"}, 1.0),
        ({"thumbs": "down"}, 0.0),
        ({"correct": {"a": 1}}, 0.0),
        ({"correct": {"a": 1}, "score": 0.5}, 0.5),
    ],
)
def test_a_word_is_a_number_however_it_is_given(given: dict[str, Any], value: float) -> None:
    assert value_of(**given) == value


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, "say how good"),
        ({"score": 1.2}, "from 0 to 1, not 1.2"),
        ({"score": float("nan")}, "from 0 to 1"),
        ({"stars": 6}, "stars go from 1 to 5"),
        ({"thumbs": "sideways"}, "up or down"),
        ({"stars": 3, "thumbs": "up"}, "not by stars and thumbs"),
    ],
)
def test_other_words_are_refused(given: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        value_of(**given)


async def test_a_score_is_a_record_and_its_comment_can_be_erased(house: Open) -> None:
    here = house([GOOD])
    about = await answered(here)
    kept = await about.score(0.4, "the wrong team", correct={"team": "transfers"})
    (record,) = await here.records(kind="score")
    assert record == kept
    assert (record.ref, record.value, record.about, record.run_id) == ("feedback", 0.4, about.id, about.run_id)
    assert (record.params, record.model) == (about.params, about.model)
    said = await said_with(here.app.ledger, record)
    assert (said.comment, said.correct) == ("the wrong team", {"team": "transfers"})
    await here.app.ledger.erase(here.app.scope)
    assert (await said_with(here.app.ledger, record)).comment == ""


def test_a_score_waits_for_nothing_in_plain_code(house: Open) -> None:
    here = house([GOOD])
    answer = Triage.execute(message="x")
    answer.record.score(1.0)
    records = here.app._portal.call(lambda: here.records(kind="score"), "records")
    assert [record.value for record in records] == [1.0]


async def test_a_score_in_plain_code_can_be_awaited_all_the_same(house: Open) -> None:
    from kaizen.app.learn.feedback import _Done

    here = house([GOOD])
    record = await answered(here)
    assert await _Done(record) is record


@pytest.mark.parametrize(
    ("value", "given", "said"),
    [
        (1.5, {}, "from 0 to 1"),
        (1.0, {"comment": "x" * 10_001}, "at most 10000 characters"),
        (0.0, {"correct": {"tem": "cards"}}, "'tem' is no output of .*: it has team, urgency"),
        (0.0, {"correct": {}}, "names at least one output"),
        (0.0, {"correct": {"team": "x" * 20_000}}, "at most 10000 bytes"),
    ],
)
async def test_words_that_can_not_be_kept(house: Open, value: float, given: dict[str, Any], said: str) -> None:
    here = house([GOOD])
    about = await answered(here)
    with pytest.raises(InvalidInput, match=said):
        await keep_feedback(here.app.ledger, about, value, **given)
    assert await here.records(kind="score") == []


async def test_only_answers_of_this_ledger_are_scored(house: Open) -> None:
    here = house([GOOD])
    about = await answered(here)
    kept = await keep_feedback(here.app.ledger, about, 1.0, by="human:ada")
    assert kept.principal == "human:ada"
    with pytest.raises(InvalidInput, match="is a score, not an answer"):
        await keep_feedback(here.app.ledger, kept, 1.0)
    (model,) = await here.records(kind="model")
    assert (await keep_feedback(here.app.ledger, model, 1.0)).about == model.id
    with pytest.raises(InvalidInput, match="correct the answer of the program"):
        await keep_feedback(here.app.ledger, model, 0.0, correct={"team": "cards"})
    import dataclasses

    with pytest.raises(NotFound):
        await keep_feedback(here.app.ledger, dataclasses.replace(about, scope=Scope("other", "dev")), 1.0)


async def test_a_correction_of_an_erased_answer_is_kept_as_it_is(house: Open) -> None:
    here = house([GOOD])
    about = await answered(here)
    await here.app.ledger.erase(here.app.scope)
    kept = await keep_feedback(here.app.ledger, about, 0.0, correct={"anything": 1})
    assert (await said_with(here.app.ledger, kept)).correct == {"anything": 1}


async def test_a_person_s_word_is_told_to_whoever_watches_the_models(house: Open) -> None:
    here = house([GOOD])
    about = await answered(here)
    told: list[tuple[str, str, float]] = []
    here.app.health.score = lambda ref, metric, value: told.append((ref, metric, value))  # type: ignore[method-assign]
    await about.score(0.5)
    assert told == [(about.model, "feedback", 0.5)]
