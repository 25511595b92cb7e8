"""Learn what ``likelihood.py`` needs from the train split, and write it to ``likelihood.json``.

    python examples/triage/fit.py --validate

The first messages of each team become its prompt. The others, which no prompt shows, tell each team's usual lead: how
far its score lies above the mean of the three, whatever the message is (a prompt can make every text likelier). How
many messages and tokens, and the words of the prompt, were chosen on the validation split; ``--validate`` prints the
accuracy there. The test split is never read.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from statistics import fmean

sys.path.insert(0, str(Path(__file__).parent))

from check_data import Message
from check_data import load as load_messages
from likelihood import FILE, SLOTS, TEAMS, Learned, likeliest, log_likelihoods
from report import wilson
from rich.progress import track
from triage import Team

from kaizen import Context, configure, program
from kaizen.app import current
from kaizen.core.errors import KaizenError

MODEL = "embedded/smollm2-135m"
EXAMPLES = 16
TOKENS = 24

Scores = Mapping[Team, float]


def main() -> int:
    """Learn it and write it; 0 when that went well."""
    options = _options()
    messages, problems = load_messages()
    if problems:
        print(f"error: {problems[0]}", file=sys.stderr)
        return 1
    configure(model=MODEL, providers=SLOTS)
    try:
        learned = learn([row for row in messages if row.split == "train"], options.examples, options.tokens)
        FILE.write_text(json.dumps(asdict(learned), indent=2, ensure_ascii=False) + "\n", "utf-8")
        print(f"wrote {FILE.name}: " + ", ".join(f"{team} leads by {learned.lead[team]:+.2f} nats" for team in TEAMS))
        if options.validate:
            _validate([row for row in messages if row.split == "validation"], learned)
    except KaizenError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130
    return 0


def learn(train: Sequence[Message], examples: int, tokens: int) -> Learned:
    """Deal the messages of each team into prompt and rest, and measure each team's lead on the rest.

    Args:
        train: labelled messages, more of each team than ``examples``.
        examples: how many of each team its prompt shows.
        tokens: how many tokens of a message are scored.
    """
    by_team: dict[Team, list[Message]] = {team: [row for row in train if row.team == team] for team in TEAMS}
    learned = Learned(
        model=MODEL,
        tokens=tokens,
        examples={team: tuple(row.message for row in rows[:examples]) for team, rows in by_team.items()},
        lead=dict.fromkeys(TEAMS, 0.0),
    )
    rest = [row for rows in by_team.values() for row in rows[examples:]]
    found = asyncio.run(_scores(rest, learned, "train"))
    lead = {team: fmean(scores[team] - fmean(scores.values()) for scores in found) for team in TEAMS}
    learned = replace(learned, lead={team: round(value, 3) for team, value in lead.items()})
    _tell("rest of train, on which the leads were learned", rest, found, learned)
    return learned


async def _scores(rows: Sequence[Message], learned: Learned, split: str) -> list[Scores]:
    @program
    async def score(ctx: Context, message: str) -> dict[Team, float]:
        return await log_likelihoods(ctx, message, learned)

    return [(await current().run(score, {"message": row.message})).outputs["result"] for row in track(rows, split)]


def _validate(rows: Sequence[Message], learned: Learned) -> None:
    _tell("validation", rows, asyncio.run(_scores(rows, learned, "validation")), learned)


def _tell(split: str, rows: Sequence[Message], found: Sequence[Scores], learned: Learned) -> None:
    right = sum(likeliest(scores, learned.lead) == row.team for scores, row in zip(found, rows, strict=True))
    low, high = wilson(right, len(rows))
    print(f"{split}: {right} of {len(rows)} right, {right / len(rows):.0%} ({low:.0%} to {high:.0%})")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--examples", type=int, default=EXAMPLES, metavar="N", help=f"of each team ({EXAMPLES})")
    parser.add_argument("--tokens", type=int, default=TOKENS, metavar="N", help=f"scored of a message ({TOKENS})")
    parser.add_argument("--validate", action="store_true", help="print the accuracy on the validation split too")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
