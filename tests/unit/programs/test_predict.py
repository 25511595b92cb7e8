"""A signature on a model: one repair, then an error with all there is; a stream of typed partials, then the whole."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncGenerator
from itertools import pairwise
from typing import Any

import pytest

from kaizen import Demo, Params, Signature, context
from kaizen.core.errors import ContentFiltered, DefinitionError, OutputInvalid, Unavailable
from kaizen.core.request import Chunk, Reply, Request, Spare, Usage
from kaizen.programs.prompt import render
from tests.unit.programs.house import Open
from tests.unit.programs.test_signature import Triage

GOOD = '{"team": "cards", "urgency": 2}'
BAD = '{"team": "cards", "urgency": 9}'


async def test_a_misfit_is_shown_back_with_what_is_wrong(house: Open) -> None:
    here = house([BAD, GOOD])
    answer = await Triage(message="x")
    assert answer.urgency == 2
    first, second = here.model.requests
    assert second.messages[:-2] == first.messages
    assert second.messages[-2].text == BAD
    assert second.messages[-1].text.startswith("This answer does not fit: 'urgency' = 9: Input should be less than")
    assert (second.output, second.decoding, second.deadline) == (first.output, first.decoding, first.deadline)


@pytest.mark.parametrize(("repairs", "calls"), [(0, 1), (1, 2), (3, 4)])
async def test_repairs_are_budgeted_then_it_is_an_error(house: Open, repairs: int, calls: int) -> None:
    here = house([BAD] * 9, repairs=repairs)
    with pytest.raises(OutputInvalid) as caught:
        await Triage(message="x")
    assert here.calls == calls
    assert (caught.value.reply, caught.value.problem.split(":")[0]) == (BAD, "'urgency' = 9")
    assert BAD not in str(caught.value)
    records = await here.records()
    assert [record.kind for record in records].count("model") == calls
    (record,) = [record for record in records if record.kind == "program"]
    assert (record.status, record.error_code, record.model_calls) == ("error", "output_invalid", calls)


def by_seed(*texts: str) -> Any:
    return lambda request: texts[(request.decoding.seed or 0) % len(texts)]


async def test_of_several_answers_the_one_counts_that_most_agree_with(house: Open) -> None:
    other = '{"team": "accounts", "urgency": 2}'
    here = house(by_seed(BAD, other, GOOD, '{"team": "cards", "urgency": 5}', GOOD), repairs=0)
    answer = await Triage.using(votes=5)(message="x")
    assert (answer.team, answer.urgency) == ("cards", 2)
    assert [request.decoding.seed for request in here.model.requests] == [0, 1, 2, 3, 4]
    assert {request.decoding.temperature for request in here.model.requests} == {0.7}
    assert answer.record.model_calls == 5
    kinds = [item async for item in Triage.using(votes=2, temperature=0.2).stream(message="x")]
    assert kinds[-1].team == "accounts"
    assert {request.decoding.temperature for request in here.model.requests[5:]} == {0.2}


async def test_what_votes_share_is_made_once_for_all_calls(house: Open) -> None:
    here = house(by_seed(GOOD, GOOD))
    program = Triage.using(votes=2)
    for message in ("x", "y"):
        await program(message=message)
    first, second, *again = [request.decoding for request in here.model.requests]
    assert (again[0] is first, again[1] is second) == (True, True)
    assert [type(one.seed) for one in (first, second)] == [Spare, Spare]


async def test_a_temperature_of_zero_is_a_temperature(house: Open) -> None:
    here = house(by_seed(GOOD, GOOD))
    await Triage.using(votes=2, temperature=0.0)(message="x")
    assert [request.decoding.temperature for request in here.model.requests] == [0.0, 0.0]


async def test_where_no_answer_fits_there_is_nothing_to_vote_on(house: Open) -> None:
    here = house([BAD] * 6)
    with pytest.raises(OutputInvalid):
        await Triage.using(votes=3)(message="x")
    assert here.calls == 6


def test_params_out_of_their_bounds_are_refused() -> None:
    with pytest.raises(DefinitionError, match=r"votes = 0 should be from 1 to 64"):
        Triage.using(votes=0)
    with pytest.raises(ValueError, match="nearest = -1 should be from 0"):
        Params(nearest=-1)


async def test_one_vote_is_the_answer(house: Open) -> None:
    here = house([GOOD])
    await Triage.using(votes=1)(message="x")
    assert here.calls == 1
    assert here.model.requests[0].decoding.temperature is None


async def test_params_set_the_repairs(house: Open) -> None:
    here = house([BAD] * 9)
    with pytest.raises(OutputInvalid):
        await Triage.using(repairs=0)(message="x")
    assert here.calls == 1


async def test_an_answer_cut_off_at_the_limit_is_a_misfit(house: Open) -> None:
    here = house([Reply(model="m", text=GOOD, finish="length"), GOOD])
    assert (await Triage(message="x")).urgency == 2
    assert here.calls == 2
    assert "cut off" in here.model.requests[1].messages[-1].text


async def test_a_withheld_answer_is_not_repaired(house: Open) -> None:
    here = house([Reply(model="m", text="", finish="content_filter")] * 2)
    with pytest.raises(ContentFiltered):
        await Triage(message="x")
    assert here.calls == 1


@pytest.mark.parametrize(
    ("mode", "reply"),
    [("schema", GOOD), ("json", f"```json\n{GOOD}\n```"), ("text", "<team>cards</team><urgency>2</urgency>")],
)
async def test_each_mode_asks_and_reads_in_its_way(house: Open, mode: str, reply: str) -> None:
    here = house([reply], mode=mode)
    assert (await Triage(message="x")).outputs == {"team": "cards", "urgency": 2}
    (request,) = here.model.requests
    assert (request.output is not None) == (mode == "schema")
    if request.output is not None:
        assert (request.output.name, request.output.schema) == ("Triage", Triage.spec.output_schema)


async def test_the_stable_part_is_the_same_for_every_input(house: Open) -> None:
    here = house([GOOD] * 3)
    program = Triage.using(demos=(Demo({"message": "d"}, {"team": "cards", "urgency": 1}),), advice="Careful.")
    for message in ("a", "b", "c"):
        await program(message=message)
    prefixes = {repr(request.messages[:-1]) for request in here.model.requests}
    assert len(prefixes) == 1
    assert len({request.messages[-1].text for request in here.model.requests}) == 3


async def test_params_reach_the_request(house: Open) -> None:
    here = house([GOOD])
    params = {"temperature": 0.2, "top_p": 0.9, "max_tokens": 50, "seed": 7, "stop": ("END",)}
    await Triage.using(model="a/b", instructions="Else.", **params)(message="x")
    (request,) = here.model.requests
    assert (request.model, request.decoding) == ("a/b", Params(**params).decoding)  # type: ignore[arg-type]
    assert request.messages[0].text.startswith("Else.")


async def test_plans_are_kept_for_few_params_only(house: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(render, "_PLANS_KEPT", 2)
    here = house([GOOD] * 5)
    for seed in range(5):
        await here.app.start(Triage, {"message": "x"}, overrides={"*": Params(seed=seed)})
        assert len(Triage._predict._plan._made) <= 2
    assert [request.decoding.seed for request in here.model.requests] == [0, 1, 2, 3, 4]


# -- streams ----------------------------------------------------------------------------------------


async def test_partials_of_a_long_answer_cost_time_by_its_length_only(house: Open) -> None:
    class Listed(Signature):
        """List them."""

        text: str = context.input()
        items: list[str] = context.output()

    items = ["x"] * 20_000
    house([json.dumps({"items": items})], piece=4)
    began, lengths, last = time.process_time(), list[int](), None
    async for last in Listed.stream(text="x"):
        lengths.append(len(last.items))
    assert time.process_time() - began < 10  # minutes where all of it was read after each of 25,000 chunks
    assert last is not None
    assert last.items == items
    assert lengths == sorted(lengths)
    # never more than a 32nd behind
    assert all(later - earlier <= max(2, later / 32) for earlier, later in pairwise(lengths))


async def test_a_stream_gives_typed_partials_then_the_whole_with_its_record(house: Open) -> None:
    here = house(['{"team": "transfers", "urgency": 4}'], piece=3)
    seen = [partial async for partial in Triage.stream(message="x")]
    assert all(isinstance(partial, Triage) for partial in seen)
    assert [(partial.team, partial.urgency) for partial in seen] == [
        ("transfers", None),
        ("transfers", 4),
        ("transfers", 4),
    ]
    with pytest.raises(AttributeError, match="no record yet"):
        _ = seen[0].record
    whole = seen[-1]
    assert await here.app.ledger.record(here.app.scope, whole.record.id) == whole.record
    assert whole.record.first_token_ms is not None


async def test_the_record_is_there_before_the_last_item(house: Open) -> None:
    here = house([GOOD], piece=100)
    async for partial in Triage.stream(message="x"):
        records = await here.records(kind="program")
        if "_record" in partial.__dict__ and partial.__dict__["_record"] is not None:
            assert [record.id for record in records] == [partial.record.id]


async def test_a_streamed_misfit_is_repaired_in_the_stream(house: Open) -> None:
    here = house([BAD, '{"team": "accounts", "urgency": 3}'], piece=5)
    seen = [partial async for partial in Triage.stream(message="x")]
    assert (seen[0].team, seen[-1].outputs) == ("cards", {"team": "accounts", "urgency": 3})
    assert here.calls == 2
    assert seen[-1].record.model_calls == 2


async def test_an_empty_stream_ends_in_the_error(house: Open) -> None:
    here = house(["", ""])
    with pytest.raises(OutputInvalid):
        _ = [partial async for partial in Triage.stream(message="x")]
    assert here.calls == 2


class Hanging:
    """A model that writes a little, then nothing; it notes how it was left."""

    def __init__(self, *, reply: bool = False) -> None:
        self.count, self.left, self.begun, self.reply = 0, False, asyncio.Event(), reply

    async def complete(self, request: Request, /) -> Reply:
        self.count += 1
        self.begun.set()
        try:
            await asyncio.sleep(30)
        finally:
            self.left = True
        raise AssertionError("nobody waits that long")

    async def stream(self, request: Request, /) -> AsyncGenerator[Chunk]:
        self.count += 1
        try:
            yield Chunk('{"team": "cards", "urg')
            self.begun.set()
            if self.reply:
                return
            await asyncio.sleep(30)
        finally:
            self.left = True


async def test_leaving_a_stream_cancels_the_call_and_the_record_says_so(house: Open) -> None:
    here = house(provider=Hanging())
    stream: Any = Triage.stream(message="x")
    assert (await anext(stream)).team == "cards"
    await stream.aclose()
    assert here.model.left
    records = await here.records()
    assert {(record.kind, record.status) for record in records} == {("program", "cancelled"), ("model", "cancelled")}


async def test_cancelling_the_await_cancels_the_call_and_the_record_says_so(house: Open) -> None:
    here = house(provider=Hanging())
    task = asyncio.ensure_future(Triage(message="x"))
    await here.model.begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert here.model.left
    program, model = sorted(await here.records(), key=lambda record: record.kind, reverse=True)
    assert (program.status, model.status, program.model_calls) == ("cancelled", "cancelled", 1)
    assert program.error_code is None
    assert program.cost_usd is None


async def test_a_stream_without_its_end_is_an_error(house: Open) -> None:
    here = house(provider=Hanging(reply=True))
    with pytest.raises(Unavailable, match="before its answer was whole"):
        _ = [partial async for partial in Triage.stream(message="x")]
    assert {(record.kind, record.error_code) for record in await here.records()} == {
        ("program", "unavailable"),
        ("model", "unavailable"),
    }


async def test_a_reader_that_fails_ends_the_call_at_once(house: Open) -> None:
    here = house(provider=Hanging())

    def emit(partial: Any) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await here.app.start(Triage, {"message": "x"}, emit=emit)
    assert here.model.left
    records = {record.kind: record for record in await here.records()}
    assert records["model"].status == "cancelled"
    assert (records["program"].status, records["program"].error) == ("error", "ZeroDivisionError")


def test_a_usage_is_what_the_provider_counted() -> None:
    assert Usage() == Usage(0, 0, 0, 0, 0, estimated=False)
