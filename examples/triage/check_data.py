"""Check the example messages: fields, labels, balance, and that no two of them are near-duplicates.

    python examples/triage/check_data.py [DATA_FOLDER]

Prints the counts and the closest pairs, lists what is wrong, and exits 1 if anything is.
Standard library only.

Two messages are compared three ways, after case, accents, punctuation and figures have been evened out:

- Jaccard similarity of their sets of character 5-grams (catches reworded copies and typos),
- Jaccard similarity of their sets of words (catches the same words in another order),
- the longest run of words they share (catches one template filled in twice).
"""

from __future__ import annotations

import json
import re
import sys
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

DATA = Path(__file__).resolve().parent / "data"
TEAMS = ("cards", "transfers", "accounts")
PER_TEAM = {"train": 40, "validation": 20, "test": 40}
URGENCIES = range(1, 6)
WORDS = range(4, 61)
FIELDS = ("id", "message", "team", "urgency")

Features = Callable[[str], frozenset[str]]

SHINGLE = 5
SHINGLES_BELOW = 0.35
TOKENS_BELOW = 0.5
RUN_BELOW = 6


class Message(NamedTuple):
    """One labelled message and the split it stands in."""

    split: str
    id: str
    message: str
    team: str
    urgency: int


class Pair(NamedTuple):
    """Two messages and how alike they are by one measure."""

    score: float
    left: Message
    right: Message


def load(folder: Path = DATA) -> tuple[list[Message], list[str]]:
    """Read the three splits; returns the well-formed messages and one line for each thing that is wrong."""
    messages: list[Message] = []
    problems: list[str] = []
    for split in PER_TEAM:
        path = folder / f"{split}.jsonl"
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            problems.append(f"{path.name}: cannot be read: {error}")
            continue
        for number, line in enumerate(lines, start=1):
            problem, row = _parse(line)
            if problem:
                problems.append(f"{path.name}:{number}: {problem}")
            else:
                messages.append(Message(split, **row))
    return messages, problems


def _parse(line: str) -> tuple[str, dict[str, Any]]:
    row: dict[str, Any]
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        return f"not JSON: {error}", {}
    if type(row) is not dict or tuple(row) != FIELDS:
        return f"the fields must be {', '.join(FIELDS)}, in this order", {}
    if not isinstance(row["id"], str) or not row["id"]:
        return "id must be a text that is not empty", {}
    if not isinstance(row["message"], str) or row["message"] != row["message"].strip():
        return "message must be a text without space around it", {}
    if len(row["message"].split()) not in WORDS:
        return f"message must have {WORDS[0]} to {WORDS[-1]} words, it has {len(row['message'].split())}", {}
    if row["team"] not in TEAMS:
        return f"team must be one of {', '.join(TEAMS)}, not {row['team']!r}", {}
    if type(row["urgency"]) is not int or row["urgency"] not in URGENCIES:
        return f"urgency must be an integer from 1 to 5, not {row['urgency']!r}", {}
    return "", row


def label_problems(messages: Sequence[Message]) -> list[str]:
    """Ids used twice, teams out of balance, urgencies that a split lacks."""
    ids = Counter(message.id for message in messages)
    problems = [f"id {key!r} is used {count} times" for key, count in ids.items() if count > 1]
    counts = Counter((message.split, message.team) for message in messages)
    urgencies = {(message.split, message.urgency) for message in messages}
    for split, wanted in PER_TEAM.items():
        problems += [
            f"{split}: {counts[split, team]} messages of {team}, not {wanted}"
            for team in TEAMS
            if counts[split, team] != wanted
        ]
        problems += [f"{split}: no message of urgency {n}" for n in URGENCIES if (split, n) not in urgencies]
    return problems


def normalise(text: str) -> str:
    """Lower case without accents or punctuation, every figure `0`: a copy with another amount is a copy."""
    plain = "".join(c for c in unicodedata.normalize("NFKD", text.casefold()) if not unicodedata.combining(c))
    joined = re.sub(r"(?<=\d)[.,:](?=\d)|['’]", "", plain)
    return re.sub(r"[\W_]+", " ", re.sub(r"\d+", "0", joined)).strip()


def tokens(text: str) -> frozenset[str]:
    """The set of words."""
    return frozenset(normalise(text).split())


def shingles(text: str, size: int = SHINGLE) -> frozenset[str]:
    """The set of character n-grams; a text shorter than one is its own only shingle."""
    plain = normalise(text)
    return frozenset(plain[i : i + size] for i in range(max(1, len(plain) - size + 1)))


def runs(text: str, size: int = RUN_BELOW) -> frozenset[str]:
    """The set of word n-grams; empty for a text of fewer words."""
    words = normalise(text).split()
    return frozenset(" ".join(words[i : i + size]) for i in range(len(words) - size + 1))


MEASURES: tuple[tuple[str, Features, float], ...] = (
    ("character shingles", shingles, SHINGLES_BELOW),
    ("words", tokens, TOKENS_BELOW),
)


def jaccard(left: frozenset[str], right: frozenset[str]) -> float:
    """Shared members over all members; 0 for two empty sets."""
    shared = len(left & right)
    return shared / ((len(left) + len(right) - shared) or 1)


def pairs(messages: Iterable[Message], of: Features) -> Iterator[Pair]:
    """Every two messages with the Jaccard similarity of their features `of(text)`."""
    featured = [(message, of(message.message)) for message in messages]
    for (left, a), (right, b) in combinations(featured, 2):
        yield Pair(jaccard(a, b), left, right)


def closest(messages: Iterable[Message], of: Features, *, across: bool) -> Pair | None:
    """The most alike pair across two splits, or within one."""
    kept = (pair for pair in pairs(messages, of) if (pair.left.split != pair.right.split) is across)
    return max(kept, key=lambda pair: pair.score, default=None)


def duplicate_problems(messages: Sequence[Message]) -> list[str]:
    """Every pair that is too alike by one of the three measures, within a split or across two."""
    problems: list[str] = []
    for name, of, below in MEASURES:
        problems += [
            f"{pair.left.id} and {pair.right.id}: {pair.score:.2f} of their {name} shared, not below {below}"
            for pair in pairs(messages, of)
            if pair.score >= below
        ]
    seen: dict[str, Message] = {}
    for message in messages:
        for run in runs(message.message):
            other = seen.setdefault(run, message)
            if other is not message:
                problems.append(f"{other.id} and {message.id}: both say {run!r}")
    return problems


def check(folder: Path = DATA) -> tuple[list[Message], list[str]]:
    """All checks; returns the messages and one line for each thing that is wrong."""
    messages, problems = load(folder)
    return messages, problems + label_problems(messages) + duplicate_problems(messages)


def main(arguments: Sequence[str]) -> int:
    """Print counts, closest pairs and problems; the exit code."""
    messages, problems = check(Path(arguments[0]) if arguments else DATA)
    for split in PER_TEAM:
        rows = [message for message in messages if message.split == split]
        by_team = Counter(row.team for row in rows)
        by_urgency = Counter(row.urgency for row in rows)
        print(
            f"{split:<11}{len(rows):>4} messages | "
            + "  ".join(f"{team} {by_team[team]}" for team in TEAMS)
            + " | urgency "
            + "  ".join(f"{n}: {by_urgency[n]}" for n in URGENCIES)
        )
    for name, of, below in MEASURES:
        for where, across in (("across splits", True), ("within a split", False)):
            pair = closest(messages, of, across=across)
            if pair:
                print(f"\nclosest pair {where} by {name}: {pair.score:.3f} (bound {below})")
                print(f"  {pair.left.id}: {pair.left.message}")
                print(f"  {pair.right.id}: {pair.right.message}")
    print(f"\n{len(problems)} problems" if problems else "\nno problems")
    for problem in problems:
        print(f"  {problem}")
    return 1 if problems else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
