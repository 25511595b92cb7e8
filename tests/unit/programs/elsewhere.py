"""The same programs in another module, with annotations that are not strings."""

from typing import Any, Literal

from pydantic import BaseModel

from kaizen import Signature, context, signature


class Item(BaseModel):
    other: int


class Triage(Signature):
    """Name the team that owns a bank customer's message, and how urgent it is."""

    message: str = context.input("what the customer wrote")
    team: Literal["cards", "transfers", "accounts"] = context.output("the team that owns it")
    urgency: int = context.output("1 can wait .. 5 now", ge=1, le=5)


@signature
class Decorated:
    """Name the team that owns a bank customer's message, and how urgent it is."""

    message: str = context.input("what the customer wrote")
    team: Literal["cards", "transfers", "accounts"] = context.output("the team that owns it")
    urgency: int = context.output("1 can wait .. 5 now", ge=1, le=5)


def local() -> Any:
    team_type = Literal["cards", "transfers", "accounts"]

    class Local(Signature):
        """Name the team that owns a bank customer's message, and how urgent it is."""

        message: str = context.input()
        team: team_type = context.output()  # type: ignore[valid-type]
        urgency: int = context.output(ge=1, le=5)

    return Local
