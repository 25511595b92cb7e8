"""What the layers know is shown, recorded calls are replayed through them, and calibration asks them again."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from kaizen.app import App
from kaizen.app.compression import make_evidence
from kaizen.app.measured import insight, replay
from kaizen.app.semantic import make_book
from kaizen.core.identity import Identity
from kaizen.core.message import Message
from kaizen.core.request import Options, Reply, Request, Usage
from kaizen.core.scope import LOCAL
from kaizen.inference.semantic.evidence import Sample
from kaizen.inference.semantic.likeness import FEATURES
from kaizen.serve.http.metrics import Metrics
from tests.unit.inference.compress.requests import GOLD, QUESTION, passages
from tests.unit.serve.conftest import Project

TEXT = f"Context:\n{passages()}\n\nQuestion: {QUESTION}"
PRICES = '[models."mine/large"]\ninput_usd_per_mtok = 10.0\noutput_usd_per_mtok = 0.0\n'


def reads(request: Request) -> Reply:
    text = request.messages[-1].text
    said = "1871" if GOLD.strip() in text else "?" if "Question" in text else f"About {text.split()[-1].strip('?')}."
    return Reply(model=request.model, text=said, usage=Usage(tokens_in=len(text) // 4), cost_usd=len(text) / 4e5)


def record(project: Project, *texts: str, task: str | None = None) -> None:
    """Have these asked and kept."""

    async def work(app: App) -> None:
        context = app.context(Identity(app.scope, "tester"))
        for text in texts:
            messages = (Message.of("user", text),)
            options = Options(exact=False, task=task)
            await context.complete(Request(scope=app.scope, model="mine/large", messages=messages, options=options))
        await app.close()

    project.answers(reads)
    asyncio.run(work(project.app()))


def prove(app: App, *, compared: int, level: int = 1) -> None:
    evidence = make_evidence(app.settings)
    for _ in range(compared):
        evidence.add(LOCAL, "mine/large", "lookup", level, agreed=True)


# -- cache stats ---


def test_stats_show_what_the_caches_count_and_the_evidence_they_stand_on(project: Project) -> None:
    project.write("kaizen.toml", "[inference.semantic]\nenabled = true\nfalse_hits = 0.05\nexplore = 0.1\n")

    async def work(app: App) -> None:
        book = make_book(app.settings, app.cache)
        for number in range(80):
            sample = Sample(f"p{number}", f"e{number}", "*", (0.1,) * len(FEATURES), True)
            await book.add(LOCAL, sample)
        await book.save(LOCAL)
        prove(app, compared=20)
        await app.close()

    asyncio.run(work(project.app()))
    for port, worker in (("8000", 0), ("8000", 1), ("9000", 0)):
        counts = Metrics(project.folder / ".kaizen" / "gateway" / port, worker)
        counts.gather([("exact", "hits", 2), ("exact", "misses", 1), ("semantic", "too_costly", 1)])
        counts.close()

    assert project.kaizen("cache", "stats", "--json") == 0
    layers = project.json["layers"]
    assert layers["exact"] == {"counts": {"hits": 6, "misses": 3}}
    semantic = layers["semantic"]
    assert (semantic["sampling"], semantic["budget"], semantic["evidence"]) == (0.1, 0.05, 80)
    assert semantic["counts"] == {"too_costly": 3}
    assert 0.0 < semantic["tasks"]["*"]["bound"] <= 0.05
    (agreement,) = layers["compress"]["agreements"]
    assert (agreement["model"], agreement["task"], agreement["compared"]) == ("mine/large", "lookup", 20)

    assert project.kaizen("cache", "stats") == 0
    shown = project.stdout
    assert "exact, in the gateways here since they were started: 6 hits, 3 misses\n" in shown
    assert "semantic: 10.0% of its hits asked anew, at most 5.0% may be false; 80 pieces of evidence\n" in shown
    assert ["all", "80", "0", "3.74%", "100.0%"] in [line.split() for line in shown.splitlines()]
    assert ["mine/large", "lookup", "1", "20", "0", "15.18%"] in [line.split() for line in shown.splitlines()]


def test_stats_of_another_tenant_show_none_of_ours(project: Project) -> None:
    app = project.app()
    prove(app, compared=3)
    asyncio.run(app.close())
    assert project.kaizen("cache", "stats", "--tenant", "other", "--json") == 0
    assert project.json["layers"] == {}


def test_without_the_packages_the_counts_alone_are_shown(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(insight, "find_spec", lambda name: None)
    assert project.kaizen("cache", "stats", "--json") == 0
    assert project.json["layers"] == {}


# -- costs advise ---


def test_advice_replays_the_semantic_cache_at_its_own_bound(project: Project) -> None:
    project.write("kaizen.toml", f"[inference.semantic]\nfalse_hits = 0.2\n{PRICES}")
    things = [f"{deed} {what}" for deed in ("reset", "print", "cancel", "renew") for what in (
        "password", "invoice", "subscription", "card", "voucher", "profile", "ticket", "licence")]  # fmt: skip
    record(project, *[text for one in things for text in (f"How do I {one}?", f"Please tell me how I can {one}")])
    assert project.kaizen("costs", "advise", "--json") == 0
    (found,) = [one for one in project.json if "inference.semantic" in one["change"]]
    assert 0 < found["calls"] < len(things)  # the first ones are the evidence
    assert found["calls"] == found["n"]
    assert found["quality"] == 1.0
    assert found["low"] < 1.0
    assert found["saved_usd"] > 0.0


def test_advice_counts_the_tokens_that_need_not_be_sent_at_the_measured_agreement(project: Project) -> None:
    project.write("kaizen.toml", f"[inference.compress]\nrisk = 0.2\n{PRICES}")
    record(project, f"{TEXT} a", f"{TEXT} b", task="lookup")
    assert project.kaizen("costs", "advise", "--json") == 0
    assert [one for one in project.json if "inference.compress" in one["change"]] == []  # nothing is proved
    app = project.app()
    prove(app, compared=40, level=4)
    asyncio.run(app.close())
    assert project.kaizen("costs", "advise", "--json") == 0
    (found,) = [one for one in project.json if "inference.compress" in one["change"]]
    assert (found["calls"], found["quality"], found["n"]) == (2, 1.0, 40)
    tokens = int(found["note"].split()[0])
    assert 0.3 * len(TEXT) / 2 < tokens < 2 * len(TEXT) / 4
    assert found["saved_usd"] == pytest.approx(tokens * 10 / 1e6)


def test_white_space_alone_is_advised_without_evidence_and_says_so(project: Project) -> None:
    project.write("kaizen.toml", "")
    record(project, TEXT.replace(" of ", f" of{' ' * 40}"))
    assert project.kaizen("costs", "advise", "--json") == 0
    (found,) = [one for one in project.json if "inference.compress" in one["change"]]
    assert (found["quality"], found["n"], found["saved_usd"]) == (None, 0, None)
    assert "kaizen compress calibrate" in found["note"]


def test_without_the_packages_nothing_is_replayed(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replay, "find_spec", lambda name: None)
    record(project, TEXT.replace(" of ", f" of{' ' * 40}"))
    assert project.kaizen("costs", "advise", "--json") == 0
    assert project.json == []


# -- compress calibrate ---


def test_calibration_asks_recorded_prompts_again_within_its_calls(project: Project) -> None:
    record(project, *[f"{TEXT} {number}" for number in range(3)], "Hello there.", task="lookup")
    before = project.provider.count
    assert project.kaizen("compress", "calibrate", "--calls", "12", "--json") == 0
    assert project.json["asked"] == project.provider.count - before == 12
    assert project.json["failed"] == 0
    first = project.json["measured"][0]
    assert (first["task"], first["model"], first["level"]) == ("lookup", "mine/large", "light")
    assert first["low"] < 1.0 == first["high"] or first["agreement"]["differed"]
    assert first["after"] < first["before"]
    assert make_evidence(project.app().settings).of(LOCAL, "mine/large", "lookup")[1].compared >= 2


def test_people_see_how_far_it_is_and_what_it_found(project: Project) -> None:
    record(project, *[f"{TEXT} {number}" for number in range(10)])
    assert project.kaizen("compress", "calibrate", "--model", "other/small", "--calls", "200") == 0
    assert "10 prompts, " in project.stderr
    assert "of at most 200 calls" in project.stderr
    assert {one.model for one in project.provider.requests[10:]} == {"other/small"}
    assert project.stdout.splitlines()[0].split()[:4] == ["task", "model", "level", "agreed"]
    assert "other/small" in project.stdout


def test_with_nothing_on_record_it_says_so(project: Project, tmp_path: Path) -> None:
    assert project.kaizen("compress", "calibrate") == 0
    assert "no recorded call whose contents are kept can be shortened" in project.stderr
    assert project.provider.count == 0
