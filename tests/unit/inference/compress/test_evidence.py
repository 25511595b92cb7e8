from __future__ import annotations

import math
import random
import time
from pathlib import Path

import pytest

from kaizen.core.message import ToolCall
from kaizen.core.request import Reply
from kaizen.core.scope import LOCAL, Scope
from kaizen.inference.compress.evidence import Agreement, Evidence, agree, upper_bound


def test_the_bound_holds_at_every_moment() -> None:
    share, broken = 0.05, 0
    rng = random.Random(11)
    for _ in range(200):
        failures = 0
        for trial in range(1, 400):
            failures += rng.random() < share
            if upper_bound(failures, trial) < share:
                broken += 1
                break
    assert broken <= 15  # 5 % of 200, and what chance adds


def test_the_bound_knows_its_ends() -> None:
    assert upper_bound(0, 0) == 1.0
    assert upper_bound(7, 7) == 1.0
    assert upper_bound(0, 600) < 0.01 < upper_bound(0, 100)
    assert upper_bound(3, 100) > upper_bound(0, 100) > upper_bound(0, 200)


def test_an_agreement_has_its_interval() -> None:
    low, high = Agreement(100, 5).interval()
    assert low < 0.95 < high
    assert Agreement().interval() == (0.0, 1.0)
    assert Agreement(10, 0).interval()[1] == pytest.approx(1.0)


@pytest.mark.parametrize("kept", [True, False])
def test_levels_are_allowed_in_order_and_the_first_that_fails_ends_it(kept: bool, tmp_path: Path) -> None:
    evidence = Evidence(tmp_path / "compress" / "evidence.jsonl" if kept else None)
    for level, failures in ((1, 0), (2, 0), (3, 20), (4, 0)):
        for at in range(40):
            evidence.add(LOCAL, "m/m", "task", level, agreed=at >= failures)
    level, bound = evidence.strongest(LOCAL, "m/m", "task", 0.2)
    assert (level, bound) == (2, upper_bound(0, 40))
    assert evidence.of(LOCAL, "m/m", "task")[3] == Agreement(40, 20)
    assert evidence.strongest(LOCAL, "m/m", "task", 0.001) == (0, 0.0)
    for scope, model, task in ((Scope("other"), "m/m", "task"), (LOCAL, "m/n", "task"), (LOCAL, "m/m", "other")):
        assert evidence.strongest(scope, model, task, 0.2) == (0, 0.0)


def test_processes_see_each_others_evidence_and_a_cut_line_harms_nothing(tmp_path: Path) -> None:
    file = tmp_path / "evidence.jsonl"
    one, other = Evidence(file), Evidence(file)
    assert other.of(LOCAL, "m/m", "t") == {}
    one.add(LOCAL, "m/m", "t", 1, agreed=True)
    with file.open("ab") as lines:
        lines.write(b'["1", "lo\n["0", "a", "b", "c", "d", 1, 1]\n["1", "half')
    time.sleep(0.06)
    assert other.of(LOCAL, "m/m", "t") == {1: Agreement(1, 0)}
    time.sleep(0.06)
    assert other.of(LOCAL, "m/m", "t") == {1: Agreement(1, 0)}


def test_the_file_is_not_asked_for_every_call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    evidence, asked = Evidence(tmp_path / "evidence.jsonl"), list[Path]()
    stat = Path.stat

    def counting(path: Path, **how: bool) -> object:
        asked.append(path)
        return stat(path, **how)

    monkeypatch.setattr(Path, "stat", counting)
    begun = time.monotonic()
    for _ in range(1000):
        evidence.of(LOCAL, "m/m", "t")
    assert len([one for one in asked if one.suffix == ".jsonl"]) <= 1 + (time.monotonic() - begun) / 0.05
    evidence.add(LOCAL, "m/m", "t", 1, agreed=True)
    assert evidence.of(LOCAL, "m/m", "t") == {1: Agreement(1, 0)}  # at once, for the one who added it


def test_the_file_stays_bounded_and_says_the_same_in_fewer_lines(tmp_path: Path) -> None:
    file = tmp_path / "evidence.jsonl"
    one, other = Evidence(file, kept=2000), Evidence(file, kept=2000)
    rewritten = 0
    for at in range(400):
        before = file.stat().st_ino if file.exists() else 0
        one.add(LOCAL, "m/m", "old" if at < 200 else "new", 1, agreed=at % 2 == 0)
        assert file.stat().st_size <= 4000
        rewritten += before not in (0, file.stat().st_ino)
        if at == 100:
            assert other.of(LOCAL, "m/m", "old") != {}
    assert rewritten > 1
    time.sleep(0.06)
    for evidence in (one, other, Evidence(file)):
        assert evidence.of(LOCAL, "m/m", "old") == evidence.of(LOCAL, "m/m", "new") == {1: Agreement(200, 100)}
    assert [path.name for path in tmp_path.iterdir()] == ["evidence.jsonl"]


def test_no_tenants_comparisons_push_out_anothers_who_has_fewer(tmp_path: Path) -> None:
    file = tmp_path / "evidence.jsonl"
    evidence, quiet = Evidence(file, kept=2000), Scope("quiet")
    for level in (1, 2):
        for at in range(5):
            evidence.add(quiet, "m/m", "t", level, agreed=at > 0)
    for at in range(400):
        evidence.add(Scope("loud"), "m/m", f"task-{at}", 1, agreed=True)
        assert file.stat().st_size <= 4000
    assert Evidence(file).of(quiet, "m/m", "t") == {1: Agreement(5, 1), 2: Agreement(5, 1)}
    assert Evidence(file).of(Scope("loud"), "m/m", "task-399") == {1: Agreement(1, 0)}
    assert Evidence(file).of(Scope("loud"), "m/m", "task-0") == {}  # of its own the oldest went


def test_what_was_long_ago_does_not_outweigh_all_that_comes_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kaizen.inference.compress.evidence._COUNTED", 50)
    file = tmp_path / "evidence.jsonl"
    evidence = Evidence(file, kept=500)
    for at in range(1000):
        evidence.add(LOCAL, "m/m", "t", 1, agreed=at < 500)
    found = Evidence(file).of(LOCAL, "m/m", "t")[1]
    assert 50 <= found.compared < 120
    assert found.differed / found.compared > 0.9


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("Paris", "paris.", True),
        ("The Eiffel Tower", "Eiffel Tower", True),
        ("Paris", "London", False),
        ("", "", True),
        ("", "Paris", False),
        ("?", "!", False),
        ("1,200 people", "1,300 people", False),
        ("It is allowed to park here at night", "It is not allowed to park here at night", False),
        ("The king was crowned in the old abbey of the town", "The king was crowned in the old abbey", True),
        ("the cat sat", "dogs bark loudly outside", False),
        ('{"a": "Paris", "n": 1}', '{"n": 1, "a": "paris"}', True),
        ('{"a": 1}', '{"a": 2}', False),
        ('{"a": 1}', '{"b": 1}', False),
        ('{"a": true}', '{"a": 1}', False),
        ('["x", "y"]', '["x"]', False),
        ('["x", "y"]', '["X", "y"]', True),
        ('{"a": null}', '{"a": null}', True),
        ('{"a": "x"}', "x", False),
    ],
)
def test_answers_agree_when_they_say_the_same(one: str, other: str, same: bool) -> None:
    assert agree(Reply(model="m/m", text=one), Reply(model="m/m", text=other)) is same


def test_calls_of_tools_must_be_the_same() -> None:
    def calling(name: str, arguments: str) -> Reply:
        return Reply(model="m/m", tool_calls=(ToolCall("1", name, arguments),))

    assert agree(calling("look", '{"a": 1}'), calling("look", '{ "a":1 }'))
    assert not agree(calling("look", '{"a": 1}'), calling("look", '{"a": 2}'))
    assert not agree(calling("look", "{}"), calling("find", "{}"))
    assert math.isclose(upper_bound(1, 2), upper_bound(1, 2))
