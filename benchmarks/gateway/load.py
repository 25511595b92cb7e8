"""A load generator: so many connections, one request after another on each. Standard library only.

    python benchmarks/gateway/load.py ADDRESS

It takes commands, a line of JSON each: ``{"path", "headers", "bodies", "connections", "requests"}``, and answers a line
of JSON: seconds, latencies in ms (p50, p99), statuses, and how many were not whole. The bodies are sent in turn.

With ``rate`` the load is open: requests are due at random moments, so many a second (a Poisson process, seeded), each
is sent on an idle connection, and waits where there is none; its latency counts from the moment when it was due.
"""

import asyncio
import collections
import gc
import itertools
import json
import random
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
        if not is_whole(got):
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


class Paced(asyncio.Protocol):
    """One connection of an open load: it is told when to send."""

    def __init__(self, load: "Open") -> None:
        self._load = load
        self._data = bytearray()
        self._due = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def send(self, request: bytes, due: float) -> None:
        self._due = due
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        self._data += data
        if is_whole(self._data):
            got, due = bytes(self._data), self._due
            self._data.clear()
            self._due = 0.0
            self._load.answered(self, time.perf_counter() - due, got)

    def connection_lost(self, exc: Exception | None) -> None:
        self._load.lost(self, working=self._due > 0)

    def close(self) -> None:
        self._due = 0.0
        self._transport.close()


class Open:
    """An open load: so many requests a second, whether or not those before are answered."""

    def __init__(self, requests: Iterator[bytes], rate: float, tally: "Tally") -> None:
        self._requests, self._rate, self.tally = requests, rate, tally
        self._rng = random.Random(7)
        # the one that was not used for the longest time goes first: servers close what pauses for long
        self._idle: collections.deque[Paced] = collections.deque()
        self._waiting: collections.deque[tuple[bytes, float]] = collections.deque()
        self._left, self._last, self._over = 0, False, asyncio.Event()
        self._making: set[asyncio.Task[Paced]] = set()

    async def run(self, host: str, port: int, connections: int) -> None:
        self._host, self._port = host, port
        for _ in range(connections):
            self._idle.append(await self._connect())
        due = time.perf_counter()
        for request in self._requests:
            due += self._rng.expovariate(self._rate)
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            self._left += 1
            if self._idle:
                self._idle.popleft().send(request, due)
            else:
                self._waiting.append((request, due))
        self._last = True
        if self._left:
            await self._over.wait()
        for one in list(self._idle):
            one.close()

    async def _connect(self) -> Paced:
        _, made = await asyncio.get_running_loop().create_connection(lambda: Paced(self), self._host, self._port)
        return made

    def lost(self, connection: Paced, *, working: bool) -> None:
        """A server may close what pauses, and another takes its place; a call that is cut counts."""
        if connection in self._idle:
            self._idle.remove(connection)
        self.tally.cut += working
        self._ended(int(working))
        if not self._last:
            task = asyncio.get_running_loop().create_task(self._connect())
            self._making.add(task)
            task.add_done_callback(self._made)

    def _made(self, task: "asyncio.Task[Paced]") -> None:
        self._making.discard(task)
        self._free(task.result())

    def answered(self, connection: Paced, seconds: float, answer: bytes) -> None:
        self.tally.add(seconds, answer)
        self._ended(1)
        self._free(connection)

    def _ended(self, calls: int) -> None:
        self._left -= calls
        if self._last and not self._left:
            self._over.set()

    def _free(self, connection: Paced) -> None:
        if self._waiting:
            connection.send(*self._waiting.popleft())
        else:
            self._idle.append(connection)


def is_whole(got: bytearray) -> bool:
    """Whether an answer's bytes are all there."""
    head = got.find(b"\r\n\r\n")
    if head < 0:
        return False
    length = got.find(b"content-length: ", 0, head)
    if length < 0:
        return got.endswith(b"\r\n0\r\n\r\n")
    return len(got) >= head + 4 + int(got[length + 16 : got.find(b"\r\n", length)])


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
    if "rate" in todo:
        await Open(requests, todo["rate"], tally).run(host, port, todo["connections"])
    else:
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
