"""A load generator: so many connections, one request after another on each. Standard library only.

    python benchmarks/gateway/load.py ADDRESS

It takes commands, a line of JSON each: ``{"path", "headers", "bodies", "connections", "requests"}``, and answers a line
of JSON: seconds, latencies in ms (p50, p99), statuses, and how many were not whole. The bodies are sent in turn.
"""

import asyncio
import collections
import gc
import itertools
import json
import sys
import time
from collections.abc import Iterator


class Client(asyncio.Protocol):
    """One connection."""

    def __init__(self, requests: Iterator[bytes], tally: "Tally") -> None:
        self._requests, self._tally = requests, tally
        self._data = bytearray()
        self._begun = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._next()

    def data_received(self, data: bytes) -> None:
        got = self._data
        got += data
        head = got.find(b"\r\n\r\n")
        if head < 0:
            return
        length = got.find(b"content-length: ", 0, head)
        if length >= 0:
            whole = head + 4 + int(got[length + 16 : got.find(b"\r\n", length)])
            if len(got) < whole:
                return
        elif not got.endswith(b"\r\n0\r\n\r\n"):
            return
        self._tally.add(time.perf_counter() - self._begun, bytes(got))
        got.clear()
        self._next()

    def connection_lost(self, exc: Exception | None) -> None:
        self._tally.lost(bool(self._data) or self._begun > 0)

    def _next(self) -> None:
        request = next(self._requests, None)
        if request is None:
            self._begun = 0.0
            self._transport.close()
            return
        self._begun = time.perf_counter()
        self._transport.write(request)


class Tally:
    def __init__(self, connections: int) -> None:
        self._open = connections
        self.latencies: list[float] = []
        self.statuses: collections.Counter[str] = collections.Counter()
        self.cut = 0
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def add(self, seconds: float, answer: bytes) -> None:
        self.latencies.append(seconds)
        self.statuses[answer[9:12].decode()] += 1
        if b'data: {"error"' in answer or (b"chunked" in answer[:400] and b"[DONE]" not in answer[-40:]):
            self.cut += 1

    def lost(self, working: bool) -> None:
        self.cut += working
        self._open -= 1
        if self._open == 0:
            self.done.set_result(None)


def request_bytes(path: str, headers: dict[str, str], body: str) -> bytes:
    data = body.encode()
    lines = [f"POST {path} HTTP/1.1", "host: localhost", f"content-length: {len(data)}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + data


async def measure(host: str, port: int, todo: dict) -> dict:
    made = [request_bytes(todo["path"], todo["headers"], body) for body in todo["bodies"]]
    requests = iter(itertools.islice(itertools.cycle(made), todo["requests"]))
    tally = Tally(todo["connections"])
    loop = asyncio.get_running_loop()
    begun = time.perf_counter()
    for _ in range(todo["connections"]):
        await loop.create_connection(lambda: Client(requests, tally), host, port)
    await tally.done
    seconds = time.perf_counter() - begun
    ordered = sorted(tally.latencies)
    return {
        "seconds": seconds,
        "per_second": len(ordered) / seconds,
        "p50_ms": ordered[len(ordered) // 2] * 1000,
        "p99_ms": ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))] * 1000,
        "statuses": dict(tally.statuses),
        "cut": tally.cut,
    }


def main() -> None:
    host, _, port = sys.argv[1].removeprefix("http://").partition(":")
    gc.freeze()
    for line in sys.stdin:
        print(json.dumps(asyncio.run(measure(host, int(port), json.loads(line)))), flush=True)


if __name__ == "__main__":
    main()
