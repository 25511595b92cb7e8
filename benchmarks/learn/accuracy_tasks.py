"""The programs of ``accuracy.py``, as somebody would write them who knows nothing of how they are made better."""

from typing import Literal

from kaizen import Signature, context


class Sst2(Signature):
    """Say whether a sentence of a film review is positive or negative."""

    text: str = context.input("a sentence of a film review")
    label: Literal["positive", "negative"] = context.output("what the sentence says about the film")


class Banking8(Signature):
    """Name what a customer of a bank wants."""

    text: str = context.input("what the customer wrote")
    label: Literal[
        "card_arrival",
        "lost_or_stolen_card",
        "exchange_rate",
        "pending_top_up",
        "change_pin",
        "Refund_not_showing_up",
        "country_support",
        "terminate_account",
    ] = context.output("what it is about")


class Slots(Signature):
    """Find what a restaurant's guest says about a booking."""

    text: str = context.input("what the guest wrote")
    people: str | None = context.output("for how many people")
    date: str | None = context.output("the day")
    time: str | None = context.output("the time")
    first_name: str | None = context.output("the guest's first name")
    last_name: str | None = context.output("the guest's last name")
