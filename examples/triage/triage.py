"""The contract of the example: whose desk does a bank customer's message belong on?"""

from __future__ import annotations

from typing import Literal

from kaizen import Signature, context

Team = Literal["cards", "transfers", "accounts"]


class Triage(Signature):
    """Sort bank messages by team.

    cards: debit and credit cards, PIN, cash machines, card purchases.
    transfers: sending or receiving money, standing orders, direct debits.
    accounts: opening, closing, login, personal data, statements, interest, fees.
    """

    message: str = context.input("what the customer wrote")
    team: Team = context.output("the team that owns it")
