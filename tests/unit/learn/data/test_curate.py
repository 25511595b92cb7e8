"""Rows out of records: scores and corrections, near duplicates, diversity, personal data, and no row of a test."""

from __future__ import annotations

import json
import re
import struct
from dataclasses import replace
from typing import Any

import pytest

from kaizen.core.errors import InvalidInput
from kaizen.core.record import Record, Score
from kaizen.core.request import Embeddings, Request
from kaizen.learn.data.alike import farthest, unlike
from kaizen.learn.data.curate import OWN, Picking, Wish, curated, rows_from_runs
from kaizen.learn.data.redact import redacted
from kaizen.learn.data.rows import Row
from kaizen.learn.data.where import Where
from kaizen.ledger.scores import keep_feedback, keep_scores
from tests.unit.programs.house import House, Open
from tests.unit.programs.test_signature import Triage

NAME = Triage.spec.name


def answer(request: Request) -> str:
    return json.dumps({"team": "cards" if "card" in request.messages[-1].text else "transfers", "urgency": 2})


async def asked(here: House, message: str, **run: Any) -> Record:
    made = replace(await here.app.new_run(), **run)
    found = await here.app.start_run(made, Triage, {"message": message})
    return found.record  # type: ignore[union-attr]


async def rows_of(here: House, **wish: Any) -> list[Row]:
    return list((await rows_from_runs(here.app.ledger, here.app.scope, Wish(program=NAME, **wish)))[0])


async def test_good_answers_become_rows_the_best_first(house: Open) -> None:
    here = house(answer)
    for place, value in enumerate((0.2, 1.0, 0.8)):
        record = await asked(here, f"my card number {place} is gone, what now?", subject=f"s{place}")
        await keep_feedback(here.app.ledger, record, value)
    rows = await rows_of(here, where=Where("score >= 0.8"))
    assert [row.inputs["message"][15] for row in rows] == ["1", "2"]
    assert rows[0].outputs == {"team": "cards", "urgency": 2}
    assert rows[0].group == "s1"
    assert rows[0].others["_score"] == 1.0
    assert {row.group for row in await rows_of(here, group_by="input.message", limit=1)} == {
        "my card number 2 is gone, what now?"
    }
    assert {row.group for row in await rows_of(here, group_by="")} == {None}


async def test_a_correction_takes_the_place_of_the_answer(house: Open) -> None:
    here = house(answer)
    record = await asked(here, "send money")
    await keep_feedback(here.app.ledger, record, 0.0, comment="wrong team", correct={"team": "accounts"})
    await asked(here, "another")
    (row,) = await rows_of(here, where=Where("corrected"))
    assert row.outputs == {"team": "accounts", "urgency": 2}
    _, counts = await rows_from_runs(here.app.ledger, here.app.scope, Wish(program=NAME))
    assert (counts.records, counts.corrected) == (2, 1)


async def test_people_count_before_metrics(house: Open) -> None:
    here = house(answer)
    record = await asked(here, "send money")
    await keep_scores(here.app.ledger, here.app.scope, [Score("accuracy", record, 1.0)])
    assert len(await rows_of(here, where=Where("score = 1 and scores = 1"))) == 1
    await keep_feedback(here.app.ledger, record, 0.25)
    assert len(await rows_of(here, where=Where("score = 0.25 and score.accuracy = 1"))) == 1


async def test_rows_to_test_on_do_not_come_back_as_rows_to_learn_from(house: Open) -> None:
    here = house(answer)
    await asked(here, "a test's row", principal=f"{OWN}eval")
    await asked(here, "a caller's")
    assert [row.inputs["message"] for row in await rows_of(here)] == ["a caller's"]


async def test_erased_contents_and_other_contracts_are_left_out(house: Open) -> None:
    here = house(answer)
    await asked(here, "erase me")
    await here.app.ledger.erase(here.app.scope)
    await asked(here, "keep me")
    rows, counts = await rows_from_runs(here.app.ledger, here.app.scope, Wish(program=NAME))
    assert (len(rows), counts.erased) == (1, 1)
    _, counts = await rows_from_runs(here.app.ledger, here.app.scope, Wish(program=NAME, contract="another"))
    assert (counts.records, counts.other) == (0, 2)
    with pytest.raises(InvalidInput, match="nothing is left of 0 calls"):
        curated("x", (), Wish(program=NAME), counts)


async def test_a_dataset_says_what_was_done_to_it(house: Open) -> None:
    here = house(answer)
    await asked(here, "write to ada@example.com or call +49 30 1234567")
    wish = Wish(program=NAME, where=Where("not corrected"), redact=True, consent="terms 4.2", group_by="input.message")
    rows, counts = await rows_from_runs(here.app.ledger, here.app.scope, wish)
    dataset = curated("triage", rows, wish, counts)
    assert dataset.rows[0].inputs["message"] == "write to [email] or call [phone]"
    assert dataset.about["redaction"]["taken_out"] == {"email": 1, "phone": 1}
    groups = [row.group for row in dataset.rows]
    assert all(group is not None and re.fullmatch("[0-9a-f]{32}", group) for group in groups), "what groups is personal"
    again, _ = await rows_from_runs(here.app.ledger, here.app.scope, wish)
    assert [row.group for row in again] == groups, "and the same each time"
    assert (dataset.about["consent"], dataset.about["where"]) == ("terms 4.2", "not corrected")
    plain = Wish(program=NAME)
    assert curated("x", rows, plain, counts).about["redaction"] == "none"


def test_personal_data_of_known_shapes_is_taken_out() -> None:
    text = "card 4111 1111 1111 1111, order 4111 1111 1111 1112, iban DE89 3704 0044 0532 0130 00, from 10.0.0.255"
    row, found = redacted(Row({"text": text, "more": {"list": ["a@b.co", 7]}}, {"x": None}, None, {"note": "b@c.de"}))
    assert row.inputs["text"] == "card [card], order 4111 1111 1111 1112, iban [iban], from [ip]"
    assert row.inputs["more"] == {"list": ["[email]", 7]}
    assert row.others == {"note": "[email]"}
    assert found == {"card": 1, "iban": 1, "ip": 1, "email": 2}
    same, none = redacted(Row({"text": "table for 12 at 19:30 on 3/4, not 0123 4"}, {}))
    assert (same.inputs["text"], sum(none.values())) == ("table for 12 at 19:30 on 3/4, not 0123 4", 0)


@pytest.mark.parametrize("text", ["AB12 İKİ BİN ALT TL", "AB12 \u212aABC DEFG HIJK LMNO"])
def test_letters_that_are_none_of_an_account_number_are_left(text: str) -> None:
    row, found = redacted(Row({"text": text}, {}))
    assert (row.inputs["text"], found) == (text, {})


def test_near_duplicates_go_and_what_tells_labels_apart_stays() -> None:
    long = "please tell me where the card that I ordered on your page three weeks ago is now and when it will come"
    rows = [
        Row({"text": long}, {"team": "cards"}),
        Row({"text": f"{long} today"}, {"team": "cards"}),
        Row({"text": f"{long} soon"}, {"team": "transfers"}),
        Row({"text": long}, {"team": "accounts"}),
        Row({"text": "hi"}, {"team": "cards"}),
        Row({"text": "ho"}, {"team": "cards"}),
    ]
    kept, left_out = unlike(rows)
    assert [row.inputs["text"][-4:] for row in kept] == ["come", "soon", "hi", "ho"]
    assert left_out == 2


def points(*vectors: tuple[float, float]) -> Embeddings:
    return Embeddings("m", 2, b"".join(struct.pack("<2f", *vector) for vector in vectors))


def test_points_far_apart_are_chosen() -> None:
    found = farthest(points((1, 0), (0.99, 0.1), (0.98, -0.1), (0, 1), (-1, 0)), 3)
    assert found[0] == 1
    assert set(found[1:]) == {4, 3} or set(found[1:]) == {4, 0} or 4 in found
    assert farthest(points((1, 0), (0, 1)), 5) == [0, 1]


async def test_diverse_rows_are_picked_by_the_embedder(house: Open) -> None:
    here = house()
    texts = ["my card was stolen", "my card was taken", "my card is stolen", "transfer money to my brother abroad"]
    rows = [Row({"text": text}, {}) for text in texts]
    found = await here.app.start(Picking(rows), {"rows": "x", "n": 2})
    assert 3 in found.outputs["places"]  # type: ignore[union-attr]
    assert len(await here.records(ref="kaizen.dataset.pick")) == 1
