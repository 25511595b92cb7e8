"""Nearest examples, a plain text, weighed values: what is asked changes, on a real socket and the embedded model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import pytest

from kaizen import Demo, Params, Signature, context
from kaizen.app import App, build
from kaizen.core.errors import Unsupported
from kaizen.core.params import Weights
from kaizen.core.record import RecordQuery
from kaizen.settings import load_settings
from kaizen.testing.fault_server import FaultServer


class Mood(Signature):
    """Say whether a sentence of a film review is positive or negative."""

    text: str = context.input("a sentence of a film review")
    sentiment: Literal["positive", "negative"] = context.output("what it says about the film")


DEMOS = tuple(
    Demo({"text": text}, {"sentiment": label})
    for text, label in (
        ("a warm and funny film", "positive"),
        ("dull from beginning to end", "negative"),
        ("the actors are a delight", "positive"),
        ("a waste of two hours", "negative"),
    )
)


async def ask(app: App, params: Params, text: str) -> str:
    answer: Any = await app.start(Mood.using(params), {"text": text})
    return answer.sentiment


async def test_the_embedded_model_goes_on_with_a_text_and_its_values_are_weighed(tmp_path: Path, weights: Path) -> None:
    app = build(load_settings(tmp_path, {}, {"home": str(tmp_path)}))
    try:
        written = Params(layout="plain", demos=DEMOS)
        assert await ask(app, written, "one of the most moving films of the year") == "positive"
        for lead, label in ((9.0, "negative"), (-9.0, "positive")):
            scored = {"sentiment": Weights(lead={"positive": lead})}
            params = Params(layout="plain", demos=DEMOS, scored=scored)
            assert await ask(app, params, "it is a film") == label
        kept = [one async for one in app.ledger.records(app.scope, RecordQuery(kind="model"))]
        assert len(kept) == 3
        assert all(one.tokens_in < 120 for one in kept)
        pytest.importorskip("wordllama")
        await ask(app, replace(written, nearest=1), "it is a film")
        await ask(app, replace(written, shown=2), "it is a film")
        kept = [one async for one in app.ledger.records(app.scope, RecordQuery(kind="model"))]
        whole, one_shown, two_shown = (one.tokens_in for one in kept[-3:])
        assert one_shown < two_shown < whole
    finally:
        await app.close()


def wired(tmp_path: Path, address: str) -> App:
    tree = {
        "home": str(tmp_path),
        "model": "far/m",
        "providers": {"far": {"kind": "openai", "base_url": f"{address}/v1", "api_key": "k"}},
    }
    return build(load_settings(tmp_path, {}, tree))


async def test_each_way_changes_what_a_server_is_sent(tmp_path: Path) -> None:
    pytest.importorskip("wordllama")
    bodies: list[Mapping[str, Any]] = []

    def said(body: Mapping[str, Any]) -> str:
        bodies.append(body)
        return '{"sentiment": "positive"}'

    with FaultServer(said) as server:
        app = wired(tmp_path, server.address)
        try:
            text = "the actors are a delight to watch"
            assert await ask(app, Params(demos=DEMOS), text) == "positive"
            assert await ask(app, Params(demos=DEMOS, nearest=1), text) == "positive"
            with pytest.raises(Unsupported, match="reports no log-probabilities"):
                await ask(app, Params(demos=DEMOS, scored={"sentiment": Weights()}), text)
            assert server.count == 3
            with pytest.raises(Unsupported, match="no place for a text to go on with"):
                await ask(app, Params(demos=DEMOS, layout="plain"), text)
            assert server.count == 3
            alone = Params(demos=DEMOS, shown=0, scored={"sentiment": Weights(model=0.0, near=1.0)})
            assert await ask(app, alone, DEMOS[-1].inputs["text"]) == "negative"
            assert server.count == 3  # nobody has to be asked what has no weight
            assert await ask(app, Params(votes=3), text) == "positive"
            assert server.count == 6
            assert sorted(body.get("seed") for body in bodies[3:]) == [0, 1, 2]
            kept = [one async for one in app.ledger.records(app.scope, RecordQuery())]
            assert [one.model_calls for one in kept if one.kind == "program"][-2:] == [0, 3]
        finally:
            await app.close()
    shown = [
        sum("film" in str(turn) or "actors" in str(turn) for turn in body["messages"][1:-1]) for body in bodies[:3]
    ]
    assert [len(body["messages"]) for body in bodies] == [10, 4, 10, 2, 2, 2]
    assert shown[1] == 1
    assert [body.get("top_logprobs") for body in bodies] == [None, None, 20, None, None, None]


async def test_nearest_examples_are_repaired_and_streamed_as_others_are(tmp_path: Path) -> None:
    pytest.importorskip("wordllama")
    replies = iter(['{"sentiment": "so so"}', '{"sentiment": "positive"}', '{"sentiment": "negative"}'])
    with FaultServer(lambda _: next(replies)) as server:
        app = wired(tmp_path, server.address)
        try:
            params = Params(demos=DEMOS, nearest=1)
            assert await ask(app, params, "the actors are a delight to watch") == "positive"
            assert server.count == 2
            shown = [item async for item in app.stream(Mood.using(params), {"text": "a waste of an evening"})]
            assert server.count == 3
            assert len(shown) > 1
            kept = [one async for one in app.ledger.records(app.scope, RecordQuery(kind="program"))]
            assert [(one.status, one.model_calls) for one in kept] == [("ok", 2), ("ok", 1)]
        finally:
            await app.close()
