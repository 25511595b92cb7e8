"""Every call is on record before its answer leaves; a resumed run does nothing twice; limits hold."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from functools import reduce
from typing import Any

import pytest

from kaizen import Budget, Context, Params, context, program, signature
from kaizen.core.context import EVERY, Run
from kaizen.core.errors import (
    BudgetExceeded,
    Conflict,
    Denied,
    InvalidInput,
    OutputInvalid,
    RateLimited,
    StoreError,
    Timeout,
)
from kaizen.core.ids import new_id
from kaizen.core.message import Message
from kaizen.core.protocols import Allow, Ask, Decision, Deny, Need, Suspended
from kaizen.core.record import Record
from kaizen.core.request import Chunk, Reply, Request, Usage
from kaizen.core.scope import Scope
from kaizen.programs import runner
from tests.unit.programs.house import House, Open, SlowStore
from tests.unit.programs.test_signature import Summary, Triage

NAME = __name__
GOOD = '{"team": "cards", "urgency": 2}'
BAD = '{"team": "cards", "urgency": 9}'
Anything = signature("given: Any -> out", name="Anything")
Short = signature("text -> summary", name="Short")


def reply(text: str, *, cost: float | None = 0.25, tokens: int = 10) -> Reply:
    usage = Usage(tokens_in=tokens, tokens_out=2, tokens_cached=3)
    return Reply(model="test/served", text=text, usage=usage, cost_usd=cost, attempts=2)


def by_step(records: list[Record]) -> list[tuple[str, str, str]]:
    return sorted((record.step, record.kind, record.ref) for record in records)


# -- records ----------------------------------------------------------------------------------------


async def test_one_record_a_program_call_and_one_a_model_call(house: Open) -> None:
    here = house([reply(BAD), reply(GOOD)])
    before = time.time()
    answer = await Triage(message="x")
    program, first, second = sorted(await here.records(), key=lambda record: record.step)
    assert program == answer.record
    assert (program.kind, program.ref, program.step, program.parent_id) == ("program", Triage.spec.name, "0", None)
    assert (program.status, program.model, program.contract) == ("ok", "test/served", Triage.spec.contract)
    assert (program.tokens_in, program.tokens_out, program.tokens_cached) == (20, 4, 6)
    assert (program.cost_usd, program.attempts, program.model_calls) == (0.5, 4, 2)
    assert (program.scope, program.principal) == (here.app.scope, "")
    assert before <= program.started_at <= time.time()
    assert 0 < program.latency_ms < 10_000
    for record, step in ((first, "0.0"), (second, "0.1")):
        assert (record.kind, record.ref, record.model, record.step) == ("model", "test/model", "test/served", step)
        assert (record.parent_id, record.run_id) == (program.id, program.run_id)
        assert (record.tokens_in, record.tokens_out, record.tokens_cached, record.cost_usd) == (10, 2, 3, 0.25)
        assert (record.attempts, record.model_calls, record.params) == (2, 1, program.params)
    assert first.latency_ms + second.latency_ms <= program.latency_ms


async def test_records_point_to_their_contents(house: Open) -> None:
    here = house([GOOD])
    await Triage(message="x")
    program, model = sorted(await here.records(), key=lambda record: record.step)
    assert await here.kept(program.input_digest) == b'{"message":"x"}'
    assert await here.kept(program.output_digest) == b'{"team":"cards","urgency":2}'
    assert b"message: x" in (await here.kept(model.input_digest) or b"")
    assert b"cards" in (await here.kept(model.output_digest) or b"")
    assert b"scope" not in (await here.kept(model.input_digest) or b"")


async def test_an_unknown_price_makes_the_sum_unknown(house: Open) -> None:
    house([reply(BAD), reply(GOOD, cost=None)])
    record = (await Triage(message="x")).record
    assert (record.cost_usd, record.tokens_in) == (None, 20)


async def test_estimates_are_marked(house: Open) -> None:
    house([GOOD])
    assert (await Triage(message="x")).record.tokens_estimated


async def test_a_provider_error_is_on_record_with_its_attempts(house: Open) -> None:
    error = RateLimited("slow down", provider="test")
    error.detail = {**error.detail, "attempts": 3}
    here = house([error])

    @program
    async def outer(message: str) -> Triage:
        return await Triage(message=message)

    with pytest.raises(RateLimited):
        await outer(message="x")
    for record in await here.records():
        assert (record.status, record.error_code, record.error) == ("error", "rate_limited", "slow down")
        assert (record.attempts, record.model_calls, record.cost_usd) == (3, 1, None)


async def test_a_foreign_error_is_on_record_by_its_type_alone(house: Open) -> None:
    here = house()

    @program
    async def fails(message: str) -> str:
        raise ValueError(f"no way with {message}")

    with pytest.raises(ValueError, match="s3cret"):
        await fails(message="s3cret")
    (record,) = await here.records()
    assert (record.status, record.error_code, record.error) == ("error", "exception", "ValueError")
    assert "s3cret" not in repr(record)


async def test_nested_calls_are_a_tree_that_sums_upward(house: Open) -> None:
    here = house([reply(GOOD), reply('{"summary": "s"}')])

    @program
    async def both(message: str) -> str:
        await Triage(message=message)
        return (await Short(text=message)).summary  # type: ignore[attr-defined]

    assert await both(message="x") == "s"
    (tree,) = await here.app.ledger.tree(here.app.scope, (await here.records())[0].run_id)
    assert tree.record.ref == both.spec.name
    assert [node.record.ref for node in tree.children] == [Triage.spec.name, Short.spec.name]
    assert (tree.record.tokens_in, tree.record.cost_usd, tree.record.model_calls) == (20, 0.5, 2)
    assert len({record.run_id for record in await here.records()}) == 1


async def test_steps_are_numbered_in_program_order(house: Open) -> None:
    delays = {"a": 0.02, "b": 0.0, "c": 0.01}

    @program
    async def wait(x: str) -> str:
        await asyncio.sleep(delays[x])
        return x

    @program
    async def side_by_side() -> list[str]:
        gathered = await asyncio.gather(wait(x="a"), wait(x="b"))
        async with asyncio.TaskGroup() as group:
            task = group.create_task(twice("c"))
            other = group.create_task(twice("b"))
        return [*gathered, task.result(), other.result()]

    async def twice(x: str) -> str:
        return await wait(x=x) + await wait(x="a")

    here = house()
    assert await side_by_side() == ["a", "b", "ca", "ba"]
    kept = {record.step: await here.kept(record.input_digest) for record in await here.records()}
    assert {step: (data or b"")[6:-2].decode() for step, data in kept.items() if step != "0"} == {
        "0.0": "a",
        "0.1": "b",
        "0.2.0": "c",
        "0.2.1": "a",
        "0.3.0": "b",
        "0.3.1": "a",
    }


async def test_records_are_kept_before_the_answer_leaves(house: Open) -> None:
    store = SlowStore()
    store.gate = asyncio.Event()
    here = house([GOOD], store=store)
    task = asyncio.ensure_future(Triage(message="x"))
    await asyncio.sleep(0.02)
    assert here.calls == 1
    assert not task.done()
    store.gate.set()
    answer = await task
    # a leaf's model call and its own record are one transaction
    assert [[record.kind for record in batch] for batch in store.batches] == [["model", "program"]]
    assert store.batches[0][1].id == answer.record.id


async def test_a_paid_call_is_kept_while_its_program_goes_on(house: Open) -> None:
    store = SlowStore()
    here = house([reply('{"summary": "s"}')], store=store)

    @program
    async def slow(ctx: Context, text: str) -> str:
        await ctx.complete(ctx.request("m/x", (Message.of("user", text),)))
        await asyncio.sleep(0.02)
        assert [[record.kind for record in batch] for batch in store.batches] == [["model"]]
        return "done"

    assert await slow(text="x") == "done"
    assert here.calls == 1
    assert not here.app._runner._pending


async def test_paid_calls_are_kept_in_order_while_the_store_is_slow(house: Open) -> None:
    store = SlowStore()
    store.gate = asyncio.Event()
    here = house([reply("a"), reply("b"), reply("c")], store=store)

    @program
    async def several(ctx: Context) -> str:
        await asyncio.gather(ctx.complete(ctx.request("m/1", ())), ctx.complete(ctx.request("m/2", ())))
        await asyncio.sleep(0)
        await ctx.complete(ctx.request("m/3", ()))
        await asyncio.sleep(0)
        asyncio.get_running_loop().call_later(0.01, store.gate.set)
        return "done"

    assert await several() == "done"
    assert {record.ref for record in await here.records(kind="model")} == {"m/1", "m/2", "m/3"}
    assert not here.app._runner._pending


async def test_an_error_knows_the_record_it_ended_in(house: Open) -> None:
    here = house()
    with pytest.raises(InvalidInput) as caught:
        await Triage()  # type: ignore[call-arg]
    assert caught.value.record == (await here.records())[0]
    assert InvalidInput("never ran").record is None


async def test_cancelling_a_program_does_not_lose_the_calls_it_paid(house: Open) -> None:
    store = SlowStore()
    store.gate = asyncio.Event()
    house([reply(GOOD)], store=store)

    @program
    async def slow(ctx: Context) -> str:
        await ctx.complete(ctx.request("m/x", ()))
        await asyncio.sleep(30)
        return "never"

    task = asyncio.ensure_future(slow())
    await asyncio.sleep(0.02)
    task.cancel()
    await asyncio.sleep(0.02)
    store.gate.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert sorted(record.kind for batch in store.batches for record in batch) == ["model", "program"]


async def test_a_call_outside_any_program_is_kept_too(house: Open) -> None:
    here = house([reply(GOOD)] * 3)
    run = Run(runtime=here.app._runner, scope=here.app.scope, run_id=new_id())
    ctx = Context(run)
    other = Context(Run(runtime=here.app._runner, scope=Scope("other"), run_id=new_id()))
    await asyncio.gather(ctx.complete(ctx.request("m/x", ())), other.complete(other.request("m/x", ())))
    assert by_step(await here.records()) == [("0", "model", "m/x")]
    _ = [chunk async for chunk in ctx.stream(ctx.request("m/x", ()))]
    assert by_step(await here.records()) == [("0", "model", "m/x"), ("1", "model", "m/x")]
    assert not here.app._runner._pending


async def test_a_store_that_fails_fails_the_call(house: Open) -> None:
    class Failing(SlowStore):
        async def append(self, *args: Any) -> None:
            raise StoreError("full")

    house([GOOD], store=Failing())
    with pytest.raises(StoreError):
        await Triage(message="x")


# -- params -----------------------------------------------------------------------------------------


async def test_params_come_from_the_nearest_place(house: Open) -> None:
    here = house([GOOD] * 4)
    own = Triage.using(temperature=0.1, seed=1, max_tokens=11)
    every = Params(seed=3, model="every/m", max_tokens=33)
    named = Params(seed=2, model="named/m")
    for overrides in (None, {EVERY: every}, {Triage.spec.name: named}, {Triage.spec.name: named, EVERY: every}):
        await here.app.start(own, {"message": "x"}, overrides=overrides)
    asked = [
        (request.model, request.decoding.temperature, request.decoding.seed, request.decoding.max_tokens)
        for request in here.model.requests
    ]
    assert asked == [
        ("test/model", 0.1, 1, 11),
        ("every/m", 0.1, 3, 33),
        ("named/m", 0.1, 2, 11),
        ("named/m", 0.1, 2, 33),
    ]
    versions = [record.params for record in await here.records(kind="program")]
    assert len(set(versions)) == 4


async def test_params_for_another_contract_are_refused_for_every_program(house: Open) -> None:
    here = house([GOOD, GOOD])
    params = Params(contract=Triage.spec.contract)
    for overrides in ({EVERY: params}, {Triage.spec.name: params, Summary.spec.name: params}):
        await here.app.start(Triage, {"message": "x"}, overrides=overrides)
        with pytest.raises(Conflict, match="another contract"):
            await here.app.start(Summary, {"text": "x"}, overrides=overrides)
    assert here.calls == 2


async def test_equal_params_have_one_version_across_runs(house: Open) -> None:
    here = house([GOOD] * 2)
    for _ in range(2):
        await here.app.start(Triage, {"message": "x"}, overrides={EVERY: Params(seed=1)})
    assert len({record.params for record in await here.records(kind="program")}) == 1


async def test_resolved_params_are_kept_for_few_only(house: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "_PARAMS_KEPT", 2)
    here = house([GOOD] * 5)
    for seed in range(5):
        await here.app.start(Triage, {"message": "x"}, overrides={EVERY: Params(seed=seed)})
        assert len(here.app._runner._resolved) <= 2
    assert [request.decoding.seed for request in here.model.requests] == [0, 1, 2, 3, 4]


# -- replay -----------------------------------------------------------------------------------------


@program
async def steps(message: str, stop: bool = False) -> str:
    team = (await Triage(message=message)).team
    if FAIL[0]:
        raise RuntimeError("pulled the plug")
    return team + (await Short(text=message)).summary  # type: ignore[attr-defined]


FAIL = [False]


@pytest.fixture
def unplugged() -> Any:
    FAIL[0] = True
    yield
    FAIL[0] = False


async def test_a_resumed_run_does_no_step_twice(house: Open, unplugged: None) -> None:
    here = house([GOOD, '{"summary": "!"}'])
    run_id = new_id()
    with pytest.raises(RuntimeError):
        await here.app.start(steps, {"message": "x"}, run_id=run_id)
    FAIL[0] = False
    answer = await here.app.start(steps, {"message": "x"}, run_id=run_id)
    assert not isinstance(answer, Suspended)
    assert answer.outputs == {"result": "cards!"}
    assert here.calls == 2
    again = await here.app.start(steps, {"message": "x"}, run_id=run_id)
    assert not isinstance(again, Suspended)
    assert (again.outputs, again.record, here.calls) == (answer.outputs, answer.record, 2)


async def test_a_resumed_step_with_other_inputs_is_a_conflict(house: Open, unplugged: None) -> None:
    here = house([GOOD])
    run_id = new_id()
    with pytest.raises(RuntimeError):
        await here.app.start(steps, {"message": "x"}, run_id=run_id)
    with pytest.raises(Conflict, match=r"step 0\.0 of run"):
        await here.app.start(steps, {"message": "y"}, run_id=run_id)
    assert here.calls == 1


async def test_a_resumed_step_of_another_program_or_contract_is_a_conflict(house: Open) -> None:
    here = house([GOOD])
    run_id = new_id()
    await here.app.start(Triage, {"message": "x"}, run_id=run_id)
    with pytest.raises(Conflict):
        await here.app.start(signature("message -> team"), {"message": "x"}, run_id=run_id)
    twin = type("Triage", (Triage,), {"__module__": Triage.__module__, "__qualname__": "Triage"})
    assert twin.spec.name == Triage.spec.name
    changed = type(
        "Triage",
        (Triage,),
        {
            "__module__": Triage.__module__,
            "__qualname__": "Triage",
            "__annotations__": {"more": str},
            "more": context.output(),
        },
    )
    with pytest.raises(Conflict, match="another contract"):
        await here.app.start(changed, {"message": "x"}, run_id=run_id)


@program
async def asks(ctx: Context, question: str) -> str:
    """A program that asks a model itself, in a stream if somebody reads one."""
    request = ctx.request("test/model", (Message.of("user", question + NEWS[0]),))
    if not ctx.streaming:
        reply = await ctx.complete(request)
    else:
        async for chunk in ctx.stream(request):
            reply = chunk.reply or Reply(model="", text=chunk.text)
    if FAIL[0]:
        raise RuntimeError("pulled the plug")
    return f"{reply.text} {reply.tier}"


NEWS = [""]


@pytest.mark.parametrize("read", [None, lambda _: None])
async def test_a_resumed_model_call_is_not_paid_twice(house: Open, unplugged: None, read: Any) -> None:
    here = house(["first", "second"])
    with pytest.raises(RuntimeError):
        await here.app.start(asks, {"question": "x"}, run_id="run-1", emit=read)
    FAIL[0] = False
    answer = await here.app.start(asks, {"question": "x"}, run_id="run-1", emit=read)
    assert not isinstance(answer, Suspended)
    assert (answer.outputs, here.calls) == ({"result": "first step"}, 1)
    record = answer.record
    assert (record.model, record.cache_tier, record.model_calls, record.cost_usd) == ("test/model", "step", 0, 0.0)
    assert len(await here.records(kind="model")) == 1


async def test_a_resumed_model_call_with_another_prompt_is_made(
    house: Open, unplugged: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = house(["first", "second"])
    with pytest.raises(RuntimeError):
        await here.app.start(asks, {"question": "x"}, run_id="run-1")
    FAIL[0] = False
    monkeypatch.setitem(globals(), "NEWS", [" now"])
    answer = await here.app.start(asks, {"question": "x"}, run_id="run-1")
    assert not isinstance(answer, Suspended)
    assert (answer.outputs, here.calls) == ({"result": "second model"}, 2)


async def test_a_reply_that_did_not_fit_is_not_taken_again(house: Open) -> None:
    here = house(["no", "never", GOOD])
    with pytest.raises(OutputInvalid):
        await here.app.start(Triage, {"message": "x"}, run_id="run-1")
    answer = await here.app.start(Triage, {"message": "x"}, run_id="run-1")
    assert not isinstance(answer, Suspended)
    assert (answer.outputs["team"], here.calls) == ("cards", 3)


async def test_a_step_whose_contents_are_erased_is_done_again(house: Open) -> None:
    here = house([GOOD, GOOD])
    run_id = new_id()
    await here.app.start(Triage, {"message": "x"}, run_id=run_id)
    await here.app.ledger.erase(here.app.scope)
    await here.app.start(Triage, {"message": "x"}, run_id=run_id)
    assert here.calls == 2


# -- policy -----------------------------------------------------------------------------------------


class Rule:
    """Decides by program name; notes what it was asked."""

    def __init__(self, **by_name: Decision) -> None:
        self.by_name, self.asked = by_name, []  # type: ignore[var-annotated]

    async def decide(self, ctx: Context, action: str, target: str, need: Need | None = None, /) -> Decision:
        self.asked.append((ctx.run.principal, action, target, ctx.step))
        return self.by_name.get(target.rsplit(".", 1)[-1], Allow())


async def test_what_is_denied_is_not_done(house: Open) -> None:
    policy = Rule(Triage=Deny("not on Sundays"))
    here = house(policy=policy)
    with pytest.raises(Denied, match="not on Sundays"):
        await here.app.start(Triage, {"message": "x"}, principal="ann")
    assert (here.calls, policy.asked) == (0, [("ann", "run", Triage.spec.name, "0")])
    (record,) = await here.records()
    assert (record.error_code, record.principal, record.model_calls) == ("denied", "ann", 0)


async def test_inputs_are_checked_before_anybody_is_asked(house: Open) -> None:
    policy = Rule()
    house(policy=policy)
    with pytest.raises(InvalidInput):
        await Triage()  # type: ignore[call-arg]
    assert policy.asked == []


async def test_equal_calls_side_by_side_are_two_calls(house: Open) -> None:
    here = house([GOOD, GOOD])
    one, other = await asyncio.gather(Triage(message="x"), Triage(message="x"))
    assert one == other
    assert one.record != other.record
    assert here.calls == 2


async def test_a_resumed_model_call_is_known_again_though_policy_had_its_bounds_set(
    house: Open, unplugged: None
) -> None:
    here = house(["first", "second"], policy=Rule())
    with pytest.raises(RuntimeError):
        await here.app.start(asks, {"question": "x"}, run_id="run-1")
    FAIL[0] = False
    answer = await here.app.start(asks, {"question": "x"}, run_id="run-1")
    assert not isinstance(answer, Suspended)
    assert (answer.outputs, here.calls) == ({"result": "first step"}, 1)


class Book:
    """A policy that reserves, and notes what each reservation was settled with."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, Need | None]] = []
        self.settled: list[Need] = []

    async def decide(self, ctx: Context, action: str, target: str, need: Need | None = None, /) -> Decision:
        self.asked.append((action, target, need))
        return Allow(self) if action == "infer" else Allow()

    async def settle(self, used: Need, /) -> None:
        self.settled.append(used)


async def test_a_model_call_is_reserved_with_its_upper_bound_and_settled_with_what_it_used(house: Open) -> None:
    book = Book()
    here = house([reply(GOOD)], policy=book)
    await Triage(message="x" * 1000)
    (_, _, nothing), (action, target, need) = book.asked
    assert (nothing, action, target) == (None, "infer", "test/model")
    assert need is not None
    assert need.tokens > 1000 + 4096  # every byte, and what may be written
    assert need.usd is None  # nobody knows the price of test/model
    assert here.model.requests[0].decoding.max_tokens == 4096
    assert book.settled == [Need(1, 12, 0.25)]


async def test_a_failure_gives_back_what_was_reserved_unless_nobody_knows(house: Open) -> None:
    for error, used in ((RateLimited("no"), Need(1)), (Timeout("late"), None)):
        book = Book()
        house([error], policy=book)
        with pytest.raises(type(error)):
            await Triage(message="x")
        assert book.settled == [used or book.asked[-1][2]]


class Endless:
    """A model that never answers."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()

    async def complete(self, request: Request, /) -> Reply:
        self.asked.set()
        return await asyncio.Future()

    def stream(self, request: Request, /) -> AsyncIterator[Chunk]:
        raise NotImplementedError


async def test_a_call_that_is_cancelled_is_settled_in_full(house: Open) -> None:
    book = Book()

    here = house(policy=book, provider=Endless())
    task = asyncio.ensure_future(here.app.run(Triage, {"message": "x"}))
    await asyncio.wait_for(here.model.asked.wait(), 5)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert book.settled == [book.asked[-1][2]]


async def test_a_stream_is_settled_once_with_what_it_used(house: Open) -> None:
    book = Book()
    house([reply(GOOD)], policy=book)
    async for _ in Triage.stream(message="x"):
        pass
    assert book.settled == [Need(1, 12, 0.25)]


async def test_a_refused_model_call_is_on_record_and_no_model_was_asked(house: Open) -> None:
    here = house([GOOD], policy=Rule(**{"test/model": Deny("not this one")}))
    with pytest.raises(Denied, match="not this one"):
        await Triage(message="x")
    assert here.calls == 0
    kept = {record.kind: record for record in await here.records()}
    assert (kept["model"].error_code, kept["model"].attempts, kept["program"].error_code) == ("denied", 0, "denied")


async def test_a_call_without_budget_left_gives_its_reservation_back(house: Open) -> None:
    book = Book()
    here = house([GOOD], policy=book)
    with pytest.raises(BudgetExceeded):
        await here.app.start(Triage, {"message": "x"}, budget=Budget(calls=0))
    assert book.settled == [Need(1)]


@program
async def careful(message: str) -> str:
    """Calls inside an ``except Exception`` that must not take a wait for a failure."""
    await Short(text=message)
    try:
        return (await Triage(message=message)).team
    except Exception:  # noqa: BLE001 - what users write
        return "failed"


@program
async def grouped(message: str) -> str:
    async with asyncio.TaskGroup() as group:
        one = group.create_task(careful(message=message))  # type: ignore[arg-type]
        group.create_task(asyncio.sleep(0))
    return one.result()


@program
async def collected(message: str) -> str:
    """Takes whatever comes of its calls, and would go on."""
    found = await asyncio.gather(careful(message=message), return_exceptions=True)
    return str(found[0])


@pytest.mark.parametrize(
    ("outer", "step"),
    [(careful, "0.1"), (grouped, "0.0.1"), (collected, "0.0.1")],
    ids=["plain", "in a group", "collected"],
)
async def test_a_run_that_has_to_ask_suspends_and_goes_on(house: Open, outer: Any, step: str) -> None:
    policy = Rule(Triage=Ask("sure?"))
    here = house(['{"summary": "s"}', GOOD], policy=policy)
    wait = await here.app.start(outer, {"message": "x"})
    assert isinstance(wait, Suspended)
    assert (wait.step, wait.question) == (step, "sure?")
    assert here.calls == 1
    records = await here.records(kind="program")
    assert [record.status for record in sorted(records, key=lambda one: one.step)][-1] in ("suspended", "ok")
    assert {record.status for record in records if record.ref != Short.spec.name} == {"suspended"}
    assert {record.error for record in records if record.status == "suspended"} == {"sure?"}
    policy.by_name.clear()
    answer = await here.app.start(outer, {"message": "x"}, run_id=wait.run_id)
    assert not isinstance(answer, Suspended)
    assert answer.outputs == {"result": "cards"}
    assert here.calls == 2


async def test_a_group_that_also_failed_is_a_failure(house: Open) -> None:
    @program
    async def mixed(message: str) -> str:
        async def fail() -> None:
            raise ValueError

        async with asyncio.TaskGroup() as group:
            group.create_task(fail())
            group.create_task(_waiting(message))
        return ""

    async def _waiting(message: str) -> None:
        await Triage(message=message)

    here = house(policy=Rule(Triage=Ask("sure?")))
    with pytest.raises(BaseExceptionGroup):
        await here.app.start(mixed, {"message": "x"})


async def test_whoever_cannot_wait_is_told_which_run_waits(house: Open) -> None:
    here = house([GOOD], policy=Rule(Triage=Ask("sure?")))
    with pytest.raises(Denied, match="sure") as caught:
        await Triage(message="x")
    (record,) = await here.records()
    assert caught.value.detail["run_id"] == record.run_id


# -- limits -----------------------------------------------------------------------------------------


async def spent(here: House, budget: Budget) -> int:
    with pytest.raises(BudgetExceeded):
        await here.app.start(Triage, {"message": "x"}, budget=budget)
    return here.calls


async def test_a_budget_bounds_the_repairs_too(house: Open) -> None:
    assert await spent(house([reply(BAD)] * 9, repairs=5), Budget(calls=2)) == 2
    assert await spent(house([reply(BAD)] * 9, repairs=5), Budget(tokens=30)) == 3
    assert await spent(house([reply(BAD)] * 9, repairs=5), Budget(usd=0.25)) == 1


async def test_nothing_is_asked_after_the_deadline(house: Open) -> None:
    here = house([GOOD])
    with pytest.raises(Timeout):
        await here.app.start(Triage, {"message": "x"}, seconds=-1)
    assert here.calls == 0
    await here.app.start(Triage, {"message": "x"}, seconds=60)
    assert here.model.requests[0].deadline is not None


@pytest.mark.parametrize("value", ["\ud800", object(), reduce(lambda inner, _: [inner], range(1000), list[Any]())])
async def test_an_input_that_no_record_can_keep_is_invalid(house: Open, value: Any) -> None:
    here = house([])
    with pytest.raises(InvalidInput, match="can't be written as JSON"):
        await Anything(given=value)
    (record,) = await here.records()
    assert (record.status, record.error_code, record.input_digest) == ("error", "invalid_input", None)
