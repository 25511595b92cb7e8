"""The example's second program: the team whose messages make this one most likely.

A model of 135 million parameters is bad at naming the right team and better at writing as a customer would. So it is
asked the other way round (the noisy channel of Min et al. 2022, https://arxiv.org/abs/2108.04106): for each team it
sees messages that went there, and is made to write this one. How likely its words are, by the model's own
log-probabilities, is the team's score; the team's usual lead, learned by ``fit.py``, is taken off.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import get_args

from triage import Team, Triage

from kaizen import Context, context, program
from kaizen.core.errors import OutputInvalid
from kaizen.core.message import Message
from kaizen.core.params import NOTHING
from kaizen.core.request import Decoding, OutputSchema

TEAMS: tuple[Team, ...] = get_args(Team)
FILE = Path(__file__).with_suffix(".json")
ABOUT: Mapping[Team, str] = {
    "cards": "debit and credit cards: lost, stolen, declined or blocked, PIN, contactless, delivery, cash machines, "
    "purchases paid by card, refunds, card fees, points and limits",
    "transfers": "payments and transfers: salary and other money coming in, standing orders, direct debits, pending, "
    "wrong or missing payments, payees, IBAN, transfer fees, rates and limits",
    "accounts": "the account: opening and closing, signing in, the app, personal data, letters, statements, savings "
    "and interest, account fees, overdrafts, joint accounts, access for others",
}
# A slot for each team's prompt: prompts that share one push each other out and are read anew for every message.
SLOTS: Mapping[str, Mapping[str, object]] = {"embedded": {"kind": "embedded", "slots": len(TEAMS), "context": 2048}}


@dataclass(frozen=True, slots=True, kw_only=True)
class Learned:
    """What ``fit.py`` learned from the train split.

    Args:
        model: ref of the model it was learned with; another one writes with other odds.
        tokens: how many of a message's tokens are scored, the first ones.
        examples: messages of each team that its prompt shows.
        lead: how far each team's score lies above the mean of the three for a message of any team.
    """

    model: str
    tokens: int
    examples: Mapping[Team, tuple[str, ...]]
    lead: Mapping[Team, float]


@cache
def learned() -> Learned:
    """What ``fit.py`` wrote."""
    kept = json.loads(FILE.read_text("utf-8"))
    return Learned(
        model=kept["model"],
        tokens=kept["tokens"],
        examples={team: tuple(kept["examples"][team]) for team in TEAMS},
        lead={team: kept["lead"][team] for team in TEAMS},
    )


@program
async def triage_by_likelihood(ctx: Context, message: str = context.input("what the customer wrote")) -> Triage:
    """Name the team whose messages make this one most likely."""
    scores = await log_likelihoods(ctx, message, learned())
    return Triage.of({"team": likeliest(scores, learned().lead)}, inputs={"message": message})


def likeliest(scores: Mapping[Team, float], lead: Mapping[Team, float]) -> Team:
    """The team with the highest score, each team's usual lead taken off."""
    return max(TEAMS, key=lambda team: scores[team] - lead[team])


async def log_likelihoods(ctx: Context, message: str, by: Learned) -> dict[Team, float]:
    """The log-probability of a message's beginning after each team's prompt, in nats.

    The teams are asked one after the other: on a CPU that computes one token at a time, three at once take longer.

    Raises:
        OutputInvalid: the model was not held to the message, or reports no log-probabilities.
    """
    model = ctx.params(triage_by_likelihood.spec, NOTHING).model or by.model
    written = json.dumps(message, ensure_ascii=False)
    scores: dict[Team, float] = {}
    for team in TEAMS:
        reply = await ctx.complete(
            ctx.request(
                model,
                prompt(team, by.examples[team]),
                output=OutputSchema("message", {"const": message}),
                decoding=Decoding(temperature=0.0, max_tokens=by.tokens),
                top_logprobs=0,
            )
        )
        if not reply.logprobs or not written.startswith(reply.text):
            problem = "it did not write the message" if reply.logprobs else "it reports no log-probabilities"
            raise OutputInvalid(f"{model} can't say how likely a text is: {problem}", reply=reply.text, problem=problem)
        scores[team] = sum(token.logprob for token in reply.logprobs)
    return scores


def prompt(team: Team, examples: tuple[str, ...]) -> tuple[Message, ...]:
    """A conversation in which messages to one team are written. The same for every message, so it is read once."""
    asked = Message.of("user", f"Next message about {team}:")
    turns = [Message.of("system", f"These are messages from customers about {ABOUT[team]}.")]
    for example in examples:
        turns += [asked, Message.of("assistant", json.dumps(example, ensure_ascii=False))]
    return (*turns, asked)
