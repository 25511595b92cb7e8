"""What the embedded provider costs above xllamacpp's own `Server.handle_chat_completions` with the same body.

    python benchmarks/embedded_overhead.py --json out.json

Both ask the same loaded model with the same bytes, turn about, the one that begins changing each round; xllamacpp is
driven in streaming mode as well, since that is the only way it can be cancelled, its pieces are only counted. Reported
for `complete` and for a `stream` read to its end: the median of the differences of the pairs in milliseconds, and its
95 % interval from the ranks of the sorted differences (no distribution assumed). The bar is 3 ms; on a busy machine the
interval is wide, so run it on a quiet one, or with more rounds.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import os
import platform
import statistics
import sys
import time
from collections.abc import Awaitable, Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

from kaizen.core.message import Message
from kaizen.core.request import Decoding, OutputSchema, Request
from kaizen.core.scope import LOCAL
from kaizen.providers.embedded import EmbeddedProvider
from kaizen.providers.llama import LlamaOptions, llama_model
from kaizen.providers.llama_chat import chat_body
from kaizen.providers.weights import find_weights

BAR_MS = 3.0
ROUTE = {
    "type": "object",
    "properties": {
        "team": {"enum": ["cards", "transfers", "accounts"]},
        "urgency": {"type": "integer", "minimum": 1, "maximum": 5},
    },
    "required": ["team", "urgency"],
}
REQUEST = Request(
    scope=LOCAL,
    model="embedded/smollm2-135m",
    messages=(
        Message.of("system", "Name the team that owns a bank customer's message, and how urgent it is."),
        Message.of("user", "Someone stole my card at the station an hour ago."),
    ),
    output=OutputSchema("route", ROUTE),
    decoding=Decoding(temperature=0, max_tokens=40),
)


def interval(differences: list[float]) -> tuple[float, float]:
    """The 95 % interval of a median, from the ranks that a fair coin leaves out (normal approximation)."""
    ordered, n = sorted(differences), len(differences)
    reach = 1.96 * math.sqrt(n) / 2
    return ordered[max(0, math.floor(n / 2 - reach))], ordered[min(n - 1, math.ceil(n / 2 + reach))]


async def pairs(direct: Callable[[], None], ours: Callable[[], Awaitable[object]], rounds: int) -> dict[str, Any]:
    """Both in turn, `rounds` times; the first of a pair changes, so that a drift hits both."""
    times: dict[str, list[float]] = {"direct": [], "ours": []}
    for number in range(rounds):
        for name in ("direct", "ours") if number % 2 else ("ours", "direct"):
            begun = time.perf_counter()
            if name == "direct":
                direct()
            else:
                await ours()
            times[name].append((time.perf_counter() - begun) * 1000)
    differences = [ours - direct for ours, direct in zip(times["ours"], times["direct"], strict=True)]
    low, high = interval(differences)
    return {
        "direct_ms": round(statistics.median(times["direct"]), 3),
        "ours_ms": round(statistics.median(times["ours"]), 3),
        "difference_ms": round(statistics.median(differences), 3),
        "interval_95_ms": [round(low, 3), round(high, 3)],
    }


async def measure(weights: Path, rounds: int) -> dict[str, Any]:
    options = LlamaOptions(weights, threads=1, slots=2, context=4096)
    provider = EmbeddedProvider("embedded", {"smollm2-135m": weights}, threads=1, slots=2, context=4096)
    reply = await provider.complete(REQUEST)
    server: Any = llama_model(options)._server
    body = chat_body(REQUEST)

    def direct() -> None:
        pieces: list[bytes] = []
        server.handle_chat_completions(body, pieces.append)
        assert len(pieces) > reply.usage.tokens_out

    async def stream() -> None:
        async for _ in provider.stream(REQUEST):
            pass

    for _ in range(3):  # the prompt is cached and the grammar's tables are built
        direct()
        await provider.complete(REQUEST)
    return {
        "reply": reply.text,
        "tokens_in": reply.usage.tokens_in,
        "tokens_out": reply.usage.tokens_out,
        "complete": await pairs(direct, lambda: provider.complete(REQUEST), rounds),
        "stream": await pairs(direct, stream, rounds),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="where the results go")
    parser.add_argument("--rounds", type=int, default=60)
    arguments = parser.parse_args()
    weights = find_weights("smollm2-135m", Path())
    if weights is None:
        print("the weights of the embedded model are not installed", file=sys.stderr)
        return 1
    figures = asyncio.run(measure(weights, arguments.rounds))
    result = {
        "command": "python benchmarks/embedded_overhead.py " + " ".join(sys.argv[1:]),
        "machine": {
            "system": f"{platform.system()} {platform.machine()}",
            "cores": os.cpu_count(),
            "python": platform.python_version(),
            "xllamacpp": version("xllamacpp"),
            "load": os.getloadavg(),
        },
        "rounds": arguments.rounds,
        "bar_ms": BAR_MS,
        **figures,
    }
    text = json.dumps(result, indent=1)
    print(text)
    if arguments.json is not None:
        arguments.json.write_text(text + "\n")
    return int(max(figures[way]["difference_ms"] for way in ("complete", "stream")) >= BAR_MS)


if __name__ == "__main__":
    raise SystemExit(main())
