"""The example messages are what their README says, and the checks that guard them notice what they should."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from examples.triage import check_data
from examples.triage.check_data import DATA, Message


@pytest.fixture(scope="module")
def messages() -> list[Message]:
    found, problems = check_data.load()
    assert problems == []
    return found


def test_labels_ids_and_balance(messages: list[Message]) -> None:
    assert len(messages) == 300
    assert check_data.label_problems(messages) == []


def test_no_near_duplicates(messages: list[Message]) -> None:
    assert check_data.duplicate_problems(messages) == []


def test_closest_pair_across_splits_is_what_the_readme_says(messages: list[Message]) -> None:
    pair = check_data.closest(messages, check_data.shingles, across=True)
    assert pair is not None
    assert pair.score < check_data.SHINGLES_BELOW
    assert f"shares {pair.score:.2f} of its 5-grams" in " ".join((DATA / "README.md").read_text("utf-8").split())


def test_readme_counts_and_example(messages: list[Message]) -> None:
    readme = (DATA / "README.md").read_text("utf-8")
    for split, per_team in check_data.PER_TEAM.items():
        rows = [message for message in messages if message.split == split]
        urgencies = " / ".join(str(sum(row.urgency == n for row in rows)) for n in check_data.URGENCIES)
        assert f"| `{split}.jsonl` | {len(rows)} |{f' {per_team} |' * 3} {urgencies} |" in readme
    example = readme.split("```json\n")[1].split("\n")[0]
    assert example in (DATA / "train.jsonl").read_text("utf-8").splitlines()


def test_splits_are_shuffled(messages: list[Message]) -> None:
    for split in check_data.PER_TEAM:
        teams = [message.team for message in messages if message.split == split]
        changes = sum(a != b for a, b in pairwise(teams))
        assert changes > len(teams) / 2


def row(**changes: Any) -> dict[str, Any]:
    return {"id": "a", "message": "my card has gone missing", "team": "cards", "urgency": 4} | changes


def write(folder: Path, *train: dict[str, Any] | str) -> Path:
    for split in check_data.PER_TEAM:
        lines = [line if isinstance(line, str) else json.dumps(line) for line in train if split == "train"]
        (folder / f"{split}.jsonl").write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    return folder


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("{", "train.jsonl:1: not JSON"),
        ("[]", "the fields must be"),
        (row(extra=1), "the fields must be"),
        (row(id=""), "id must be"),
        (row(id=7), "id must be"),
        (row(message=" my card has gone "), "message must be a text"),
        (row(message="card gone missing"), "4 to 60 words, it has 3"),
        (row(message="gone " * 60 + "gone"), "4 to 60 words, it has 61"),
        (row(team="Cards"), "team must be one of"),
        (row(urgency=0), "urgency must be"),
        (row(urgency=6), "urgency must be"),
        (row(urgency="4"), "urgency must be"),
        (row(urgency=True), "urgency must be"),
    ],
)
def test_a_malformed_line_is_named(tmp_path: Path, line: dict[str, Any] | str, says: str) -> None:
    messages, problems = check_data.load(write(tmp_path, line))
    assert messages == []
    assert len(problems) == 1
    assert says in problems[0]


def test_a_missing_split_and_one_that_is_not_utf8_are_named(tmp_path: Path) -> None:
    write(tmp_path, row())
    (tmp_path / "test.jsonl").unlink()
    (tmp_path / "validation.jsonl").write_bytes(b"\xff\xfe")
    messages, problems = check_data.load(tmp_path)
    assert [message.id for message in messages] == ["a"]
    assert [problem.split(":")[0] for problem in problems] == ["validation.jsonl", "test.jsonl"]


def test_imbalance_and_repeated_ids_are_named(messages: list[Message]) -> None:
    changed = [messages[0]._replace(id=messages[1].id), *messages[1:-1]]
    last = messages[-1]
    assert check_data.label_problems(changed) == [
        f"id '{messages[1].id}' is used 2 times",
        f"{last.split}: 39 messages of {last.team}, not 40",
    ]
    calm = [message for message in messages if message.urgency != 5]
    assert "validation: no message of urgency 5" in check_data.label_problems(calm)


ORIGINAL = "Charged twice for the same dinner, 64.50 both times, at a café in Ghent on 3 May."


@pytest.mark.parametrize(
    ("copy", "says"),
    [
        (
            "CHARGED TWICE for the same dinner: 1,380.00 both times, at a cafe in Ghent on 28 May!",
            "character shingles",
        ),
        ("At a café in Ghent on 3 May, twice charged the same dinner: 64.50 for both times.", "words"),
        ("They told me I was not charged twice for the same dinner, but look at what I found.", "both say"),
    ],
)
@pytest.mark.parametrize("split", ["train", "test"])
def test_copies_are_found_within_and_across_splits(copy: str, says: str, split: str) -> None:
    pair = [Message("train", "a", ORIGINAL, "cards", 3), Message(split, "b", copy, "cards", 3)]
    problems = check_data.duplicate_problems(pair)
    assert any(says in problem and "a and b" in problem for problem in problems), problems


def test_measures() -> None:
    assert (
        check_data.normalise("  Can't pay €1,240.50 — at   Zürich's CAFÉ at 15:34! ")
        == "cant pay 0 at zurichs cafe at 0"
    )
    assert check_data.shingles("abcdef") == {"abcde", "bcdef"}
    assert check_data.shingles("abc") == {"abc"}
    assert check_data.runs("one two three") == set()
    assert check_data.jaccard(frozenset("ab"), frozenset("bc")) == pytest.approx(1 / 3)
    assert check_data.jaccard(frozenset(), frozenset()) == 0
    assert check_data.closest([], check_data.tokens, across=True) is None


def test_the_command_passes_on_the_data_and_fails_on_a_copy(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert check_data.main([]) == 0
    shown = capsys.readouterr().out
    assert "closest pair across splits by character shingles" in shown
    assert "no problems" in shown

    for split in check_data.PER_TEAM:
        (tmp_path / f"{split}.jsonl").write_bytes((DATA / f"{split}.jsonl").read_bytes())
    lines = (tmp_path / "test.jsonl").read_text("utf-8").splitlines()
    taken = json.loads((tmp_path / "train.jsonl").read_text("utf-8").splitlines()[0])
    lines[0] = json.dumps(json.loads(lines[0]) | {"message": taken["message"]})
    (tmp_path / "test.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    assert check_data.main([str(tmp_path)]) == 1
    assert "train-001 and test-001: 1.00 of their character shingles" in capsys.readouterr().out
