"""A scripted strong model: what it answers depends on its instructions and demos, and it can write and revise them.

It is served by ``kaizen.testing.fault_server`` on a real socket, so that the programs, the onion and the count of calls
are those of any remote model. What it knows of a task is a handful of rules, one for each topic, which it follows where
its prompt states the rule or shows a demo of the topic, and mostly does not where it doesn't. Asked for a better
instruction it notices some of the rules that the labelled examples in front of it show; a case with a wrong answer
beside it is noticed more easily than an example. Without examples it can only rephrase. Noise is drawn from the whole
prompt, so that another wording errs on other rows.

The tasks were named before any optimizer was run on them:

* ``routing``: 10 topics, each with a team of the house's own: instructions and demos both help.
* ``codes``: 14 topics, codes that can't be guessed: four demos can't show them all.
* ``pipeline``: two programs, each with rules of its own, neither of which is enough alone.
* ``flat``: 70 % right whatever the prompt says: nothing can be gained.
* ``noisy``: 70 % right, on other rows with each prompt: nothing can be gained, and everything looks like a gain.
"""

from __future__ import annotations

import hashlib
import json
import random
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from kaizen import Signature, context, program
from kaizen.learn.data.rows import Row

TOPICS = (
    *("refund", "charge", "password", "login", "crash", "delay", "invoice"),
    *("parcel", "voucher", "address", "contract", "battery", "screen", "meter"),
)
TEAMS = ("red", "green", "blue", "amber", "violet")
CODES = tuple(f"c{number}" for number in range(11, 25))
LEVELS = ("low", "mid", "high")


class Routing(Signature):
    """Name the team that takes the message."""

    message: str = context.input("what the customer wrote")
    team: Literal["red", "green", "blue", "amber", "violet"] = context.output("the team")


class Coding(Signature):
    """Give the message its code."""

    message: str = context.input("what the customer wrote")
    code: str = context.output("the code")


class Level(Signature):
    """Say how urgent the message is."""

    message: str = context.input("what the customer wrote")
    level: Literal["low", "mid", "high"] = context.output("how urgent")


class Flat(Signature):
    """Name the team."""

    message: str = context.input("what the customer wrote")
    team: Literal["red", "green", "blue", "amber", "violet"] = context.output("the team")


class Noisy(Signature):
    """Name the team."""

    message: str = context.input("what the customer wrote")
    team: Literal["red", "green", "blue", "amber", "violet"] = context.output("the team")


@program
async def pipeline(message: str) -> str:
    """Route a message and say how urgent it is."""
    routed = await Routing(message=message)
    urgent = await Level(message=message)
    return f"{routed.team} {urgent.level}"


@dataclass(frozen=True)
class Named:
    """A task: its program, the topics it has, and the right answer of each."""

    name: str
    program: Any
    topics: tuple[str, ...]
    label: Callable[[str], Mapping[str, Any]]
    gains: bool = True


def _pick(values: tuple[str, ...], *words: object) -> str:
    return values[int(draw("rule", *words) * len(values))]


def team_of(topic: str) -> str:
    return _pick(TEAMS, "team", topic)


def code_of(topic: str) -> str:
    return CODES[TOPICS.index(topic)]


def level_of(topic: str) -> str:
    return _pick(LEVELS, "level", topic)


def draw(*words: object) -> float:
    """A number from 0 to 1 that the words decide."""
    return int(hashlib.sha256(json.dumps(words).encode()).hexdigest()[:12], 16) / 16**12


TASKS: Mapping[str, Named] = {
    one.name: one
    for one in (
        Named("routing", Routing, TOPICS[:10], lambda topic: {"team": team_of(topic)}),
        Named("codes", Coding, TOPICS, lambda topic: {"code": code_of(topic)}),
        Named(
            "pipeline",
            pipeline,
            TOPICS[:6],
            lambda topic: {"result": f"{team_of(topic)} {level_of(topic)}"},
        ),
        Named("flat", Flat, TOPICS[:10], lambda topic: {"team": team_of(topic)}, gains=False),
        Named("noisy", Noisy, TOPICS[:10], lambda topic: {"team": team_of(topic)}, gains=False),
    )
}


def rows(task: Named, count: int, seed: str) -> tuple[Row, ...]:
    """Labelled rows of a task; other seeds give other rows."""
    rng = random.Random(f"{task.name} {seed}")
    topics = [rng.choice(task.topics) for _ in range(count)]
    return tuple(
        Row({"message": f"no. {rng.randrange(10**9)}, about the {topic}, please help"}, task.label(topic))
        for topic in topics
    )


# -- the model --------------------------------------------------------------------------------------

_TOPIC = re.compile("|".join(TOPICS))
_RULE = re.compile(rf"({'|'.join(TOPICS)}) means ([a-z0-9]+)")
_FOLLOWS, _GUESSES = 0.92, 0.15
_NOTICED, _NOTICED_WRONG, _MOST = 0.3, 0.6, 4


def reply(body: Mapping[str, Any]) -> str:
    """What the model writes for a chat request."""
    messages = [(one["role"], _text(one["content"])) for one in body["messages"]]
    system = messages[0][1]
    if system.startswith(("Write a better instruction", "Revise the instruction")):
        return _proposal(system, messages[-1][1])
    return _answer(system, messages)


def _text(content: Any) -> str:
    return content if isinstance(content, str) else "".join(part.get("text", "") for part in content)


def _field(system: str) -> str:
    return next(name for name in ("team", "code", "level") if f"- {name} (" in system)


def _answer(system: str, messages: list[tuple[str, str]]) -> str:
    field = _field(system)
    asked = messages[-1][1]
    found = _TOPIC.search(asked)
    topic = found[0] if found else ""
    right = {"team": team_of, "code": code_of, "level": level_of}[field](topic)
    values = {"team": TEAMS, "code": CODES, "level": LEVELS}[field]
    wrong = [value for value in values if value != right]
    other = wrong[int(draw("other", asked) * len(wrong))]
    told = dict(_RULE.findall(system))
    for (role, text), (_, answered) in zip(messages[1:-1:2], messages[2:-1:2], strict=False):
        shown = _TOPIC.search(text)
        if role == "user" and shown:
            told.setdefault(shown[0], json.loads(answered)[field])
    prompt = digest_of(messages)
    if topic in told:
        return json.dumps({field: told[topic] if draw("follows", prompt) < _FOLLOWS else other})
    return json.dumps({field: right if draw("guess", asked) < _GUESSES else other})


def digest_of(messages: list[tuple[str, str]]) -> str:
    return hashlib.sha256(json.dumps(messages).encode()).hexdigest()


def _proposal(system: str, asked: str) -> str:
    """A new instruction: the rules it knew already, and some of those that the examples in front of it show."""
    key = "revised" if system.startswith("Revise") else "instruction"
    field = next((name for name in ("team", "code", "level") if f"\n- {name}" in asked), "team")
    known = dict(_RULE.findall(asked.split("\nexamples", 1)[0].split("\ncases", 1)[0]))
    noticed: dict[str, str] = {}
    for block in re.split(r"\n\n", asked):
        topic = _TOPIC.search(block)
        label = re.search(rf'right outputs: \{{"(?:{field}|result)":"([^"]+)"', block)
        if topic is None or label is None or topic[0] in known:
            continue
        value = label[1].split()[{"team": 0, "level": -1}.get(field, 0)]
        wrong = "what is wrong" in block
        if draw("notice", asked, topic[0]) < (_NOTICED_WRONG if wrong else _NOTICED):
            noticed[topic[0]] = value
    new = dict(list(noticed.items())[:_MOST])
    rules = " ".join(f"{topic} means {value}." for topic, value in sorted({**known, **new}.items()))
    opening = ("Decide by the topic.", "Look at what the message is about.", "Read the message.")
    return json.dumps({key: f"{opening[int(draw('opening', asked) * 3)]} {rules}".strip()})


def flat_reply(body: Mapping[str, Any]) -> str:
    """The same model at a task in which nothing can be gained: right in 70 % of the rows."""
    messages = [(one["role"], _text(one["content"])) for one in body["messages"]]
    return _at_chance(messages, messages[-1][1])


def noisy_reply(body: Mapping[str, Any]) -> str:
    """Right in 70 % of the rows, other rows with every prompt."""
    messages = [(one["role"], _text(one["content"])) for one in body["messages"]]
    return _at_chance(messages, digest_of(messages))


def _at_chance(messages: list[tuple[str, str]], key: str) -> str:
    system, asked = messages[0][1], messages[-1][1]
    if system.startswith(("Write a better instruction", "Revise the instruction")):
        return _proposal(system, asked)
    found = _TOPIC.search(asked)
    right = team_of(found[0] if found else "")
    wrong = [value for value in TEAMS if value != right]
    return json.dumps({"team": right if draw("chance", key) < 0.7 else wrong[int(draw("which", key) * len(wrong))]})


REPLIES: Mapping[str, Callable[[Mapping[str, Any]], str]] = {"flat": flat_reply, "noisy": noisy_reply}
"""By task; ``reply`` for the others."""
