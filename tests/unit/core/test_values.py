"""Messages, params, artifacts, budgets, tallies, queries: values that hold what they say."""

from __future__ import annotations

import dataclasses
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kaizen.core import slot
from kaizen.core.answer import Answer
from kaizen.core.artifact import Artifact
from kaizen.core.context import Budget, Context, Partial, Run, Tally
from kaizen.core.errors import BudgetExceeded, Timeout
from kaizen.core.message import Media, Message, Text
from kaizen.core.params import NOTHING, Demo, Params
from kaizen.core.record import Record, RecordQuery
from kaizen.core.request import Decoding, Reply, Usage
from kaizen.core.scope import LOCAL, Scope

some_params = st.builds(
    Params,
    instructions=st.none() | st.text(max_size=3),
    demos=st.just(()) | st.just((Demo({"q": "x"}, {"a": "y"}),)),
    model=st.none() | st.just("m/x"),
    temperature=st.none() | st.floats(0, 2),
    max_tokens=st.none() | st.integers(1, 9),
    seed=st.none() | st.integers(0, 3),
    stop=st.just(()) | st.just(("END",)),
    repairs=st.none() | st.integers(0, 2),
)


@given(some_params, some_params)
def test_params_over_others_lose_nothing_and_add_nothing(one: Params, other: Params) -> None:
    merged = one.over(other)
    for field in dataclasses.fields(Params):
        mine, theirs = getattr(one, field.name), getattr(other, field.name)
        assert getattr(merged, field.name) == (theirs if mine in (None, ()) else mine)


@given(some_params, some_params, some_params)
def test_params_over_is_associative_and_nothing_is_neutral(a: Params, b: Params, c: Params) -> None:
    assert a.over(b).over(c) == a.over(b.over(c))
    assert a.over(NOTHING) == a == NOTHING.over(a)


@given(some_params, some_params)
def test_params_have_one_version_a_value(one: Params, other: Params) -> None:
    assert (one.version == other.version) == (one == other)


def test_zero_counts_as_said() -> None:
    assert Params(temperature=0.0, seed=0, repairs=0).over(Params(temperature=1.0, seed=4, repairs=2)) == Params(
        temperature=0.0, seed=0, repairs=0
    )


def test_params_give_the_decoding() -> None:
    decoding = Params(temperature=0.5, top_p=0.9, max_tokens=7, seed=1, stop=("x",)).decoding
    assert decoding == Decoding(temperature=0.5, top_p=0.9, max_tokens=7, seed=1, stop=("x",))


def test_a_message_joins_its_text_and_leaves_the_rest() -> None:
    image = Media("image", "image/png", data="AAAA")
    assert Message("user", (Text("a"), image, Text("b"))).text == "ab"
    assert Message.of("system", "x") == Message("system", (Text("x"),))


def test_an_artifact_is_named_by_its_contents() -> None:
    one, twin, other = (Artifact("params", "m.T", body) for body in (b"1", b"1", b"2"))
    assert one.version == twin.version != other.version
    assert one.ref == f"params/m.T@{one.version}"


def test_scopes_are_told_apart() -> None:
    assert str(LOCAL) == "local/dev"
    assert Scope("a", "b") != Scope("b", "a")


@pytest.mark.parametrize("limits", [{"calls": 1}, {"tokens": 10}, {"usd": 0.5}])
def test_a_spent_budget_allows_no_further_call(limits: dict[str, Any]) -> None:
    budget = Budget(**limits)
    budget.take_call()
    budget.spend(Reply(model="m", usage=Usage(tokens_in=6, tokens_out=4), cost_usd=0.5))
    (name,) = limits
    with pytest.raises(BudgetExceeded, match=name):
        budget.take_call()
    assert budget.calls == 1


def test_an_unknown_price_spends_tokens_and_no_dollars() -> None:
    budget = Budget(usd=1.0)
    budget.spend(Reply(model="m", usage=Usage(tokens_in=6, tokens_out=4)))
    assert (budget.usd, budget.tokens) == (0.0, 10)


def test_a_tally_knows_no_cost_where_one_price_is_unknown() -> None:
    tally = Tally()
    assert tally.cost is None
    tally.add_reply(Reply(model="a", cost_usd=0.25, first_token_ms=3.0))
    assert (tally.cost, tally.first_token_ms) == (0.25, 3.0)
    tally.add_reply(Reply(model="b", first_token_ms=9.0))
    assert (tally.cost, tally.first_token_ms, tally.model_calls, tally.model) == (None, 3.0, 2, "b")


def test_a_tally_counts_calls_that_failed_below_it() -> None:
    below, above = Tally(), Tally()
    below.add_failure(attempts=3)
    above.add(below)
    assert (above.model_calls, above.attempts, above.cost, above.model) == (1, 3, None, None)
    answered = Tally()
    answered.add_reply(Reply(model="a", cost_usd=0.25, usage=Usage(1, 2, 1, estimated=True)))
    above.add(answered)
    assert (above.model_calls, above.attempts, above.cost, above.model) == (2, 4, 0.25, "a")
    assert (above.tokens_in, above.tokens_out, above.tokens_cached, above.estimated) == (1, 2, 1, True)
    above.add(Tally())
    assert (above.model_calls, above.cost) == (2, 0.25)


RECORD = Record(id="5", kind="program", ref="m.T", run_id="r", scope=LOCAL, started_at=10.0, status="ok", model="m")


@pytest.mark.parametrize(
    ("query", "fits"),
    [
        ({}, True),
        ({"kind": "program", "ref": "m.T", "run_id": "r", "status": "ok", "model": "m"}, True),
        ({"kind": "model"}, False),
        ({"ref": "m.U"}, False),
        ({"params": "x"}, False),
        ({"about": "x"}, False),
        ({"root_only": True}, True),
        ({"since": 10.0, "until": 10.1}, True),
        ({"since": 10.1}, False),
        ({"until": 10.0}, False),
        ({"after": "4"}, True),
        ({"after": "5"}, False),
    ],
)
def test_a_query_fits_when_all_its_conditions_do(query: dict[str, Any], fits: bool) -> None:
    assert RecordQuery(**query).matches(RECORD) is fits


def test_only_roots_have_no_parent() -> None:
    assert not RecordQuery(root_only=True).matches(dataclasses.replace(RECORD, parent_id="4"))


def test_answers_are_their_outputs() -> None:
    one = Answer.of({"a": 1}, inputs={"q": "x"})
    assert (one.a, one.q, one.outputs) == (1, "x", {"a": 1})  # type: ignore[attr-defined]
    assert one == Answer.of({"a": 1}) != Answer.of({"a": 2})
    assert repr(one) == "Answer(a=1)"
    with pytest.raises(TypeError):
        hash(one)
    with pytest.raises(AttributeError, match="no record yet"):
        _ = one.record
    with pytest.raises(AttributeError, match="no outputs yet"):
        _ = Answer().outputs
    assert one.stamped(RECORD).record is RECORD
    assert one.stamped(RECORD) == one


def a_context(**run: Any) -> Context:
    return Context(Run(runtime=None, scope=LOCAL, run_id="r", **run))  # type: ignore[arg-type]


def test_steps_are_paths_in_program_order() -> None:
    ctx = a_context()
    branch = ctx.fork()
    inner = branch.fork()
    assert [ctx.step, branch.step, inner.step, ctx.fork().step, branch.fork().step] == ["", "0", "0.0", "1", "0.1"]


def test_a_branch_has_its_own_reader_and_overrides() -> None:
    seen: list[Partial] = []
    ctx = a_context(overrides={"m.T": Params(temperature=0.1, seed=1), "m.U": Params(seed=2)})
    assert not ctx.streaming
    ctx.emit("m.T", {"a": 1})
    branch = ctx.fork(emit=seen.append, overrides={"m.T": Params(seed=9)})
    assert branch.streaming
    branch.emit("m.T", {"a": 2})
    assert seen == [Partial("m.T", "0", {"a": 2})]
    assert branch.run.overrides == {"m.T": Params(temperature=0.1, seed=9), "m.U": Params(seed=2)}
    assert a_context().fork(overrides={"m.T": Params(seed=3)}).run.overrides == {"m.T": Params(seed=3)}


def test_a_request_carries_scope_and_deadline() -> None:
    ctx = a_context(deadline=time.monotonic() + 60, budget=Budget(calls=1))
    request = ctx.request("m/x", (Message.of("user", "hi"),))
    assert (request.scope, request.deadline) == (LOCAL, ctx.run.deadline)
    assert ctx.budget is not None
    ctx.check_deadline()
    with pytest.raises(Timeout):
        a_context(deadline=time.monotonic() - 1).check_deadline()


def test_the_slot_names_the_app() -> None:
    module, _, name = slot.CURRENT.partition(":")
    assert (module, name) == ("kaizen.app", "current")
