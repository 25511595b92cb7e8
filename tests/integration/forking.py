"""A program that has run forks; the child runs it too and reads the records. For ``test_fork``."""

from __future__ import annotations

import asyncio
import os
import signal

import kaizen.app
from kaizen import Signature, context
from kaizen.core.request import Request
from kaizen.testing.scripted import ScriptedProvider


class Echo(Signature):
    """Say it again."""

    said: str = context.input("a word")
    again: str = context.output("the same word")


async def count() -> int:
    app = kaizen.app.current()
    return len([record async for record in app.ledger.records(app.scope)])


def answer(_: Request) -> str:
    return '{"again": "x"}'


def main() -> None:
    kaizen.configure(model="p/m", providers={"p": ScriptedProvider(answer)})
    Echo.execute(said="before")
    kaizen.app.current()._portal.call(count, "count")  # so that the store has threads to lose
    child = os.fork()
    if not child:
        signal.alarm(20)
        for number in range(3):
            Echo.execute(said=f"in the child {number}")
        os._exit(asyncio.run(count()) and 0)
    for number in range(3):
        Echo.execute(said=f"in the parent {number}")
    _, status = os.waitpid(child, 0)
    print(os.waitstatus_to_exitcode(status), asyncio.run(count()))


if __name__ == "__main__":
    main()
