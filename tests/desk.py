"""A small task for optimizers and a model to go with it, whose answers depend on what its prompt states and shows."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, Literal

from kaizen import Signature, context, program
from kaizen.core.request import Request
from kaizen.learn.data.rows import Row

TEAMS: Mapping[str, str] = {
    "refund": "red",
    "parcel": "blue",
    "password": "green",
    "crash": "red",
    "invoice": "blue",
    "meter": "green",
}
_RULE = re.compile(r"(\w+) means (\w+)")
_TOPIC = re.compile("|".join(TEAMS))


class Desk(Signature):
    """Name the team."""

    message: str = context.input("what the customer wrote")
    team: Literal["red", "green", "blue", "none"] = context.output("the team")


@program
async def front(message: str) -> str:
    """Name the team, by the desk."""
    return (await Desk(message=message)).team


def rows(count: int, start: int = 0, output: str = "team") -> tuple[Row, ...]:
    """Labelled rows; those of another start are others."""
    topics = list(TEAMS)
    numbers = range(start, start + count)
    return tuple(
        Row({"message": f"no. {number}: my {topics[number % 6]}"}, {output: TEAMS[topics[number % 6]]})
        for number in numbers
    )


def said(system: str, turns: list[tuple[str, str]]) -> str:
    """What the model writes: right where its prompt states the topic's rule or shows a demo of it.

    Asked for an instruction, it states the rules that the examples or cases in front of it show.
    """
    asked = turns[-1][1]
    if system.startswith(("Write a better instruction", "Revise the instruction")):
        key = "revised" if system.startswith("Revise") else "instruction"
        rules = dict(_RULE.findall(asked))
        for block in asked.split("\n\n"):
            topic, label = _TOPIC.search(block), re.search(r'right outputs: \{"\w+":"(\w+)"', block)
            if topic and label:
                rules[topic[0]] = label[1]
        return json.dumps({key: " ".join(["Name it."] + [f"{a} means {b}." for a, b in sorted(rules.items())])})
    known = dict(_RULE.findall(system))
    for (_, text), (_, answered) in zip(turns[:-1:2], turns[1::2], strict=False):
        found = _TOPIC.search(text)
        if found:
            known[found[0]] = json.loads(answered)["team"]
    found = _TOPIC.search(asked)
    return json.dumps({"team": known.get(found[0] if found else "", "none")})


def by_request(request: Request) -> str:
    """The model, for ``ScriptedProvider``."""
    system, *turns = [(message.role, message.text) for message in request.messages]
    return said(system[1], turns)


def by_body(body: Mapping[str, Any]) -> str:
    """The model, for ``FaultServer``."""
    system, *turns = [(one["role"], _text(one["content"])) for one in body["messages"]]
    return said(system[1], turns)


def _text(content: Any) -> str:
    return content if isinstance(content, str) else "".join(part.get("text", "") for part in content)
