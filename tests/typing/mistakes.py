"""Mistakes of a user's that a strict type checker finds: each on its line, marked with the rule that finds it."""

from __future__ import annotations

from kaizen import Signature, best_of, context, program


class Triage(Signature):
    message: str = context.input()
    team: str = context.output()


@program
async def route(message: str) -> str:
    return message


async def main() -> None:
    await Triage(mesage="x")  # reportCallIssue
    await Triage(message=5)  # reportArgumentType
    await Triage("x")  # reportCallIssue
    await Triage(message="x", team="cards")  # reportCallIssue
    await Triage()  # reportCallIssue
    _ = (await Triage(message="x")).tem  # reportAttributeAccessIssue
    await route(mesage="x")  # reportCallIssue
    await route(5)  # reportArgumentType
    route.execute(message=5)  # reportArgumentType
    best_of(Triage, 2)  # reportCallIssue
