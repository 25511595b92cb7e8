"""The evidence rule for the layer that sends fewer tokens: what the server received, and the rows that were stored."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from kaizen import Signature, context
from kaizen.app import App, build
from kaizen.app.compression import make_evidence
from kaizen.app.measured.calibrating import calibrate
from kaizen.core.identity import Identity
from kaizen.core.message import Message
from kaizen.core.record import Record, RecordQuery
from kaizen.core.request import Options, Request
from kaizen.providers.surprisal.reading import LlamaSurprisal
from kaizen.providers.weights import find_weights
from kaizen.serve.doors import Calibrating
from kaizen.settings import load_settings
from kaizen.testing.fault_server import FaultServer

Make = Callable[..., App]
PRICE = {"mine/large": {"input_usd_per_mtok": 10.0, "output_usd_per_mtok": 30.0}}
QUESTION = "In which year did the lighthouse of Marlow Point first shine?"
GOLD = "The lighthouse of Marlow Point first shone in 1871, when its keeper Ada Brandt lit four lamps."
FILLER = (
    "Bakers on the market square sell rye bread from six in the morning until the church bell rings at noon.",
    "Football was brought to the valley by railway workers, who played on a field behind the engine shed.",
    "The museum keeps a collection of painted masks, most of which were given by a retired sea captain.",
    "Rain falls on some two hundred days a year, and gardeners prefer potatoes to anything more delicate.",
    "A tram line once ran from the station to the harbour, but its rails were lifted during the war.",
    "Students of the agricultural college wear green scarves at the spring fair and carry lanterns.",
    "The town council meets on Tuesdays in a hall whose ceiling shows the labours of the months.",
    "Herring were smoked over alder wood in long sheds that now house a theatre and two workshops.",
)
PASSAGES = "\n".join((*FILLER[:4], GOLD, *FILLER[4:]))


class Ask(Signature):
    """Answer the question from the context."""

    passages: str = context.input("what is known")
    question: str = context.input("what is asked")
    answer: str = context.output("the shortest right answer")


def said(body: Any) -> str:
    """The text of the last message that the server received."""
    content = body["messages"][-1]["content"]
    return content if isinstance(content, str) else "".join(block["text"] for block in content)


def answering(body: Any) -> str:
    """A model that reads: it finds the year if the sentence with it was sent."""
    year = re.search(r"first shone in (\d{4})", str(body["messages"]))
    return '{"answer": "%s"}' % (year[1] if year else "unknown")


@pytest.fixture
def server() -> Iterator[FaultServer]:
    with FaultServer(answering, keep=1000) as running:
        yield running


@pytest.fixture
def app(server: FaultServer, tmp_path: Path) -> Make:
    """An App whose default model is served by ``server``; keywords are the layer's settings."""

    def make(wire: str = "openai", **compress: Any) -> App:
        settings = {
            "model": "mine/large",
            "home": str(tmp_path / "home"),
            "providers": {"mine": {"kind": wire, "base_url": server.base_url, "api_key": "sk-x"}},
            "models": PRICE,
            "inference": {"compress": compress},
        }
        return build(load_settings(tmp_path, {}, settings))

    return make


async def model_records(app: App) -> list[Record]:
    return [one async for one in app.ledger.records(app.scope, RecordQuery(kind="model"))]


def prove(app: App, *, level: int, task: str, compared: int = 20) -> None:
    """Evidence as a calibration leaves it: so many answers agreed at each level up to this one."""
    evidence = make_evidence(app.settings)
    for number in range(1, level + 1):
        for _ in range(compared):
            evidence.add(app.scope, "mine/large", task, number, agreed=True)


async def ask_plainly(app: App, text: str, **options: Any) -> str:
    """A lone model call, as the gateway makes it."""
    request = Request(
        scope=app.scope,
        model="mine/large",
        messages=(Message.of("user", text),),
        options=Options(task="lookup", **options),
    )
    return (await app.context(Identity(app.scope, "tester")).complete(request)).text


async def test_without_evidence_the_server_receives_every_sentence(app: Make, server: FaultServer) -> None:
    here = app(enabled=True)
    answer = await here.run(Ask, {"passages": PASSAGES, "question": QUESTION})
    assert answer.outputs["answer"] == "1871"
    assert all(one in said(server.calls[0].json) for one in (*FILLER, GOLD, QUESTION))
    assert [stage for one in await model_records(here) for stage in one.stages] == []
    await here.close()


async def test_calibration_measures_agreement_and_then_fewer_tokens_are_sent(app: Make, server: FaultServer) -> None:
    here = app(enabled=True, risk=0.5)
    for number in range(6):
        await here.run(Ask, {"passages": PASSAGES, "question": f"{QUESTION} Answer number {number}."})
    whole = len(said(server.calls[0].json))
    asked = server.count
    found = await calibrate(here, Calibrating(here.scope))
    levels = len({row.level for row in found.measured})
    assert levels >= 3
    assert server.count == asked + found.asked
    assert found.asked == 6 * (1 + levels)
    assert all(row.agreement.compared == 6 and row.agreement.differed == 0 for row in found.measured)

    answer = await here.run(Ask, {"passages": PASSAGES, "question": QUESTION})
    sent = said(server.calls[-1].json)
    assert answer.outputs["answer"] == "1871"
    assert GOLD in sent
    assert QUESTION in sent
    assert len(sent) < 0.7 * whole
    assert [one for one in FILLER if one in sent] != list(FILLER)
    record = (await model_records(here))[-1]
    (stage,) = [one for one in record.stages if one.layer == "compress"]
    assert stage.note["strategies"] == ["context"]
    assert stage.note["before"] > stage.note["after"] == record.tokens_in
    assert 0 < stage.note["risk"] <= 0.5
    saved = (stage.note["before"] - stage.note["after"]) * 10.0 / 1e6
    assert stage.saved_usd == pytest.approx(saved)
    assert record.saved_usd == pytest.approx(saved)
    await here.close()


async def test_above_the_limit_the_original_is_sent(app: Make, server: FaultServer) -> None:
    here = app(enabled=True, risk=0.01)
    prove(here, level=1, task="lookup", compared=50)
    await ask_plainly(here, f"Context:\n{PASSAGES}\n\nQuestion: {QUESTION}")
    assert all(one in said(server.calls[-1].json) for one in FILLER)
    prove(here, level=1, task="lookup", compared=600)
    await asyncio.sleep(0.06)  # what others add is seen within 50 ms
    await ask_plainly(here, f"Context:\n{PASSAGES}\n\nQuestion: {QUESTION}")
    assert not all(one in said(server.calls[-1].json) for one in FILLER)
    assert GOLD in said(server.calls[-1].json)
    await here.close()


@pytest.mark.parametrize(("enabled", "wish"), [(False, None), (False, True), (True, False)])
async def test_switched_off_nothing_changes(app: Make, server: FaultServer, enabled: bool, wish: bool | None) -> None:
    here = app(enabled=enabled, risk=0.5)
    prove(here, level=4, task="lookup")
    text = f"Context:\n{PASSAGES}\n\nQuestion: {QUESTION}"
    try:
        await ask_plainly(here, text, compress=wish)
    finally:
        assert server.count == 0 or said(server.calls[-1].json) == text
        assert all(stage.layer != "compress" for one in await model_records(here) for stage in one.stages)
        await here.close()


async def test_a_sampled_call_is_sent_both_ways_and_both_are_paid(app: Make, server: FaultServer) -> None:
    here = app(enabled=True, sample=1.0)
    text = f"Context:\n{PASSAGES}\n\nQuestion: {QUESTION}"
    assert await ask_plainly(here, text) == '{"answer": "1871"}'
    assert server.count == 2
    bodies = sorted((said(call.json) for call in server.calls), key=len)
    assert bodies[1] == text
    assert len(bodies[0]) < len(text)
    (record,) = await model_records(here)
    (stage,) = [one for one in record.stages if one.layer == "compress"]
    assert (stage.note["sampled"], stage.note["agreed"]) == (True, True)
    assert record.tokens_in == 2 * 20
    assert stage.saved_usd is not None
    assert stage.saved_usd < 0
    assert record.cost_usd == pytest.approx(-2 * stage.saved_usd)
    found = make_evidence(here.settings).of(here.scope, "mine/large", "lookup")
    assert {level: (one.compared, one.differed) for level, one in found.items()} == {1: (1, 0)}
    await here.close()


async def test_white_space_and_json_shrink_without_any_evidence(app: Make, server: FaultServer) -> None:
    here = app(enabled=True)
    table = '{\n  "year" : 1871.0,\n  "note" : "two  spaces",\n  "big" : 12345678901234567890\n}'
    await ask_plainly(here, f"<context>\n{table}\n</context>\n<question>{QUESTION}</question>")
    sent = said(server.calls[-1].json)
    assert '{"year":1871.0,"note":"two  spaces","big":12345678901234567890}' in sent
    (record,) = await model_records(here)
    assert [list(stage.note["strategies"]) for stage in record.stages if stage.layer == "compress"] == [["json"]]
    await here.close()


async def test_the_second_call_of_a_long_program_marks_its_stable_part_for_anthropic(
    app: Make, server: FaultServer
) -> None:
    long = Ask.using(instructions="Answer from the context. " + "Be exact and brief. " * 300)
    here = app("anthropic", enabled=True)
    for number in range(2):
        await here.run(long, {"passages": "It shone first in 1871.", "question": f"Which year? {number}"})
    first, second = (call.json["system"] for call in server.calls)
    assert "cache_control" not in str(first)
    assert second[-1]["cache_control"] == {"type": "ephemeral"}
    record = (await model_records(here))[-1]
    assert [list(stage.note["strategies"]) for stage in record.stages] == [["prefix"]]
    await here.close()


async def test_one_tenants_evidence_allows_nothing_to_another(app: Make, server: FaultServer, tmp_path: Path) -> None:
    here = app(enabled=True, risk=0.5)
    prove(here, level=3, task="lookup")
    text = f"Context:\n{PASSAGES}\n\nQuestion: {QUESTION}"
    await ask_plainly(here, text)
    assert len(said(server.calls[-1].json)) < len(text)
    other = build(here.settings.model_copy(update={"tenant": "other"}))
    await ask_plainly(other, text)
    assert said(server.calls[-1].json) == text
    await here.close()
    await other.close()


async def test_the_embedded_model_reads_and_expects_some_words_more_than_others() -> None:
    path = find_weights("smollm2-135m", Path())
    assert path is not None
    text = "The capital of France is Paris. The capital of France is zebra."
    (tokens,) = await LlamaSurprisal(path).surprisal([text])
    assert "".join(token for token, _ in tokens) == text
    nats = {token.strip(): nats for token, nats in tokens}
    assert nats["Paris"] < 3 < 6 < nats["z" if "z" in nats else "zebra"]
