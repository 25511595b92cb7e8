"""A process that asks through an App of its own: ``python exact_worker.py SETTINGS``, a command a line.

``ask TEXT`` answers the tier and the words, ``drop TAG`` how many answers went.
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

from kaizen.app import build
from kaizen.core.identity import Identity
from kaizen.core.message import Message
from kaizen.core.request import Options, Request
from kaizen.settings import load_settings


async def main() -> None:
    app = build(load_settings(Path.cwd(), {}, json.loads(sys.argv[1])))
    ctx = app.context(Identity(scope=app.scope, principal="key:1"))
    loop = asyncio.get_running_loop()
    while line := (await loop.run_in_executor(None, sys.stdin.readline)).strip():
        command, _, text = line.partition(" ")
        if command == "ask":
            request = Request(
                scope=app.scope,
                model="mine/large",
                messages=(Message.of("user", text),),
                options=Options(exact=True, tags=("document:7f",)),
            )
            reply = await ctx.complete(request)
            said = f"{reply.tier} {reply.text}"
        else:
            said = str(await app.cache.invalidate(app.scope, [text]))
        sys.stdout.write(f"{said}\n")
        sys.stdout.flush()
    await app.close()


asyncio.run(main())
