"""Routing and the cascade, end to end: two providers on real sockets, whose calls are counted, and the rows kept."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import pytest

from kaizen import Signature, cascade, context, errors
from kaizen.app import App, build
from kaizen.core.context import Context, Run
from kaizen.core.ids import new_id
from kaizen.core.message import Message
from kaizen.core.record import Record, RecordQuery
from kaizen.core.request import Options, Reply, Request, Stage
from kaizen.inference.route.choice import replay
from kaizen.inference.route.rows import train_file
from kaizen.providers.embed.wordllama import WordLlamaEmbedder
from kaizen.settings import load_settings
from kaizen.testing.fault_server import Fault, FaultServer, slow

Make = Callable[..., App]
TEAMS = '{"team": "cards"}'
PRICES = {
    "cheap/small": {"input_usd_per_mtok": 1.0, "output_usd_per_mtok": 2.0, "output_mode": "schema"},
    "dear/large": {"input_usd_per_mtok": 10.0, "output_usd_per_mtok": 30.0, "output_mode": "schema"},
}
# what a fault server counts for every answer: 20 tokens in, 5 of them cached, 7 out
CHEAP, DEAR = 20 * 1e-6 + 7 * 2e-6, 20 * 10e-6 + 7 * 30e-6


class Triage(Signature):
    """Name the team that owns a bank customer's message."""

    message: str = context.input("what the customer wrote")
    team: Literal["cards", "transfers", "accounts"] = context.output("the team that owns it")


@pytest.fixture
def cheap() -> Iterator[FaultServer]:
    with FaultServer(TEAMS) as running:
        yield running


@pytest.fixture
def dear() -> Iterator[FaultServer]:
    with FaultServer(TEAMS) as running:
        yield running


@pytest.fixture
def app(cheap: FaultServer, dear: FaultServer, tmp_path: Path) -> Make:
    """An App of two providers whose own model is the dear one; keywords are ``[inference.route]``."""

    def make(models: Any = PRICES, **route: Any) -> App:
        providers = {
            name: {"kind": "openai", "base_url": server.base_url, "api_key": "k"}
            for name, server in (("cheap", cheap), ("dear", dear))
        }
        settings: dict[str, Any] = {
            "model": "dear/large",
            "home": str(tmp_path / "home"),
            "providers": providers,
            "models": models,
            "inference": {"attempts": 1, "route": {"enabled": True, "candidates": ["cheap/small"], **route}},
        }
        return build(load_settings(tmp_path, {}, settings))

    return make


async def ask(app: App, text: str = "Someone stole my card", model: str = "dear/large", **how: Any) -> Reply:
    """One model call outside any program, as the gateway makes them; keywords are options, or fields of the request."""
    fields = {name: how.pop(name) for name in ("decoding", "tools", "output", "top_logprobs") if name in how}
    run = Run(runtime=app._runner, scope=app.scope, run_id=new_id())  # pyright: ignore[reportPrivateUsage] - no door yet
    request = Request(
        scope=app.scope, model=model, messages=(Message.of("user", text),), options=Options(**how), **fields
    )
    return await Context(run).complete(request)


def stage(reply: Reply, layer: str = "route") -> Stage:
    return next(one for one in reply.stages if one.layer == layer)


async def records(app: App, kind: str = "model") -> list[Record]:
    return [one async for one in app.ledger.records(app.scope, RecordQuery()) if one.kind == kind]


async def judged(app: App, model: str, value: float, times: int = 5, task: str | None = "triage") -> None:
    """Calls of a model, each with a score about it."""
    found: list[Record] = []
    for _ in range(times):
        reply = await ask(app, model=model, task=task)
        assert reply.record_id is not None
        about = await app.ledger.record(app.scope, reply.record_id)
        found.append(
            Record(
                id=new_id(),
                kind="score",
                ref="right",
                run_id=about.run_id,
                scope=app.scope,
                started_at=about.started_at,
                about=about.id,
                value=value,
                model=about.model,
            )
        )
    await app.ledger.append(app.scope, found)


async def test_a_call_that_names_its_model_passes_untouched(app: Make, cheap: FaultServer, dear: FaultServer) -> None:
    here = app()
    reply = await ask(here)
    assert (cheap.count, dear.count, reply.model) == (0, 1, "dear/large")
    assert [one.layer for one in reply.stages] == []
    await here.close()


async def test_scores_move_calls_to_the_cheap_model_and_none_do_when_off(
    app: Make, cheap: FaultServer, dear: FaultServer
) -> None:
    here = app(refresh=0.001)
    reply = await ask(here, routing="guided", task="triage")
    assert reply.model == "dear/large"  # nothing is known of either: the caller's own
    assert "nothing shows another" in stage(reply).note["why"]
    await judged(here, "cheap/small", 0.9)
    await judged(here, "dear/large", 0.95)
    before = (cheap.count, dear.count)
    reply = await ask(here, routing="guided", task="triage")
    assert (cheap.count, dear.count) == (before[0] + 1, before[1])
    note = stage(reply).note
    assert (reply.model, note["model"], note["own"]) == ("cheap/small", "cheap/small", "dear/large")
    quality = {one["model"]: (one["quality"], one["n"], one["quality_by"]) for one in note["candidates"]}
    assert quality == {"dear/large": (4.75, 5, "scores"), "cheap/small": (4.5, 5, "scores")}
    # a task of another type has no scores: the caller's own answers
    assert (await ask(here, routing="guided", task="other")).model == "dear/large"
    await here.close()
    off = app(enabled=False)
    assert (await ask(off, routing="guided", task="triage")).model == "dear/large"
    await off.close()


async def test_the_row_keeps_the_choice_and_the_choice_can_be_made_again(app: Make) -> None:
    here = app(refresh=0.001)
    await judged(here, "cheap/small", 0.5)
    await judged(here, "dear/large", 1.0)
    reply = await ask(here, routing="guided", task="triage")
    row = (await records(here))[-1]
    (kept,) = [one for one in row.stages if one.layer == "route"]
    assert (row.model, row.task, kept.note["model"]) == ("dear/large", "triage", "dear/large")
    assert replay(kept.note).chosen.model == kept.note["model"]
    assert replay(kept.note).why == kept.note["why"]
    assert replay(kept.note, quality=0.1).chosen.model == "cheap/small"
    assert kept.saved_usd == reply.saved_usd == 0.0
    await here.close()


async def test_savings_are_counted_on_the_callers_own_model_and_the_actual_usage(app: Make) -> None:
    here = app()
    reply = await ask(here, routing="guided", quality="low")
    assert reply.model == "cheap/small"
    assert reply.cost_usd == pytest.approx(CHEAP)
    assert stage(reply).saved_usd == pytest.approx(DEAR - CHEAP)
    (row,) = await records(here)
    assert row.saved_usd == pytest.approx(DEAR - CHEAP)
    await here.close()


async def test_an_unknown_price_saves_an_unknown_sum(app: Make) -> None:
    here = app(models={"cheap/small": PRICES["cheap/small"]})
    reply = await ask(here, routing="guided", cost_budget_usd=1.0)
    assert reply.model == "cheap/small"  # nothing shows that the other keeps to the budget
    assert stage(reply).saved_usd is None
    await here.close()


@pytest.mark.parametrize("routing", ["explicit", "guided", "autopilot", None])
@pytest.mark.parametrize(
    ("wish", "value"), [("cost_budget_usd", 1e-9), ("quality_threshold", 4.0)], ids=["cost", "quality"]
)
async def test_a_wish_that_nobody_meets_is_named_and_nobody_is_asked(
    app: Make, cheap: FaultServer, dear: FaultServer, routing: Any, wish: str, value: Any
) -> None:
    here = app()
    with pytest.raises(errors.InvalidInput) as caught:
        await ask(here, routing=routing, **{wish: value})
    assert caught.value.status == 422
    assert caught.value.detail["constraint"] == wish
    assert caught.value.detail["nearest"] in ("cheap/small", "dear/large")
    assert wish in str(caught.value)
    assert (cheap.count, dear.count) == (0, 0)
    await asyncio.sleep(0.1)  # outside any program a failure's row is written after the error is raised
    (row,) = await records(here)
    assert (row.status, row.error_code) == ("error", "invalid_input")
    reply = await ask(here, routing=routing, fallback=True, **{wish: value})
    assert stage(reply).note["why"].startswith("fallback: nearest")
    assert wish in stage(reply).note["why"]
    assert cheap.count + dear.count == 1
    await here.close()


async def test_a_cost_budget_bounds_what_is_written(app: Make, dear: FaultServer) -> None:
    here = app()
    await ask(here)  # what it wrote is known from here on
    reply = await ask(here, cost_budget_usd=0.001)
    assert reply.model == "dear/large"
    bound = stage(reply).note["max_tokens"]
    assert dear.calls[-1].json["max_tokens"] == bound
    assert 20 < bound < 34  # a thousandth of a dollar at 30 dollars a million, less the prompt
    await here.close()


async def test_latency_is_what_was_measured(app: Make, cheap: FaultServer, dear: FaultServer) -> None:
    here = app()
    dear.default = slow(0.4)
    await asyncio.gather(*(ask(here) for _ in range(12)))
    for _ in range(12):
        await ask(here, model="cheap/small")
    reply = await ask(here, routing="guided", latency_budget_ms=300.0)
    assert reply.model == "cheap/small"
    with pytest.raises(errors.InvalidInput, match="latency_budget_ms"):
        await ask(here, latency_budget_ms=300.0)
    before = dear.count
    assert (await ask(here, latency_budget_ms=60_000.0)).model == "dear/large"
    assert dear.count == before + 1
    await here.close()


async def test_policy_context_and_capability_rule_models_out(app: Make) -> None:
    models = {name: dict(price) for name, price in PRICES.items()}
    models["cheap/small"] |= {"context_tokens": 50, "tools": False}
    here = app(models=models)
    assert (await ask(here, routing="guided", quality="low")).model == "cheap/small"
    assert (await ask(here, "word " * 200, routing="guided", quality="low")).model == "dear/large"
    assert (await ask(here, routing="guided", quality="low", models=("dear/*",))).model == "dear/large"
    with pytest.raises(errors.InvalidInput) as caught:
        await ask(here, routing="guided", models=("other/*",), fallback=True)
    assert caught.value.detail["constraint"] == "policy"
    await here.close()


async def test_a_group_a_load_band_and_an_unknown_choice(app: Make, cheap: FaultServer, dear: FaultServer) -> None:
    bands = {"busy": [{"model": "dear/large", "calls": 1}, {"model": "cheap/small"}]}
    here = app(groups={"small": ["cheap/small"]}, bands=bands)
    assert (await ask(here, model="route/small")).model == "cheap/small"
    assert (await ask(here, model="route/busy")).model == "dear/large"
    dear.queue(slow(0.3))
    first = asyncio.create_task(ask(here, model="route/busy"))
    await dear.until(lambda: dear.count == 2)
    second = await ask(here, model="route/busy")
    assert (second.model, (await first).model) == ("cheap/small", "dear/large")
    assert stage(second).saved_usd == pytest.approx(DEAR - CHEAP)
    with pytest.raises(errors.NotFound, match="route/small"):
        await ask(here, model="route/nothing")
    await here.close()


async def test_autopilot_finds_the_task_and_the_row_has_it(app: Make) -> None:
    here = app()
    question = "A baker sells 12 rolls at $2 each and 5 cakes at $9 each. How much does she earn in total?"
    reply = await ask(here, question, routing="autopilot")
    assert stage(reply).note["task"] == "reasoning"
    assert (await records(here))[-1].task == "reasoning"
    await here.close()


async def test_a_stream_is_routed_too(app: Make, cheap: FaultServer, dear: FaultServer) -> None:
    here = app()
    run = Run(runtime=here._runner, scope=here.scope, run_id=new_id())  # pyright: ignore[reportPrivateUsage] - no door yet
    options = Options(routing="guided", quality="low")
    request = Request(scope=here.scope, model="dear/large", messages=(Message.of("user", "hello"),), options=options)
    chunks = [chunk async for chunk in Context(run).stream(request)]
    last = chunks[-1].reply
    assert last is not None
    assert "".join(chunk.text for chunk in chunks) == TEAMS
    assert (last.model, cheap.count, dear.count) == ("cheap/small", 1, 0)
    await here.close()


async def test_a_program_of_a_group_is_routed(app: Make, cheap: FaultServer, dear: FaultServer) -> None:
    here = app(groups={"triage": ["dear/large", "cheap/small"]})
    answer = await here.run(Triage.using(model="route/triage", output_mode="schema"), {"message": "hello"})
    assert answer.outputs["team"] == "cards"
    assert (cheap.count, dear.count) == (0, 1)
    await here.close()


async def test_a_trained_router_tells_the_prompts_apart(
    app: Make, cheap: FaultServer, dear: FaultServer, tmp_path: Path
) -> None:
    rows = [
        {
            "prompt": "Add " + " and ".join("7" * (at % 5 + 1) if hard else "1" for _ in range(9 if hard else 1)),
            "cheap/small": not hard,
            "dear/large": True,
        }
        for at in range(60)
        for hard in (at % 2 == 0,)
    ]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    await train_file(tmp_path / "rows.jsonl", tmp_path / "router.json", embedder=WordLlamaEmbedder())
    here = app(router=str(tmp_path / "router.json"), dial=0.5)
    reply = await ask(here, "Add 1", routing="guided")
    assert (reply.model, cheap.count, dear.count) == ("cheap/small", 1, 0)
    reply = await ask(here, "Add 77 and 77 and 777 and 7 and 777 and 77 and 7 and 7 and 7", routing="guided")
    assert (reply.model, cheap.count, dear.count) == ("dear/large", 1, 1)
    quality = {one["model"]: (one["quality"], one["n"], one["quality_by"]) for one in stage(reply).note["candidates"]}
    assert quality["cheap/small"][0] < 2 < 4 < quality["dear/large"][0]
    assert quality["cheap/small"][1:] == (60, "router")
    await here.close()
    cheapest = app(router=str(tmp_path / "router.json"), dial=0.0)
    reply = await ask(cheapest, "Add 77 and 77 and 777 and 7 and 777 and 77 and 7 and 7 and 7", routing="guided")
    assert reply.model == "cheap/small"
    await cheapest.close()


def test_settings_that_can_not_be_met_stop_the_start(app: Make, tmp_path: Path) -> None:
    with pytest.raises(errors.ConfigError, match=r"inference\.route: other/x: the providers are"):
        app(candidates=["other/x"])
    (tmp_path / "router.json").write_text("{}")
    with pytest.raises(errors.ConfigError, match=r"inference\.route\.router: .* is no router"):
        app(router=str(tmp_path / "router.json"))


# -- the cascade ----------------------------------------------------------------------------------


def sure_of(probability: float, text: str = TEAMS) -> Fault:
    """An answer whose every token has this probability."""
    pieces = [text[at : at + 4] for at in range(0, len(text), 4)]
    content: list[Any] = [{"token": one, "logprob": math.log(probability), "top_logprobs": []} for one in pieces]
    choice: dict[str, Any] = {
        "index": 0,
        "finish_reason": "stop",
        "message": {"role": "assistant", "content": text},
        "logprobs": {"content": content},
    }
    usage = {"prompt_tokens": 20, "completion_tokens": 7, "total_tokens": 27}
    body: dict[str, Any] = {
        "id": "c",
        "object": "chat.completion",
        "created": 1,
        "model": "m",
        "choices": [choice],
        "usage": usage,
    }
    return Fault("body", message=json.dumps(body))


@pytest.mark.parametrize(("probability", "calls"), [(0.95, (1, 0)), (0.5, (1, 1))])
async def test_the_layer_escalates_where_the_cheap_model_is_not_sure(
    app: Make, cheap: FaultServer, dear: FaultServer, probability: float, calls: tuple[int, int]
) -> None:
    here = app(cascade={"models": ["cheap/small", "dear/large"], "confidence": 0.8})
    cheap.queue(sure_of(probability))
    reply = await ask(here, routing="guided")
    assert (cheap.count, dear.count) == calls
    assert cheap.calls[0].json["logprobs"] is True
    asked = stage(reply, "cascade").note["asked"]
    assert asked[0]["confidence"] == pytest.approx(probability)
    assert reply.logprobs == ()
    escalated = calls == (1, 1)
    assert reply.model == ("dear/large" if escalated else "cheap/small")
    assert reply.cost_usd == pytest.approx(CHEAP + DEAR if escalated else CHEAP)
    assert reply.saved_usd == pytest.approx(-CHEAP if escalated else DEAR - CHEAP)
    (row,) = await records(here)
    assert (row.tokens_in, row.tokens_out) == ((40, 14) if escalated else (20, 7))
    assert row.attempts == sum(calls)
    await here.close()


async def test_a_stream_of_the_cascade_comes_when_it_counts(app: Make, cheap: FaultServer, dear: FaultServer) -> None:
    here = app(cascade={"models": ["cheap/small", "dear/large"], "confidence": 0.8})
    cheap.queue(sure_of(0.95))
    run = Run(runtime=here._runner, scope=here.scope, run_id=new_id())  # pyright: ignore[reportPrivateUsage] - no door yet
    hello, options = Message.of("user", "hello"), Options(routing="guided")
    request = Request(scope=here.scope, model="dear/large", messages=(hello,), options=options)
    chunks = [chunk async for chunk in Context(run).stream(request)]
    assert [chunk.text for chunk in chunks] == [TEAMS, ""]
    assert (cheap.count, dear.count) == (1, 0)
    await here.close()


async def test_without_the_cascade_the_cheap_model_is_not_asked(
    app: Make, cheap: FaultServer, dear: FaultServer
) -> None:
    here = app()
    await ask(here, routing="guided")
    assert (cheap.count, dear.count) == (0, 1)
    await here.close()


async def test_no_log_probabilities_show_no_confidence(app: Make, cheap: FaultServer, dear: FaultServer) -> None:
    here = app(cascade={"models": ["cheap/small", "dear/large"]})
    reply = await ask(here, routing="guided")
    assert (cheap.count, dear.count) == (1, 1)
    assert stage(reply, "cascade").note["asked"][0] == {"model": "cheap/small", "confidence": None}
    assert (await ask(here, routing="guided", quality="max")).model == "dear/large"
    assert (cheap.count, dear.count) == (1, 2)
    await here.close()


@pytest.mark.parametrize(("said", "calls"), [(TEAMS, (1, 0)), ('{"team": "nobody"}', (1, 1))])
async def test_a_program_escalates_on_a_misfit(
    app: Make, cheap: FaultServer, dear: FaultServer, said: str, calls: tuple[int, int]
) -> None:
    here = app()
    cheap.reply = said
    answer = await here.run(cascade(Triage, ["cheap/small", "dear/large"]), {"message": "hello"})
    assert answer.outputs["team"] == "cards"
    assert (cheap.count, dear.count) == calls
    models = [(one.model, one.step) for one in await records(here)]
    assert [model for model, _ in models] == ["cheap/small", "dear/large"][: sum(calls)]
    await here.close()


@pytest.mark.parametrize(("probability", "calls"), [(0.9, (1, 0)), (0.3, (1, 1))])
async def test_a_program_escalates_where_the_words_of_its_values_are_not_probable(
    app: Make, cheap: FaultServer, dear: FaultServer, probability: float, calls: tuple[int, int]
) -> None:
    here = app()
    cheap.queue(sure_of(probability))
    made = cascade(Triage, ["cheap/small", "dear/large"], by="probability", least=0.5, measure="mean")
    await here.run(made, {"message": "hello"})
    assert (cheap.count, dear.count) == calls
    await here.close()
