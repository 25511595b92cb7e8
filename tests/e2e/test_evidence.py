"""The evidence rule: switching a part on or off changes what an end-to-end run does.

Each test looks at how many calls a real server on a real socket got, and at the rows that were stored.
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import pytest

from kaizen import Signature, best_of, cached, context, errors
from kaizen.app import App, build
from kaizen.core.context import Budget
from kaizen.core.record import Record, RecordQuery
from kaizen.core.request import Chunk, Reply, Request
from kaizen.settings import load_settings
from kaizen.testing.fault_server import Fault, FaultServer, slow, status

Make = Callable[..., App]
MESSAGE = "Someone stole my card"
PRICE = {"mine/large": {"input_usd_per_mtok": 10.0, "output_usd_per_mtok": 30.0}}


@pytest.fixture
def server() -> Iterator[FaultServer]:
    with FaultServer('{"team": "cards", "urgency": 5}') as running:
        yield running


@pytest.fixture
def app(server: FaultServer, tmp_path: Path) -> Callable[..., App]:
    """An App whose default model is served by ``server``; keywords are settings as ``configure`` takes them."""

    def make(wire: str = "openai", **overrides: Any) -> App:
        provider = {"kind": wire, "base_url": server.base_url, "api_key": "sk-very-secret"}
        settings = {
            "model": "mine/large",
            "home": str(tmp_path / "home"),
            "providers": {"mine": provider},
            "inference": {"backoff": 0.001, "backoff_max": 0.002},
        }
        return build(load_settings(tmp_path, {}, settings | overrides))

    return make


class Triage(Signature):
    """Name the team that owns a bank customer's message, and how urgent it is."""

    message: str = context.input("what the customer wrote")
    team: Literal["cards", "transfers", "accounts"] = context.output("the team that owns it")
    urgency: int = context.output("1 can wait .. 5 now", ge=1, le=5)


async def records(app: App, kind: str | None = None) -> list[Record]:
    return [one async for one in app.ledger.records(app.scope, RecordQuery()) if kind in (None, one.kind)]


@pytest.mark.parametrize("wire", ["openai", "anthropic"])
async def test_a_call_is_asked_once_and_kept_twice(app: Make, server: FaultServer, wire: str) -> None:
    here = app(wire)
    answer = await here.run(Triage, {"message": MESSAGE})
    assert (answer.outputs["team"], answer.outputs["urgency"]) == ("cards", 5)
    assert server.count == 1
    model, program = sorted(await records(here), key=lambda one: one.kind)
    assert (model.kind, program.kind) == ("model", "program")
    assert model.parent_id == program.id == answer.record.id
    assert (program.tokens_in, program.tokens_out) == (model.tokens_in, model.tokens_out) == (20, 7)
    assert program.model == "mine/large"
    assert not program.tokens_estimated
    await here.close()


async def test_retry_asks_again_and_counts(app: Make, server: FaultServer) -> None:
    here = app()
    server.queue(status(503), status(503))
    answer = await here.run(Triage, {"message": MESSAGE})
    assert server.count == 3
    assert answer.record.attempts == 3
    await here.close()


async def test_without_retry_the_first_failure_is_the_answer(app: Make, server: FaultServer) -> None:
    here = app(inference={"attempts": 1})
    server.queue(status(503))
    with pytest.raises(errors.Unavailable):
        await here.run(Triage, {"message": MESSAGE})
    assert server.count == 1
    program, model = sorted(await records(here), key=lambda one: one.kind, reverse=True)
    assert (program.status, program.error_code) == (model.status, model.error_code) == ("error", "unavailable")
    await here.close()


async def test_what_can_not_be_retried_is_one_call(app: Make, server: FaultServer) -> None:
    here = app()
    server.queue(status(401))
    with pytest.raises(errors.AuthFailed) as caught:
        await here.run(Triage, {"message": MESSAGE})
    assert server.count == 1
    assert "sk-very-secret" not in str(caught.value) + repr(caught.value.detail) + repr(here.settings)
    await here.close()


async def test_a_price_makes_a_cost_and_none_makes_none(app: Make) -> None:
    unpriced, priced = app(), app(models=PRICE)
    without = await unpriced.run(Triage, {"message": MESSAGE})
    assert without.record.cost_usd is None
    costed = await priced.run(Triage, {"message": MESSAGE})
    assert costed.record.cost_usd == pytest.approx((20 * 10 + 7 * 30) / 1e6)
    assert [one.cost_usd for one in await records(priced, "model")] == [None, costed.record.cost_usd]
    await unpriced.close()
    await priced.close()


async def test_a_repair_is_a_second_call_summed_into_the_record(app: Make, server: FaultServer) -> None:
    replies = iter(['{"team": "loans", "urgency": 9}', '{"team": "cards", "urgency": 5}'])
    server.reply = lambda _: next(replies)
    here = app()
    answer = await here.run(Triage, {"message": MESSAGE})
    assert server.count == 2
    assert (answer.record.model_calls, answer.record.tokens_in, answer.record.tokens_out) == (2, 40, 14)
    second = server.calls[1].json["messages"]
    assert "loans" in second[-2]["content"]
    assert "'team' = 'loans'" in second[-1]["content"]
    assert len(await records(here, "model")) == 2
    await here.close()


async def test_without_repairs_the_misfit_is_an_error_with_both(app: Make, server: FaultServer) -> None:
    server.reply = '{"team": "loans", "urgency": 9}'
    here = app(defaults={"repairs": 0})
    with pytest.raises(errors.OutputInvalid) as caught:
        await here.run(Triage, {"message": MESSAGE})
    assert server.count == 1
    assert "loans" in caught.value.reply
    assert "urgency" in caught.value.problem
    assert "'team' = 'loans'" in str(caught.value)
    assert [one.error for one in await records(here, "program")] == [caught.value.message]  # no data in what stays
    await here.close()


async def test_the_capability_table_decides_how_the_form_is_asked_for(app: Make, server: FaultServer) -> None:
    here = app()
    await here.run(Triage, {"message": MESSAGE})  # a server on this machine: it enforces schemas
    shown = app(models={"mine/large": {"output_mode": "json"}})
    await shown.run(Triage, {"message": MESSAGE})
    enforced, prompted = (call.json for call in server.calls)
    assert enforced["response_format"]["json_schema"]["schema"]["required"] == ["team", "urgency"]
    assert "response_format" not in prompted
    assert '"minimum":1' not in enforced["messages"][0]["content"]
    assert '"minimum":1' in prompted["messages"][0]["content"]
    await here.close()
    await shown.close()


async def test_defaults_reach_the_wire_and_a_programs_own_params_come_before(app: Make, server: FaultServer) -> None:
    here = app(defaults={"temperature": 0.5, "max_tokens": 77})
    await here.run(Triage, {"message": MESSAGE})
    await here.run(Triage.using(temperature=0.0), {"message": MESSAGE})
    assert [(call.json["temperature"], call.json["max_tokens"]) for call in server.calls] == [(0.5, 77), (0.0, 77)]
    first, second = [one.params for one in await records(here, "program")]
    assert first != second
    await here.close()


async def test_invalid_input_asks_nobody(app: Make, server: FaultServer) -> None:
    here = app()
    with pytest.raises(errors.InvalidInput, match="'message' is missing"):
        await here.run(Triage, {"mesage": MESSAGE})
    assert server.count == 0
    assert [(one.status, one.error_code) for one in await records(here)] == [("error", "invalid_input")]
    await here.close()


async def test_payloads_are_kept_apart_and_can_be_off(app: Make, tmp_path: Path) -> None:
    silent = app(ledger={"payloads": False})
    await silent.run(Triage, {"message": MESSAGE})
    assert _payloads(tmp_path) == 0
    keeping = app()
    answer = await keeping.run(Triage, {"message": MESSAGE})
    assert _payloads(tmp_path) == 5  # both inputs, both outputs, and what all requests share
    assert MESSAGE.encode() in (await keeping.ledger.payload(keeping.scope, answer.record.input_digest) or b"")
    assert await keeping.ledger.erase(keeping.scope) == 5
    assert await keeping.ledger.payload(keeping.scope, answer.record.input_digest) is None
    await silent.close()
    assert len(await records(keeping)) == 4
    await keeping.close()


@pytest.mark.parametrize(("level", "events"), [("info", ["program call finished"]), ("warning", []), ("off", [])])
def test_a_script_gets_the_log_it_asks_for(level: str, events: list[str]) -> None:
    script = f"""
from kaizen import configure, signature
from kaizen.testing.scripted import ScriptedProvider
model = ScriptedProvider(['{{"answer": "a private matter"}}'])
configure(providers={{"scripted": model}}, model="scripted/model", log={{"level": "{level}"}})
print(signature("question -> answer").execute(question="a private question").record.id)
"""
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    lines = [json.loads(line) for line in ran.stderr.splitlines()]
    assert [(line["event"], line["record"]) for line in lines] == [(event, ran.stdout.strip()) for event in events]
    assert "private" not in ran.stderr


def _payloads(tmp_path: Path) -> int:
    with sqlite3.connect(tmp_path / "home" / "ledger.db") as reader:
        count: int = reader.execute("SELECT count(*) FROM payloads").fetchone()[0]
    reader.close()
    return count


async def test_tenants_of_one_home_see_nothing_of_each_other(app: Make) -> None:
    one, other = app(tenant="one"), app(tenant="other")
    mine = await one.run(Triage, {"message": MESSAGE})
    assert await records(other) == []
    theirs = await other.run(Triage, {"message": MESSAGE})
    assert mine.record.input_digest != theirs.record.input_digest
    assert await other.ledger.payload(other.scope, mine.record.input_digest) is None
    assert {record.scope.tenant for record in await records(one)} == {"one"}
    await one.close()
    await other.close()


async def test_no_secret_and_no_content_reaches_the_records(app: Make, tmp_path: Path) -> None:
    here = app(ledger={"payloads": False})
    await here.run(Triage, {"message": MESSAGE})
    await here.close()
    kept = b"".join(path.read_bytes() for path in (tmp_path / "home").iterdir())
    assert b"sk-very-secret" not in kept
    assert MESSAGE.encode() not in kept


async def test_what_a_server_repeats_of_the_input_reaches_no_record(app: Make, server: FaultServer) -> None:
    server.queue(status(422, message=f"bad value, input: {MESSAGE}"))
    here = app()
    with pytest.raises(errors.ProviderError, match=MESSAGE):
        await here.run(Triage, {"message": MESSAGE})
    assert {one.error for one in await records(here)} == {"mine answered 422 for mine/large"}
    await here.close()


async def test_a_budget_stops_before_the_call_it_can_not_pay(app: Make, server: FaultServer) -> None:
    server.reply = "no json"
    here = app()
    with pytest.raises(errors.BudgetExceeded):
        await here.start(Triage, {"message": MESSAGE}, budget=Budget(calls=1))
    assert server.count == 1  # the repair was not paid for
    await here.close()


async def test_a_deadline_cuts_the_call_upstream(app: Make, server: FaultServer) -> None:
    server.queue(Fault("never"))
    here = app()
    with pytest.raises(errors.Timeout):
        await here.start(Triage, {"message": MESSAGE}, seconds=0.2)
    await server.until(lambda: server.cuts == 1)
    assert server.count == 1
    await here.close()


async def test_a_step_that_is_kept_is_asked_once(app: Make, server: FaultServer) -> None:
    kept = cached(Triage)
    for count in (1, 1):
        here = app()  # another App on the same home: what is kept outlives the process
        answer = await here.run(kept, {"message": MESSAGE})
        assert answer.outputs["urgency"] == 5
        assert server.count == count
        await here.close()
    here = app()
    tiers = [one.cache_tier for one in await records(here, "program") if one.ref.endswith("Triage:cached")]
    assert tiers[-1] == "step"
    await here.run(Triage, {"message": MESSAGE})
    assert server.count == 2
    await here.close()


class Sleepy:
    """A provider of one's own that knows nothing of deadlines."""

    def __init__(self) -> None:
        self.asked = self.ended = 0

    async def complete(self, request: Request, /) -> Reply:
        self.asked += 1
        try:
            await asyncio.sleep(20)
        finally:
            self.ended += 1
        return Reply(model=request.model, text="late")

    async def stream(self, request: Request, /) -> AsyncIterator[Chunk]:
        yield Chunk("", await self.complete(request))


async def test_a_deadline_holds_for_a_provider_of_ones_own_too(tmp_path: Path) -> None:
    sleepy = Sleepy()
    tree = {"model": "own/m", "home": str(tmp_path / "home"), "providers": {"own": sleepy}}
    here = build(load_settings(tmp_path, {}, tree))
    with pytest.raises(errors.Timeout):
        await here.start(Triage, {"message": MESSAGE}, seconds=0.2)
    assert (sleepy.asked, sleepy.ended) == (1, 1)
    assert {one.error_code for one in await records(here)} == {"timeout"}
    await here.close()


async def test_what_a_metric_says_of_each_try_is_on_record(app: Make, server: FaultServer) -> None:
    here = app()

    def urgent(inputs: Mapping[str, Any], answer: Any) -> float:
        return answer.urgency / 5 if inputs["message"] == MESSAGE else 0.0

    await here.run(best_of(Triage, n=2, metric=urgent), {"message": MESSAGE})
    assert server.count == 2
    kept = await records(here, "score")
    assert [one.value for one in kept] == [1.0, 1.0]
    assert {one.about for one in kept} == {
        one.id for one in await records(here, "program") if one.ref.endswith("Triage")
    }
    await here.close()


async def test_a_reader_who_leaves_ends_the_call_and_the_record_says_so(app: Make, server: FaultServer) -> None:
    server.queue(Fault("drip", delay=0.05))
    here = app()
    stream = here.stream(Triage, {"message": MESSAGE})
    first = await anext(stream)
    assert first
    await stream.aclose()
    await server.until(lambda: server.cuts == 1)
    assert {one.status for one in await records(here)} == {"cancelled"}
    await here.close()


async def test_a_streams_record_is_there_before_its_last_item(app: Make, server: FaultServer) -> None:
    server.queue(slow(0.01))
    here = app()
    async for item in here.stream(Triage, {"message": MESSAGE}):
        if isinstance(item, Triage):
            assert await here.ledger.record(here.scope, item.record.id) == item.record
            break
    else:
        pytest.fail("the stream ended without its answer")
    await here.close()


async def test_a_resumed_run_does_nothing_twice(app: Make, server: FaultServer) -> None:
    here = app()
    first = await here.start(Triage, {"message": MESSAGE}, run_id="run-1")
    again = await here.start(Triage, {"message": MESSAGE}, run_id="run-1")
    assert first == again
    assert server.count == 1
    with pytest.raises(errors.Conflict):
        await here.start(Triage, {"message": "something else"}, run_id="run-1")
    assert server.count == 1
    await here.close()
