"""The example of ``make run``, in a process of its own, on the real embedded model, into a real ledger."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from examples.triage.check_data import DATA, load
from kaizen.app import App, build
from kaizen.core.record import Record, RecordQuery
from kaizen.settings import read
from kaizen.testing.fault_server import FaultServer

EXAMPLE = DATA.parent
PLAIN, LIKELIHOOD = "triage.Triage", "likelihood.triage_by_likelihood"
FIGURES = {
    *("n", "accuracy", "low", "high", "tokens", "seconds", "program", "model"),
    *("tokens_in", "tokens_cached", "tokens_out", "model_calls", "latency_ms"),
}


def start(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, EXAMPLE / "run.py", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "COLUMNS": "160"},
    )


def run(*arguments: str) -> tuple[int, str, str]:
    process = start(*arguments)
    out, err = process.communicate()
    return process.returncode, out, err


async def kept() -> list[Record]:
    app: App = build(read())
    records = [record async for record in app.ledger.records(app.scope, RecordQuery())]
    await app.close()
    return records


@pytest.mark.timeout(180)
async def test_both_programs_answer_and_every_call_is_kept(weights: Path, tmp_path: Path) -> None:
    code, out, err = run("--limit", "3", "--likelihood")
    assert (code, err) == (0, "")
    figures: dict[str, Any] = json.loads((tmp_path / "run.json").read_text())
    assert set(figures) == FIGURES | {"others", "baselines"}
    [other] = figures["others"]
    assert set(other) == FIGURES
    assert (figures["program"], other["program"]) == ("Triage", "triage_by_likelihood")
    assert [row["name"] for row in figures["baselines"]] == ["nearest neighbour", "guessing"]
    for row in (figures, other):
        assert row["n"] == 3
        assert 0 <= row["low"] <= row["accuracy"] <= row["high"] <= 1
        assert row["tokens"] == row["tokens_in"] + row["tokens_out"] > 0
        assert row["model"] == "embedded/smollm2-135m"
        assert f"{row['accuracy']:.0%}" in out

    records = await kept()
    programs = {record.id: record for record in records if record.kind == "program"}
    models = [record for record in records if record.kind == "model"]
    assert len(programs) + len(models) == len(records)
    assert Counter(record.ref for record in programs.values()) == {PLAIN: 3, LIKELIHOOD: 3}
    assert len({record.contract for record in programs.values()}) == 1
    assert Counter(record.parent_id for record in models) == {
        record.id: record.model_calls for record in programs.values()
    }
    for row, ref in ((figures, PLAIN), (other, LIKELIHOOD)):
        below = [record for record in models if programs[record.parent_id or ""].ref == ref]
        assert len(below) == row["model_calls"]
        assert sum(record.tokens_in + record.tokens_out for record in below) == row["tokens"]
        assert sum(record.tokens_cached for record in below) == row["tokens_cached"]
    assert other["model_calls"] == 9
    assert "kaizen runs show " in out

    # each team's prompt is read when it comes first; after that it is cached, but for its last token
    by_likelihood = [record for record in models if programs[record.parent_id or ""].ref == LIKELIHOOD]
    fresh = [record.tokens_in - record.tokens_cached for record in by_likelihood]
    assert min(fresh[:3]) > 300
    assert fresh[3:] == [1] * 6


@pytest.mark.timeout(180)
def test_ctrl_c_ends_it_with_one_line_and_keeps_what_was_answered(
    weights: Path, tmp_path: Path, kaizen_home: Path
) -> None:
    with start() as process:
        while process.poll() is None and rows(kaizen_home / "ledger.db") < 1:
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate()
    assert process.returncode == 130
    assert len(err.splitlines()) == 1
    assert err.startswith("stopped; what was answered is in the ledger")
    assert "Traceback" not in out
    assert not (tmp_path / "run.json").exists()
    statuses = Counter((record.kind, record.status) for record in asyncio.run(kept()))
    assert statuses["model", "ok"] >= 1
    assert statuses["program", "cancelled"] >= 1


def rows(file: Path) -> int:
    """How many records a ledger holds, as another process sees it."""
    if not file.exists():
        return 0
    with closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as database:
        try:
            return database.execute("SELECT count(*) FROM records").fetchone()[0]
        except sqlite3.OperationalError:  # its tables are being made
            return 0


@pytest.mark.timeout(120)
def test_the_story_of_a_gain_is_told_and_taken_back(tmp_path: Path) -> None:
    teams = {message.message: message.team for message in load()[0]}

    def learns(body: Mapping[str, Any]) -> str:
        """A model that knows the team once it was shown examples."""
        asked = body["messages"][-1]["content"]
        shown = len(body["messages"]) > 2
        right = next((team for message, team in teams.items() if message in str(asked)), "cards")
        return json.dumps({"team": right if shown else "cards"})

    with FaultServer(learns) as server:
        (tmp_path / "kaizen.toml").write_text(
            f'[providers.mine]\nkind = "openai"\nbase_url = "{server.base_url}"\napi_key = "k"\n'
        )
        code, out, err = run("--limit", "12", "--model", "mine/large", "--improve", "--budget", "400")
        assert code == 0, err
        calls = server.count
    found = json.loads((tmp_path / "run.json").read_text())["improved"]
    assert (found["improved"], found["released"], found["on"], found["n"]) == (True, True, "test", 12)
    assert found["after"] == 1.0 > found["before"]
    assert found["calls"] <= 400
    assert calls <= 12 + 400 + 1  # the first table's, the search's, and one that shows what was released
    told = ["optimize", "registry diff", "run", "registry rollback", "registry history"]
    assert [line.split()[2] for line in out.splitlines() if line.startswith("$ kaizen ")] == [
        word.split()[0] for word in told
    ]
    assert "prod shows base" in out
    rows = [line for line in out.splitlines() if " prod " in line and "optimizer:compose" in line]
    assert len(rows) == 1


@pytest.mark.timeout(120)
def test_no_gain_is_told_and_nothing_is_released(tmp_path: Path) -> None:
    with FaultServer('{"team": "cards"}') as server:
        (tmp_path / "kaizen.toml").write_text(
            f'[providers.mine]\nkind = "openai"\nbase_url = "{server.base_url}"\napi_key = "k"\n'
        )
        code, out, err = run("--limit", "3", "--model", "mine/large", "--improve", "--budget", "100")
        assert code == 0, err
    assert "no improvement: " in out
    assert "messages to choose by" in out
    assert "registry" not in out
    assert json.loads((tmp_path / "run.json").read_text())["improved"]["improved"] is False


def test_another_model_runs_the_plain_program_alone(tmp_path: Path) -> None:
    with FaultServer('{"team": "cards"}') as server:
        (tmp_path / "kaizen.toml").write_text(
            f'[providers.mine]\nkind = "openai"\nbase_url = "{server.base_url}"\napi_key = "sk-very-secret"\n'
        )
        code, out, err = run("--limit", "3", "--likelihood", "--model", "mine/large")
        assert (code, err, server.count) == (0, "", 3)
    assert "The likelihood program is left out" in out
    figures = json.loads((tmp_path / "run.json").read_text())
    assert (figures["program"], figures["model"], figures["others"]) == ("Triage", "mine/large", [])
    first = [message.team for message in load()[0] if message.split == "test"][:3]
    assert figures["accuracy"] == first.count("cards") / 3


@pytest.mark.parametrize(
    ("model", "said"),
    [("nowhere/large", "nowhere"), ("embedded/none", "embedded/none"), ("large", "provider/model")],
)
def test_a_model_that_is_not_there_is_one_line(model: str, said: str, tmp_path: Path) -> None:
    code, _, err = run("--limit", "2", "--model", model)
    assert code != 0
    assert len(err.splitlines()) == 1
    assert err.startswith("error: ")
    assert said in err
    assert not (tmp_path / "run.json").exists()


def test_the_prompts_show_messages_of_the_train_split_only() -> None:
    learned = json.loads((EXAMPLE / "likelihood.json").read_text("utf-8"))
    train = [message for message in load()[0] if message.split == "train"]
    for team, shown in learned["examples"].items():
        assert shown == [message.message for message in train if message.team == team][: len(shown)]
        assert len(shown) >= 4
