"""The same structured call in each library: run in an environment that has that library.

    python benchmarks/peers.py NAME BASE_URL [HOME]

A call sends one message and gives back the team and the urgency, typed and validated. The process then takes commands,
one a line: `1 N` makes N calls one after another, `32 N` keeps 32 in flight, `crowd N SECONDS` starts N at once,
`plant US` has each later call burn so many microseconds more, `count` counts what was kept. Each answers one line of
JSON.
"""

import asyncio
import contextlib
import json
import sqlite3
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, Literal

sys.path.insert(0, str(Path(__file__).resolve().parent))

from lab import ANSWER, MODEL, line, peak_mib

DOC = "Name the team that owns a bank customer's message, and how urgent it is."
SCHEMA = {
    "type": "object",
    "properties": {
        "team": {"enum": ["cards", "transfers", "accounts"], "type": "string", "description": "the team that owns it"},
        "urgency": {"type": "integer", "minimum": 1, "maximum": 5, "description": "1 can wait .. 5 now"},
    },
    "required": ["team", "urgency"],
    "additionalProperties": False,
}
FORMAT = {"type": "json_schema", "json_schema": {"name": "Triage", "schema": SCHEMA, "strict": True}}

Call = Callable[[str], Awaitable[tuple[str, int]]]
Open = Callable[[str, Path], contextlib.AbstractAsyncContextManager[Call]]


def body(message: str) -> dict[str, Any]:
    """What the libraries without a notion of a structured call are given to post."""
    messages = [{"role": "system", "content": DOC}, {"role": "user", "content": message}]
    return {"model": MODEL, "messages": messages, "response_format": FORMAT}


def triage() -> Any:
    """The answer as a pydantic model."""
    from pydantic import BaseModel, Field

    class Triage(BaseModel):
        """The team that owns a bank customer's message, and how urgent it is."""

        team: Literal["cards", "transfers", "accounts"] = Field(description="the team that owns it")
        urgency: int = Field(description="1 can wait .. 5 now", ge=1, le=5)

    return Triage


# -- ours -----------------------------------------------------------------------------------------


def our_program(base: str, home: Path, **more: Any) -> Any:
    from kaizen import Signature, configure, context

    class Triage(Signature):
        """Name the team that owns a bank customer's message, and how urgent it is."""

        message: str = context.input("what the customer wrote")
        team: Literal["cards", "transfers", "accounts"] = context.output("the team that owns it")
        urgency: int = context.output("1 can wait .. 5 now", ge=1, le=5)

    mine = {"kind": "openai", "base_url": base, "api_key": "k"}
    configure(home=str(home), providers={"mine": mine}, model=f"mine/{MODEL}", **more)
    return Triage


@contextlib.asynccontextmanager
async def open_kaizen(base: str, home: Path, **more: Any) -> AsyncIterator[Call]:
    from kaizen.app import current

    program = our_program(base, home, **more)

    async def call(message: str) -> tuple[str, int]:
        answer = await program(message=message)
        return answer.team, answer.urgency

    yield call
    await current().close()


def open_kaizen_bare(base: str, home: Path) -> contextlib.AbstractAsyncContextManager[Call]:
    return open_kaizen(base, home, ledger={"payloads": False})


# -- others ---------------------------------------------------------------------------------------


def dspy_program(base: str) -> Any:
    import dspy

    class Triage(dspy.Signature):
        """Name the team that owns a bank customer's message, and how urgent it is."""

        message: str = dspy.InputField(desc="what the customer wrote")
        team: Literal["cards", "transfers", "accounts"] = dspy.OutputField(desc="the team that owns it")
        urgency: int = dspy.OutputField(desc="1 can wait .. 5 now", ge=1, le=5)

    model = dspy.LM(f"openai/{MODEL}", api_base=base, api_key="k", cache=False)
    dspy.configure(lm=model, adapter=dspy.JSONAdapter())
    return dspy.Predict(Triage)


@contextlib.asynccontextmanager
async def open_dspy(base: str, home: Path) -> AsyncIterator[Call]:
    program = dspy_program(base)

    async def call(message: str) -> tuple[str, int]:
        answer = await program.acall(message=message)
        return answer.team, answer.urgency

    yield call


@contextlib.asynccontextmanager
async def open_openai(base: str, home: Path) -> AsyncIterator[Call]:
    from openai import AsyncOpenAI

    model = triage()
    async with AsyncOpenAI(base_url=base, api_key="k") as client:

        async def call(message: str) -> tuple[str, int]:
            messages = body(message)["messages"]
            reply = await client.chat.completions.parse(model=MODEL, messages=messages, response_format=model)
            answer = reply.choices[0].message.parsed
            return answer.team, answer.urgency

        yield call


@contextlib.asynccontextmanager
async def open_aiohttp(base: str, home: Path) -> AsyncIterator[Call]:
    import aiohttp

    connector = aiohttp.TCPConnector(limit=1000)
    async with aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar()) as session:

        async def call(message: str) -> tuple[str, int]:
            async with session.post(f"{base}/chat/completions", json=body(message)) as reply:
                answer = json.loads((await reply.json())["choices"][0]["message"]["content"])
            return answer["team"], answer["urgency"]

        yield call


@contextlib.asynccontextmanager
async def open_httpx(base: str, home: Path) -> AsyncIterator[Call]:
    import httpx

    async with httpx.AsyncClient(trust_env=False) as client:

        async def call(message: str) -> tuple[str, int]:
            reply = await client.post(f"{base}/chat/completions", json=body(message))
            answer = json.loads(reply.json()["choices"][0]["message"]["content"])
            return answer["team"], answer["urgency"]

        yield call


@contextlib.asynccontextmanager
async def open_pydantic_ai(base: str, home: Path) -> AsyncIterator[Call]:
    from pydantic_ai import Agent, NativeOutput
    from pydantic_ai.models.openai import OpenAIChatModel
    from pydantic_ai.providers.openai import OpenAIProvider

    model = OpenAIChatModel(MODEL, provider=OpenAIProvider(base_url=base, api_key="k"))
    agent: Any = Agent(model, output_type=NativeOutput(triage()), instructions=DOC)

    async def call(message: str) -> tuple[str, int]:
        answer = (await agent.run(message)).output
        return answer.team, answer.urgency

    yield call


@contextlib.asynccontextmanager
async def open_instructor(base: str, home: Path) -> AsyncIterator[Call]:
    import instructor
    from openai import AsyncOpenAI

    answer_type = triage()
    async with AsyncOpenAI(base_url=base, api_key="k") as raw:
        client = instructor.from_openai(raw, mode=instructor.Mode.JSON_SCHEMA)

        async def call(message: str) -> tuple[str, int]:
            messages: Any = body(message)["messages"]
            answer: Any = await client.chat.completions.create(
                model=MODEL, messages=messages, response_model=answer_type
            )
            return answer.team, answer.urgency

        yield call


@contextlib.asynccontextmanager
async def open_langchain(base: str, home: Path) -> AsyncIterator[Call]:
    from langchain_core.prompts import ChatPromptTemplate
    from langchain_openai import ChatOpenAI

    model: Any = ChatOpenAI(model=MODEL, base_url=base, api_key="k")  # pyright: ignore[reportArgumentType]
    prompt = ChatPromptTemplate.from_messages([("system", DOC), ("user", "{message}")])
    chain = prompt | model.with_structured_output(triage(), method="json_schema")

    async def call(message: str) -> tuple[str, int]:
        answer = await chain.ainvoke({"message": message})
        return answer.team, answer.urgency

    yield call


OPEN: dict[str, Open] = {
    "kaizen": open_kaizen,
    "kaizen-no-payloads": open_kaizen_bare,
    "dspy": open_dspy,
    "openai": open_openai,
    "pydantic-ai": open_pydantic_ai,
    "instructor": open_instructor,
    "langchain": open_langchain,
    "aiohttp": open_aiohttp,
    "httpx": open_httpx,
}

# -- measuring ------------------------------------------------------------------------------------


class Meter:
    """CPU of the whole process since the last time, so that what its threads do between rounds counts too."""

    def __init__(self) -> None:
        self._last = time.process_time()

    def take(self) -> float:
        """Seconds."""
        now = time.process_time()
        used, self._last = now - self._last, now
        return used


def check(answer: tuple[str, int]) -> None:
    """Every answer has to be the server's."""
    assert answer == (ANSWER["team"], ANSWER["urgency"]), answer


def slower(call: Call, seconds: float) -> Call:
    """The same call, with so much more CPU."""

    async def slow(message: str) -> tuple[str, int]:
        answer = await call(message)
        end = time.thread_time() + seconds
        while time.thread_time() < end:
            pass
        return answer

    return slow


async def lane(call: Call, start: int, count: int) -> None:
    for number in range(start, start + count):
        check(await call(f"Someone stole my card at the station, case {number}."))


async def crowd(call: Call, count: int, seconds: float) -> dict[str, Any]:
    """Start all calls at once; at the time limit the rest is given up."""
    failures: dict[str, int] = {}
    done = 0

    async def one(number: int) -> None:
        nonlocal done
        try:
            check(await call(f"Someone stole my card at the station, case {number}."))
            done += 1
        except Exception as error:  # noqa: BLE001 - any failure counts, whatever its class
            failures[type(error).__name__] = failures.get(type(error).__name__, 0) + 1

    meter, start = Meter(), time.perf_counter()
    tasks = [asyncio.create_task(one(number)) for number in range(count)]
    _, late = await asyncio.wait(tasks, timeout=seconds)
    figures = {
        "answered": done,
        "failed": sum(failures.values()),
        "failures": failures,
        "unfinished": len(late),
        "cpu_s": round(meter.take(), 2),
        "wall_s": round(time.perf_counter() - start, 2),
        "peak_mib": round(peak_mib(), 1),
    }
    for task in late:
        task.cancel()
    await asyncio.wait(tasks, timeout=5)
    return figures


def kept(home: Path) -> dict[str, Any]:
    """What lies in the ledger."""
    file = home / "ledger.db"
    if not file.is_file():
        return {"records": 0}
    with contextlib.closing(sqlite3.connect(file)) as ledger:
        counts = dict(ledger.execute("SELECT kind, count(*) FROM records WHERE status = 'ok' GROUP BY kind").fetchall())
        payloads = ledger.execute("SELECT count(DISTINCT digest) FROM payloads").fetchone()[0]
    return {"records": sum(counts.values()), **counts, "payloads": payloads}


async def serve(name: str, base: str, home: Path) -> None:
    async with OPEN[name](base, home) as bare:
        call, meter, done = bare, Meter(), 0
        while words := await line():
            match words:
                case ["count"]:
                    figures = kept(home)
                case ["plant", us]:
                    call, figures = slower(bare, float(us) / 1e6), {}
                case ["crowd", count, seconds]:
                    figures = await crowd(call, int(count), float(seconds))
                case [at_once, count]:
                    share = int(count) // int(at_once)
                    await asyncio.gather(*(lane(call, done + n * share, share) for n in range(int(at_once))))
                    made = share * int(at_once)
                    done += made
                    figures = {"calls": made, "cpu_us": meter.take() / made * 1e6}
                case _:
                    raise ValueError(words)
            print(json.dumps(figures), flush=True)


def serve_blocking(name: str, base: str, home: Path) -> None:
    """The blocking forms, which need a thread without a loop."""
    run: Any = dspy_program(base) if name == "dspy-sync" else our_program(base, home).execute
    meter, done = Meter(), 0
    while words := sys.stdin.readline().split():
        if words == ["count"]:
            figures = kept(home)
        else:
            count = int(words[1])
            for number in range(done, done + count):
                answer = run(message=f"Someone stole my card at the station, case {number}.")
                check((answer.team, answer.urgency))
            done += count
            figures = {"calls": count, "cpu_us": meter.take() / count * 1e6}
        print(json.dumps(figures), flush=True)


if __name__ == "__main__":
    name, base, *rest = sys.argv[1:]
    home = Path(rest[0]) if rest else Path()
    if name.endswith("-sync"):
        serve_blocking(name, base, home)
    else:
        asyncio.run(serve(name, base, home))
