"""``kaizen dataset`` and ``kaizen score``: rows out of records, corrected by people, in parts that share nothing."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.unit.serve.conftest import Project


def asked(project: Project, *messages: str) -> list[str]:
    """The records of calls with these messages."""
    for message in messages:
        assert project.kaizen("run", "triage.py:Triage", "--message", message) == 0
    assert project.kaizen("runs", "list", "--json") == 0
    return [record["id"] for record in project.json][::-1]


def rows(project: Project, name: str) -> list[dict[str, Any]]:
    return project.lines(name)


def test_a_score_and_a_correction_become_a_row(project: Project) -> None:
    first, second, third = asked(project, "send money to my sister", "my card is gone", "who are you")
    assert project.kaizen("score", first, "--correct", '{"team": "transfers"}', "--comment", "not cards") == 0
    assert project.stdout == f"{first}: 0, corrected\n"
    assert project.kaizen("score", second[:18], "0.9", "--by", "ada", "--json") == 0
    assert (project.json["value"], project.json["principal"], project.json["about"]) == (0.9, "human:ada", second)
    assert project.kaizen("score", third, "--thumbs", "down") == 0
    argv = ("dataset", "from-runs", "Triage", "--where", "score >= 0.8 or corrected", "-o", "data")
    assert project.kaizen(*argv, "--redact", "--consent", "terms", "--json") == 0
    assert project.json["counts"] == {
        "records": 3,
        "other": 0,
        "erased": 0,
        "unfit": 1,
        "alike": 0,
        "corrected": 1,
        "redacted": 0,
    }
    assert project.json["about"]["consent"] == "terms"
    kept = {row["message"]: row["team"] for row in rows(project, "data/rows.jsonl")}
    assert kept == {"my card is gone": "cards", "send money to my sister": "transfers"}
    assert project.kaizen("runs", "stats", "--json") == 0
    (stat,) = project.json
    assert (stat["scores"], stat["score"]) == (3, pytest.approx(0.3))


def test_a_run_s_id_stands_for_its_answer(project: Project) -> None:
    (record,) = asked(project, "hi")
    assert project.kaizen("runs", "show", record, "--json") == 0
    run = project.json[0]["run_id"]
    assert project.kaizen("score", run, "--stars", "5") == 0
    assert project.stdout == f"{record}: 1\n"


@pytest.mark.parametrize(
    ("argv", "code", "said"),
    [
        (("0.5", "--stars", "3"), 3, "not by score and stars"),
        ((), 3, "say how good"),
        (("--correct", "[]"), 2, "should be a JSON object"),
        (("--correct", "{"), 2, "is no JSON"),
        (("--correct", '{"tem": 1}'), 3, "'tem' is no output"),
    ],
)
def test_scores_that_are_refused(project: Project, argv: tuple[str, ...], code: int, said: str) -> None:
    (record,) = asked(project, "hi")
    assert project.kaizen("score", record, *argv) == code
    assert said in project.stderr


def test_parts_share_no_subject_and_are_versions(project: Project) -> None:
    lines = [
        {"message": f"message {place} of a customer", "team": "cards", "urgency": 1, "_group": f"c{place % 7}"}
        for place in range(70)
    ]
    project.write("mail.jsonl", "".join(f"{json.dumps(line)}\n" for line in lines))
    argv = ("dataset", "import", "mail.jsonl", "--program", "triage.py:Triage", "--split", "0.6,0.2,0.2", "--seed", "3")
    assert project.kaizen(*argv, "-o", "parts") == 0
    assert project.stdout.splitlines()[0] == "mail@1: 70 rows"
    parts = {name: rows(project, f"parts/{name}.jsonl") for name in ("train", "val", "test")}
    groups = [{row["_group"] for row in part} for part in parts.values()]
    assert sum(len(part) for part in parts.values()) == 70
    assert not groups[0] & groups[1]
    assert not groups[0] & groups[2]
    assert not groups[1] & groups[2]
    about = json.loads((project.folder / "parts/dataset.json").read_text())
    assert [ref.partition("@")[0] for ref in about["versions"]] == [
        "dataset/mail",
        "dataset/mail/train",
        "dataset/mail/val",
        "dataset/mail/test",
    ]
    assert project.kaizen(*argv, "-o", "parts") == 7
    assert "is there already" in project.stderr
    assert project.kaizen(*argv, "--json") == 0
    assert [one["number"] for one in project.json["versions"]] == [1, 1, 1, 1]  # the same content


def test_datasets_are_compared_by_their_rows(project: Project) -> None:
    first = [{"message": f"m{place}", "team": "cards", "urgency": 1} for place in range(30)]
    second = [{**line, "team": "transfers"} if place == 2 else line for place, line in enumerate(first[:3])]
    for name, lines in (("a.jsonl", first), ("b.jsonl", [*second, {"message": "new", "team": "cards", "urgency": 1}])):
        project.write(name, "".join(f"{json.dumps(line)}\n" for line in lines))
        argv = ("dataset", "import", name, "--program", "triage.py:Triage", "--name", "mail")
        assert project.kaizen(*argv, "--rename", "x=y") == 0
    assert project.kaizen("dataset", "diff", "mail@1", "mail") == 0
    last = project.stdout.splitlines()[-1]
    assert last == "1 added, 27 removed, 1 relabelled, 2 the same"
    assert "and 9 more" in project.stderr
    argv = ("dataset", "diff", "a.jsonl", "b.jsonl", "--json")
    assert project.kaizen(*argv, "--program", "triage.py:Triage") == 0
    assert project.json["relabelled"] == [
        {
            "inputs": {"message": "m2"},
            "before": {"team": "cards", "urgency": 1},
            "after": {"team": "transfers", "urgency": 1},
        }
    ]
    assert project.kaizen(*argv) == 0
    assert (len(project.json["added"]), project.json["same"]) == (2, 2)
    assert project.kaizen("dataset", "diff", "none.jsonl", "b.jsonl") == 6
    assert project.kaizen("dataset", "diff", "none", "mail") == 6


def test_rows_that_differ_are_chosen(project: Project) -> None:
    asked(project, "my card was stolen in town", "my card was stolen at home", "send money abroad by monday", "hello")
    argv = ("dataset", "from-runs", "triage.py:Triage", "--diverse", "2", "--limit", "4", "--name", "few")
    assert project.kaizen(*argv, "--reason", "a try") == 0
    assert project.stdout == "few@1: 2 rows\n"
    assert "4 calls looked at" in project.stderr
    assert project.kaizen("dataset", "from-runs", "Triage", "--keep-alike", "--group-by", "run", "-o", "all") == 0
    assert len(rows(project, "all/rows.jsonl")) == 4


@pytest.mark.parametrize(
    ("argv", "code", "said"),
    [
        (("from-runs", "Triage", "--where", "score >"), 2, "should stand where the end is"),
        (("from-runs", "Triage", "--split", "0.5,0.6"), 2, "two or three shares that sum to 1"),
        (("from-runs", "Triage", "--split", "a,b"), 2, "two or three shares"),
        (("from-runs", "Other"), 6, "nothing was run under the name Other"),
        (("from-runs", "Triage", "--where", "corrected"), 3, "nothing is left of 1 calls"),
        (("from-runs", "Triage", "-o", "triage.py/x"), 2, "can't write to"),
        (("import", "x.jsonl", "--program", "triage.py", "--rename", "a"), 2, "should read OLD=NEW"),
    ],
)
def test_what_is_refused(project: Project, argv: tuple[str, ...], code: int, said: str) -> None:
    asked(project, "hi")
    assert project.kaizen("dataset", *argv) == code
    assert said in project.stderr


def test_what_an_evaluation_asked_is_no_row_to_learn_from(project: Project) -> None:
    asked(project, "a customer's")
    project.write("test.jsonl", '{"message": "a test row", "team": "cards", "urgency": 4}\n')
    assert project.kaizen("eval", "triage.py:Triage", "--data", "test.jsonl") == 0
    assert project.kaizen("dataset", "from-runs", "Triage", "-o", "data") == 0
    assert [row["message"] for row in rows(project, "data/rows.jsonl")] == ["a customer's"]
