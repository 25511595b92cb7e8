"""Compare asyncio HTTP clients on what a model adapter asks of one, side by side in one run.

    python benchmarks/http_clients.py --json out.json

Every peer runs in its own process against one loopback server in another process. Reported per peer:

* `import_cpu_ms`: CPU of importing it, beyond asyncio and json.
* `cpu_us_1`, `cpu_us_32`: CPU (all threads) per JSON POST, 1.5 KB up and 1 KB down, with 1 and 32 calls in flight;
  the median of the rounds. The body is read in pieces against a cap, as an adapter must.
* `crowd_*`: 10,000 calls started at once against a server that answers after 50 ms, at most 1,000 connections, the
  rest waiting in a first-in, first-out gate: failed calls, CPU, wall time, peak memory of the process.
* `first_event_ms`: from the call to the first event of a slow event stream (an event each 100 ms).
* `cancel_headers_ms`, `cancel_stream_ms`: from cancelling the awaiting task to the server seeing the connection
  close, while waiting for the reply's head and in mid-stream; `null` when it did not close within two seconds.
* `exit_status`: of the peer's process; negative is the signal that killed it.

CPU time is used because wall time says little on a busy machine. Peers that are not installed are named and skipped.
"""

import argparse
import asyncio
import contextlib
import importlib.util
import json
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, ClassVar

REPLY = json.dumps({"choices": [{"message": {"role": "assistant", "content": "x" * 930}}]}).encode()
REQUEST = json.dumps({"model": "m", "messages": [{"role": "user", "content": "y" * 1420}]}).encode()
HEADERS = {"content-type": "application/json", "authorization": "Bearer none"}
BODY_CAP = 1_000_000
CONNECTIONS = 1_000
CROWD = 10_000
CANCEL_WAIT_S = 2.0

Stream = Callable[[str], AsyncGenerator[bytes, None]]


class Server(asyncio.Protocol):
    """A few canned HTTP/1.1 answers, with as little work per request as asyncio allows.

    The query string names a call; `/closed?NAME` says when the connection that carried it was lost.
    """

    whole = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(REPLY) + REPLY
    stream_head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
    lost: ClassVar[dict[str, float]] = {}

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.buffer = b""
        self.call = ""

    def connection_lost(self, exc: Exception | None) -> None:
        if self.call:
            self.lost[self.call] = time.monotonic()

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        while (end := self.buffer.find(b"\r\n\r\n")) >= 0:
            head = self.buffer[:end].lower()
            at = head.find(b"content-length:")
            size = int(head[at + 15 :].split(b"\r\n", 1)[0]) if at >= 0 else 0
            if len(self.buffer) < end + 4 + size:
                return
            self.buffer = self.buffer[end + 4 + size :]
            path, _, self.call = head.split(b" ", 2)[1].decode().partition("?")
            self.answer(path)

    def answer(self, path: str) -> None:
        loop = asyncio.get_running_loop()
        if path == "/instant":
            self.transport.write(self.whole)
        elif path == "/slow":
            loop.call_later(0.05, self.transport.write, self.whole)
        elif path == "/events":
            self.transport.write(self.stream_head)
            self.event(0)
        elif path == "/closed":
            body = json.dumps(self.lost.get(self.call)).encode()
            self.call = ""
            self.transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        # "/never" is answered by nothing at all.

    def event(self, number: int) -> None:
        if self.transport.is_closing():
            return
        if number == 100:
            self.transport.write(b"0\r\n\r\n")
            return
        data = b'data: {"n": %d}\n\n' % number
        self.transport.write(b"%x\r\n%b\r\n" % (len(data), data))
        asyncio.get_running_loop().call_later(0.1, self.event, number + 1)


async def serve() -> None:
    server = await asyncio.get_running_loop().create_server(Server, "127.0.0.1", 0, backlog=4096)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


class Gate:
    """At most `free` holders; the others wait in order.

    Unlike `asyncio.Semaphore`, neither a cancelled waiter nor a burst of releases costs time that grows with the queue.
    """

    def __init__(self, free: int) -> None:
        self.free = free
        self.waiters: deque[asyncio.Future[None]] = deque()

    async def __aenter__(self) -> None:
        if self.free:
            self.free -= 1
            return
        turn = asyncio.get_running_loop().create_future()
        self.waiters.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if not turn.cancelled():  # the turn had come already: hand it on
                self.pass_on()
            raise

    async def __aexit__(self, *_: object) -> None:
        self.pass_on()

    def pass_on(self) -> None:
        while self.waiters:
            turn = self.waiters.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        self.free += 1


@contextlib.asynccontextmanager
async def open_pyreqwest() -> AsyncIterator[Stream]:
    from pyreqwest.client import ClientBuilder

    builder = ClientBuilder().no_proxy().http1_only().follow_redirects(False).default_headers(HEADERS)
    async with builder.build() as client:

        async def post(url: str) -> AsyncGenerator[bytes, None]:
            # A buffer limit above 0 holds the reply back until so many bytes have come, which stops event streams.
            request = client.post(url).body_bytes(REQUEST).streamed_read_buffer_limit(0).build_streamed()
            async with request as reply:
                while (chunk := await reply.body_reader.read_chunk()) is not None:
                    yield bytes(chunk)

        yield post


@contextlib.asynccontextmanager
async def open_aiohttp() -> AsyncIterator[Stream]:
    import aiohttp

    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0),
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=aiohttp.ClientTimeout(total=None),
        headers=HEADERS,
    ) as session:

        async def post(url: str) -> AsyncGenerator[bytes, None]:
            async with session.post(url, data=REQUEST, allow_redirects=False) as reply:
                async for chunk in reply.content.iter_any():
                    yield chunk

        yield post


@contextlib.asynccontextmanager
async def open_httpx() -> AsyncIterator[Stream]:
    import httpx

    limits = httpx.Limits(max_connections=None, max_keepalive_connections=CONNECTIONS)
    async with httpx.AsyncClient(
        limits=limits, timeout=httpx.Timeout(None), trust_env=False, headers=HEADERS
    ) as client:

        async def post(url: str) -> AsyncGenerator[bytes, None]:
            async with client.stream("POST", url, content=REQUEST) as reply:
                async for chunk in reply.aiter_bytes():
                    yield chunk

        yield post


@dataclass(frozen=True)
class Asked:
    model: str = "m/m"
    deadline: float | None = None


@contextlib.asynccontextmanager
async def open_kaizen() -> AsyncIterator[Stream]:
    from kaizen.providers.errors import Origin
    from kaizen.providers.http import HttpTransport, TransportSettings

    # as the wire adapters have it: one transport a server, its checks and time limits on
    transports: dict[str, HttpTransport] = {}
    headers = {"authorization": HEADERS["authorization"]}

    async def post(url: str) -> AsyncGenerator[bytes, None]:
        base, path = url[: url.index("/", 8)], url[url.index("/", 8) :]
        if base not in transports:
            transports[base] = HttpTransport(base, headers, Origin("m"), TransportSettings(connections=CONNECTIONS))
        # a whole answer and a stream are two calls here; the bound on a body is the transport's own
        async with transports[base].open(path, REQUEST, Asked(), stream=path.startswith("/events")) as answer:
            if path.startswith("/events"):
                while (chunk := await answer.pieces()) is not None:
                    yield chunk
            else:
                yield await answer.read()

    yield post
    for transport in transports.values():
        await transport.close()


PEERS: dict[str, Callable[[], contextlib.AbstractAsyncContextManager[Stream]]] = {
    "kaizen": open_kaizen,
    "pyreqwest": open_pyreqwest,
    "aiohttp": open_aiohttp,
    "httpx": open_httpx,
}


MODULES = {"pyreqwest": "pyreqwest.client", "kaizen": "kaizen.providers.http"}
DISTRIBUTIONS = {"kaizen": "kaizen-engine"}


async def whole(post: Stream, url: str) -> bytes:
    chunks: list[bytes] = []
    size = 0
    async with contextlib.aclosing(post(url)) as stream:
        async for chunk in stream:
            size += len(chunk)
            if size > BODY_CAP:
                raise ValueError("the reply is larger than the cap")
            chunks.append(chunk)
    return b"".join(chunks)


async def cpu_per_call(post: Stream, url: str, in_flight: int, calls: int, rounds: int) -> float:
    """CPU microseconds per call, the median of the rounds after one that only warms up."""

    async def lane() -> None:
        for _ in range(calls // in_flight):
            assert len(await whole(post, url)) == len(REPLY)

    figures: list[float] = []
    for _ in range(rounds + 1):
        start = time.process_time()
        await asyncio.gather(*(lane() for _ in range(in_flight)))
        figures.append((time.process_time() - start) / (calls // in_flight * in_flight) * 1e6)
    return round(statistics.median(figures[1:]), 1)


async def crowd(post: Stream, url: str) -> dict[str, Any]:
    """10,000 calls at once: who fails, and what it costs."""
    gate = Gate(CONNECTIONS)
    failures: dict[str, int] = {}

    async def one() -> None:
        try:
            async with gate:
                await whole(post, url)
        except Exception as error:  # noqa: BLE001 - any failure counts, whatever its class
            failures[type(error).__name__] = failures.get(type(error).__name__, 0) + 1

    cpu, wall = time.process_time(), time.perf_counter()
    await asyncio.gather(*(one() for _ in range(CROWD)))
    return {
        "crowd_failed": sum(failures.values()),
        "crowd_failures": failures,
        "crowd_cpu_s": round(time.process_time() - cpu, 2),
        "crowd_wall_s": round(time.perf_counter() - wall, 2),
        # ru_maxrss is in bytes on macOS and in KiB elsewhere.
        "crowd_peak_mib": round(
            resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)
        ),
    }


async def closed_after(post: Stream, base: str, path: str, name: str) -> float | None:
    """Milliseconds from cancelling a call to the server losing its connection, or None if it kept it."""
    task = asyncio.ensure_future(whole(post, f"{base}{path}?{name}"))
    await asyncio.sleep(0.35)
    cancelled = time.monotonic()
    task.cancel()
    await asyncio.wait([task])
    while time.monotonic() - cancelled < CANCEL_WAIT_S:
        await asyncio.sleep(0.05)
        lost = await ask(base, f"/closed?{name}")
        if lost is not None:
            return round((lost - cancelled) * 1e3, 1)  # one machine, one monotonic clock
    return None


async def ask(base: str, path: str) -> Any:
    """A request over a plain socket, so that the peer under test plays no part in it."""
    host, port = base.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    head = await reader.readuntil(b"\r\n\r\n")
    body = await reader.readexactly(int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0]))
    writer.close()
    return json.loads(body)


async def first_event(post: Stream, base: str) -> float:
    start = time.perf_counter()
    async with contextlib.aclosing(post(f"{base}/events")) as stream:
        async for _ in stream:
            break
    return round((time.perf_counter() - start) * 1e3, 1)


async def measure(peer: str, base: str, calls: int, rounds: int) -> dict[str, Any]:
    async with PEERS[peer]() as post:
        figures: dict[str, Any] = {"version": version(DISTRIBUTIONS.get(peer, peer))}
        for in_flight in (1, 32):
            figures[f"cpu_us_{in_flight}"] = await cpu_per_call(post, f"{base}/instant", in_flight, calls, rounds)
        figures.update(await crowd(post, f"{base}/slow"))
        figures["cancel_headers_ms"] = await closed_after(post, base, "/never", f"{peer}-headers")
        figures["cancel_stream_ms"] = await closed_after(post, base, "/events", f"{peer}-stream")
        figures["first_event_ms"] = await first_event(post, base)
    return figures


def import_cpu_ms(peer: str, rounds: int = 5) -> float:
    """CPU milliseconds to import a peer in a new process, beyond what every asyncio program imports."""
    module = MODULES.get(peer, peer)
    code = f"import asyncio, json, time; t = time.process_time(); import {module}; print(time.process_time() - t)"
    seconds: list[float] = []
    for _ in range(rounds):
        run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        seconds.append(float(run.stdout))
    return round(statistics.median(seconds) * 1e3, 1)


def table(results: dict[str, dict[str, Any]]) -> str:
    rows = [key for key in next(iter(results.values())) if key != "crowd_failures"]
    lines = [f"{'':20}" + "".join(f"{peer:>14}" for peer in results)]
    for row in rows:
        cells = ["never" if figures[row] is None else str(figures[row]) for figures in results.values()]
        lines += [f"{row:20}" + "".join(f"{cell:>14}" for cell in cells)]
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", metavar="FILE", help="also write the figures to this file")
    parser.add_argument("--peers", default=",".join(PEERS), help="comma-separated (default: %(default)s)")
    parser.add_argument("--calls", type=int, default=2_000, help="calls per round (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="counted rounds (default: %(default)s)")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--measure", nargs=2, metavar=("PEER", "URL"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        asyncio.run(serve())
        return 0
    if options.measure:
        peer, base = options.measure
        figures = asyncio.run(measure(peer, base, options.calls, options.rounds))
        # Flushed at once: a peer may crash the interpreter at its exit.
        print(json.dumps(figures), flush=True)
        return 0

    peers: list[str] = []
    for peer in options.peers.split(","):
        if peer not in PEERS:
            parser.error(f"unknown peer {peer!r}; choose from {', '.join(PEERS)}")
        if importlib.util.find_spec(peer):
            peers.append(peer)
        else:
            print(f"skipped {peer}: not installed here (pip install {peer})", file=sys.stderr)
    if not peers:
        print("no peer is installed, nothing to measure", file=sys.stderr)
        return 1

    if sys.platform != "win32":  # a crowd of 1,000 connections needs more files than some systems allow by default
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        wanted = 8_192 if hard == resource.RLIM_INFINITY else min(8_192, hard)
        if soft != resource.RLIM_INFINITY and soft < wanted:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))

    results: dict[str, dict[str, Any]] = {}
    server = subprocess.Popen([sys.executable, __file__, "--serve"], stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout
        base = f"http://127.0.0.1:{server.stdout.readline().strip()}"
        for peer in peers:
            command = [sys.executable, __file__, "--measure", peer, base]
            command += ["--calls", str(options.calls), "--rounds", str(options.rounds)]
            run = subprocess.run(command, stdout=subprocess.PIPE, text=True)
            if not run.stdout:
                print(f"{peer} failed, exit status {run.returncode}", file=sys.stderr)
                return 1
            figures = {"import_cpu_ms": import_cpu_ms(peer), **json.loads(run.stdout)}
            results[peer] = {**figures, "exit_status": run.returncode}
    finally:
        server.kill()
        server.wait()
    print(table(results))
    if options.json:
        report = {
            "command": "python " + " ".join(sys.argv),
            "python": platform.python_version(),
            "machine": f"{platform.system()} {platform.machine()}",
            "peers": results,
        }
        Path(options.json).write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
