"""A process that serves a program through an App of its own: ``python release_worker.py SETTINGS``, a command a line.

``run`` answers the version that ran; ``watch VERSION`` runs until that version does, and answers the Unix time of it;
``label LABEL VERSION`` and ``back`` move, and answer the Unix time when that was done.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from pathlib import Path

from kaizen import Signature, context
from kaizen.app import App, build
from kaizen.core.artifact import Arm
from kaizen.settings import load_settings


class Triage(Signature):
    """Name the team."""

    message: str = context.input("what the customer wrote")
    team: str = context.output("the team")


NAME = Triage.spec.name


async def obey(app: App, words: list[str]) -> str:
    match words:
        case ["name"]:
            return NAME
        case ["run"]:
            return (await app.run(Triage, {"message": "x"})).record.version or ""
        case ["watch", version]:
            give_up = time.monotonic() + 10
            while time.monotonic() < give_up:
                if (await app.run(Triage, {"message": "x"})).record.version == version:
                    return f"{time.time()}"
                await asyncio.sleep(0.02)
            return "inf"
        case ["label", label, version]:
            await app.registry.label(app.scope, "params", NAME, label, [Arm(version)], actor="worker", reason="")
            return f"{time.time()}"
        case _:
            await app.registry.rollback(app.scope, "params", NAME, "prod", actor="worker", reason="")
            return f"{time.time()}"


async def main() -> None:
    app = build(load_settings(Path.cwd(), {}, json.loads(sys.argv[1])))
    loop = asyncio.get_running_loop()
    while line := (await loop.run_in_executor(None, sys.stdin.readline)).strip():
        sys.stdout.write(f"{await obey(app, line.split())}\n")
        sys.stdout.flush()
    await app.close()


if __name__ == "__main__":
    asyncio.run(main())
