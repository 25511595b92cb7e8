"""What a server may do to a connection, and what becomes of the calls on it."""

from __future__ import annotations

import asyncio
import gzip
import socket
import threading
import time
import zlib

import pytest

from kaizen.core.errors import ProviderError, Timeout, Unavailable
from kaizen.providers.http import pool as pools
from kaizen.providers.http.connection import Connection
from tests.unit.providers.http.far import ASK, Ask, Far, call, calling, far, ok, pieces

CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"


# -- keeping connections --------------------------------------------------------------------------


async def test_a_connection_is_used_again() -> None:
    async with far(ok()) as end, calling(end.url) as transport:
        assert [await call(transport) for _ in range(3)] == [b"hello"] * 3
        async with transport.open("/x", b"{}", ASK, stream=True) as answer:
            assert await answer.pieces() == b"hello"
            assert await answer.pieces() is None
            assert await answer.pieces() is None
        await asyncio.gather(*(call(transport) for _ in range(4)))
        await asyncio.gather(*(call(transport) for _ in range(4)))
        assert (end.accepted, end.lost) == (4, 0)


async def test_a_server_that_closes_idle_connections_costs_no_call() -> None:
    async def close(_: Far, writer: asyncio.StreamWriter, number: int) -> None:
        writer.write(ok(b"%d" % number))
        writer.close()

    async with far(close) as end, calling(end.url) as transport:
        for number in range(20):
            assert await call(transport) == b"%d" % number
            await asyncio.sleep(0.002)
        assert end.accepted == 20


async def test_a_connection_that_was_closed_while_the_loop_was_busy_is_not_used() -> None:
    listening = socket.create_server(("127.0.0.1", 0))
    accepted = 0

    def serve() -> None:
        nonlocal accepted
        for _ in range(2):
            connection, _ = listening.accept()
            accepted += 1
            connection.recv(10_000)
            connection.sendall(ok())
            connection.close()

    thread = threading.Thread(target=serve)
    thread.start()
    async with calling(f"http://127.0.0.1:{listening.getsockname()[1]}") as transport:
        assert await call(transport) == b"hello"
        time.sleep(1.1)  # noqa: ASYNC251 - the loop must not see that the server closed
        assert await call(transport) == b"hello"
    thread.join()
    listening.close()
    assert accepted == 2


@pytest.mark.parametrize("head", [b"HTTP/1.1 200 OK\r\nconnection: close\r\n", b"HTTP/1.0 200 OK\r\n"])
async def test_a_server_that_will_close_is_not_asked_again_on_that_connection(head: bytes) -> None:
    async with far(head + b"content-length: 2\r\n\r\nhi") as end, calling(end.url) as transport:
        assert [await call(transport) for _ in range(2)] == [b"hi", b"hi"]
        await end.until(lambda: end.lost == 2)


async def test_connections_are_not_kept_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pools, "_IDLE", 0.05)
    async with far(ok()) as end, calling(end.url) as transport:
        await asyncio.gather(*(call(transport) for _ in range(3)))
        await asyncio.sleep(0.03)
        await call(transport)
        await end.until(lambda: end.lost == end.accepted >= 3)


async def test_nothing_is_sent_twice_when_a_kept_connection_dies() -> None:
    async def hang_up(_: Far, writer: asyncio.StreamWriter, __: int) -> None:
        writer.close()

    async with far(ok(), hang_up) as end, calling(end.url) as transport:
        await call(transport)
        with pytest.raises(Unavailable, match="hung up without an answer"):
            await call(transport)
        assert len(end.heads) == 2


async def test_a_server_that_closes_as_soon_as_it_accepts() -> None:
    async def close(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.transport.abort()

    async with (
        await asyncio.start_server(close, "127.0.0.1", 0) as server,
        calling(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", answer_timeout=2) as transport,
    ):
        for _ in range(30):
            with pytest.raises(Unavailable):  # at whichever moment it is seen; never by waiting in vain
                await call(transport)


async def test_a_connection_that_is_lost_while_it_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    made = Connection.connection_made

    def lost(self: Connection, transport: asyncio.BaseTransport) -> None:
        made(self, transport)
        self.connection_lost(None)
        transport.close()

    monkeypatch.setattr(Connection, "connection_made", lost)
    async with far(ok()) as end, calling(end.url) as transport:
        with pytest.raises(Unavailable, match="closed as soon as it was made"):
            await call(transport)


# -- bodies ---------------------------------------------------------------------------------------


async def test_chunks_with_extensions_and_trailers() -> None:
    answer = CHUNKED + b"5;a=b\r\nhello\r\n6\r\n world\r\n0\r\nx-sum: 1\r\n\r\n"
    async with far(answer) as end, calling(end.url) as transport:
        async with transport.open("/x", b"{}", ASK) as got:
            assert await got.read() == b"hello world"
            assert "x-sum" not in got.headers
        assert await call(transport) == b"hello world"
        assert end.accepted == 1


async def test_an_answer_byte_by_byte() -> None:
    async def slowly(_: Far, writer: asyncio.StreamWriter, __: int) -> None:
        for byte in CHUNKED.replace(b"\r\n\r\n", b"\r\nX-Name: a \r\nx-name: b\r\n\r\n") + b"2\r\nhi\r\n0\r\n\r\n":
            writer.write(bytes([byte]))
            await asyncio.sleep(0)

    async with far(slowly) as end, calling(end.url) as transport:
        async with transport.open("/x", b"{}", ASK) as answer:
            assert answer.headers["x-name"] == "a, b"
            assert await answer.read() == b"hi"
        assert b"".join(await pieces(transport)) == b"hi"
        assert end.accepted == 1


async def test_a_body_that_ends_with_its_connection() -> None:
    async def until_close(_: Far, writer: asyncio.StreamWriter, __: int) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n\r\nhel")
        await writer.drain()
        await asyncio.sleep(0.01)
        writer.write(b"lo")
        writer.close()

    async with far(until_close) as end, calling(end.url) as transport:
        assert await call(transport) == b"hello"
        assert b"".join(await pieces(transport)) == b"hello"


async def test_no_body_at_all() -> None:
    answers = (b"HTTP/1.1 204 No Content\r\n\r\n", b"HTTP/1.1 304 Not Modified\r\n\r\n", ok(b""))
    async with far(*answers) as end, calling(end.url) as transport:
        assert [await call(transport) for _ in range(3)] == [b"", b"", b""]
        assert end.accepted == 1


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhello",
        CHUNKED + b"5\r\nhello\r\n",
        CHUNKED + b"9\r\nhello",
    ],
)
async def test_a_body_that_is_cut(answer: bytes) -> None:
    async def cut(_: Far, writer: asyncio.StreamWriter, __: int) -> None:
        writer.write(answer)
        writer.close()

    async with far(cut) as end, calling(end.url) as transport:
        with pytest.raises(Unavailable, match="broke off in the middle"):
            await call(transport)
        async with transport.open("/x", b"{}", ASK, stream=True) as got:
            assert await got.pieces() == b"hello"  # what came is handed on first
            with pytest.raises(Unavailable, match="broke off in the middle"):
                await got.pieces()


@pytest.mark.parametrize("left", [b"garbage", ok(b"poison"), b"HTTP/1.1 2", b"\r\n\r\nx"])
@pytest.mark.parametrize("later", [False, True])
async def test_what_follows_an_answer_poisons_no_other(left: bytes, later: bool) -> None:
    async def answer(_: Far, writer: asyncio.StreamWriter, number: int) -> None:
        body = ok(b"%d" % number)
        writer.write(body if later else body + left)
        if later:
            await asyncio.sleep(0.01)
            writer.write(left)

    async with far(answer) as end, calling(end.url) as transport:
        for number in range(3):
            assert await call(transport) == b"%d" % number
            await end.until(lambda expected=number + 1: end.lost == expected)
        assert end.accepted == 3


async def test_hints_before_the_answer() -> None:
    hints = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: </a>\r\ncontent-encoding: gzip\r\n\r\n"
    async with far(hints + ok()) as end, calling(end.url) as transport:
        async with transport.open("/x", b"{}", ASK) as answer:
            assert (answer.status, await answer.read()) == (200, b"hello")
            assert "link" not in answer.headers
        assert await call(transport) == b"hello"
        assert end.accepted == 1


@pytest.mark.parametrize(
    "answer",
    [
        b"SSH-2.0-OpenSSH\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: x\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\nhi",
        b"HTTP/1.1 200 OK\r\ncontent-length: -2\r\n\r\nhi",
        b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        CHUNKED + b"zz\r\n",
    ],
)
async def test_what_is_no_answer(answer: bytes) -> None:
    async with far(answer) as end, calling(end.url) as transport:
        with pytest.raises(Unavailable, match=r"no HTTP/1\.1 answer"):
            await call(transport)
        await end.until(lambda: end.lost == 1)


# -- compressed, though not asked for -------------------------------------------------------------

TEXT = b"hello world, " * 1000


def bare(data: bytes) -> bytes:
    stream = zlib.compressobj(wbits=-15)
    return stream.compress(data) + stream.flush()


@pytest.mark.parametrize(
    ("encoding", "body"),
    [
        ("gzip", gzip.compress(TEXT, mtime=0)),
        ("GZip", gzip.compress(TEXT[:100], mtime=0) + gzip.compress(TEXT[100:], mtime=0)),
        ("deflate", zlib.compress(TEXT)),
        ("deflate", bare(TEXT)),
        ("identity", TEXT),
    ],
)
async def test_a_compressed_body(encoding: str, body: bytes) -> None:
    async with far(ok(body, f"Content-Encoding: {encoding}")) as end, calling(end.url) as transport:
        assert await call(transport) == TEXT
        assert b"".join(await pieces(transport)) == TEXT
        assert "accept-encoding: identity" in end.heads[0]
        assert end.accepted == 1


async def test_a_bomb_is_met_by_the_limit() -> None:
    bomb = gzip.compress(b"0" * 50_000_000)
    async with far(ok(bomb, "content-encoding: gzip")) as end, calling(end.url, max_body=100_000) as transport:
        with pytest.raises(Unavailable, match="the answer is longer than the limit of 100000 bytes"):
            await call(transport)
        with pytest.raises(Unavailable, match="the stream is longer than the limit of 800000 bytes"):
            await pieces(transport)


@pytest.mark.parametrize(
    ("encoding", "body", "words"),
    [
        ("gzip", b"no gzip at all", "compression is damaged"),
        ("gzip", gzip.compress(TEXT, mtime=0)[:-20], "stops in the middle"),
        ("br", b"abc", "encoded as br"),
    ],
)
async def test_compression_that_can_not_be_undone(encoding: str, body: bytes, words: str) -> None:
    async with far(ok(body, f"content-encoding: {encoding}")) as end, calling(end.url) as transport:
        with pytest.raises(Unavailable, match=words):
            await call(transport)
        with pytest.raises(Unavailable, match=words):
            await pieces(transport)


# -- floods ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("begin", "again"),
    [
        (b"HTTP/1.1 200 OK\r\n", b"x-flood: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\r\n" * 100),
        (b"HTTP/1.1 200 OK\r\nx-endless: ", b"a" * 4000),
        (b"HTTP/1.1 200 ", b"a" * 4000),
        (b"", b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n" * 100),
        (CHUNKED + b"2\r\nhi\r\n0\r\n", b"x-flood: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\r\n" * 100),
        (CHUNKED + b"2\r\nhi\r\n0\r\nx-endless: ", b"a" * 4000),
        (CHUNKED + b"2\r\nhi\r\n1;", b"a" * 4000),
    ],
)
async def test_floods_are_cut(begin: bytes, again: bytes) -> None:
    sent = 0

    async def flood(_: Far, writer: asyncio.StreamWriter, __: int) -> None:
        nonlocal sent
        writer.write(begin)
        while True:
            writer.write(again)
            sent += len(again)
            await writer.drain()
            await asyncio.sleep(0)

    async with far(flood) as end, calling(end.url) as transport:
        with pytest.raises(Unavailable, match="more than 65536 bytes of headers"):
            await call(transport)
        assert sent < 2_000_000  # what kernel buffers hold comes on top
        await end.until(lambda: end.lost == 1)


async def test_a_slow_reader_holds_the_server_up() -> None:
    sent = 0

    async def pour(_: Far, writer: asyncio.StreamWriter, __: int) -> None:
        nonlocal sent
        writer.transport.set_write_buffer_limits(65536)
        writer.write(CHUNKED)
        for _ in range(1000):
            writer.write(b"10000\r\n" + b"x" * 65536 + b"\r\n")
            await writer.drain()
            sent += 65536
        writer.write(b"0\r\n\r\n")

    async with (
        far(pour) as end,
        calling(end.url) as transport,
        transport.open("/x", b"{}", ASK, stream=True) as answer,
    ):
        taken = len(await answer.pieces() or b"")
        before = -1
        while before != sent:  # until it stands still
            before = sent
            await asyncio.sleep(0.05)
        assert sent < 16_000_000  # of 64 MB; nearly all of that in the kernel
        assert answer._exchange is not None
        assert answer._exchange.held < 1_000_000
        while (piece := await answer.pieces()) is not None:
            assert len(piece) < 1_000_000
            taken += len(piece)
        assert taken == 65_536_000
        assert answer._exchange.connection is None  # and the connection is back


async def test_a_large_answer_in_whole() -> None:
    body = bytes(range(256)) * 40_000
    async with far(ok(body)) as end, calling(end.url) as transport:
        assert await call(transport) == body
        assert await call(transport) == body
        assert end.accepted == 1


# -- large requests -------------------------------------------------------------------------------


async def test_a_large_request_arrives_whole() -> None:
    body = bytes(range(256)) * 20_000
    async with far(ok()) as end, calling(end.url) as transport:
        assert await call(transport, body) == b"hello"
        assert await call(transport, body[:300_000]) == b"hello"
        assert [len(body) for body in end.bodies] == [5_120_000, 300_000]
        assert end.bodies[0] == body
        assert end.accepted == 1


async def test_an_answer_before_the_request_is_sent() -> None:
    async def refuse(_: Far, writer: asyncio.StreamWriter, __: int) -> None:
        writer.write(b"HTTP/1.1 413 Too Large\r\ncontent-length: 3\r\n\r\nbig")
        await asyncio.sleep(10)

    async with far(refuse) as end, calling(end.url, headers={"x-late-body": "1"}) as transport:
        async with transport.open("/x", b"x" * 30_000_000, ASK) as answer:
            assert (answer.status, await answer.read()) == (413, b"big")
        pool = await transport.pool()
        assert pool.idle() is None  # half a request lies on that connection


async def test_a_server_that_takes_nothing() -> None:
    async def stand_still(_: Far, __: asyncio.StreamWriter, ___: int) -> None:
        await asyncio.sleep(10)

    async with far(stand_still) as end, calling(end.url, headers={"x-late-body": "1"}, answer_timeout=0.1) as transport:
        with pytest.raises(Timeout, match="answer_timeout"):
            await call(transport, b"x" * 30_000_000)


# -- cancelled ------------------------------------------------------------------------------------


async def nothing(_: Far, __: asyncio.StreamWriter, ___: int) -> None:
    """Stays silent, but sees the client go."""


async def half(_: Far, writer: asyncio.StreamWriter, __: int) -> None:
    writer.write(CHUNKED + b"5\r\nhello\r\n")


@pytest.mark.parametrize("answer", [nothing, half])
@pytest.mark.parametrize("way", [call, pieces])
async def test_a_cancelled_call_closes_its_connection(answer: object, way: object) -> None:
    async with far(answer) as end, calling(end.url) as transport:  # type: ignore[arg-type]
        task = asyncio.create_task(way(transport))  # type: ignore[operator]
        await end.until(lambda: len(end.heads) == 1)
        await asyncio.sleep(0.02)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await end.until(lambda: end.lost == 1)


async def test_a_call_cancelled_while_it_is_sent_closes_its_connection() -> None:
    seen = asyncio.Event()

    async def wait(_: Far, __: asyncio.StreamWriter, ___: int) -> None:
        await seen.wait()

    async with far(wait) as end, calling(end.url, headers={"x-late-body": "1"}) as transport:
        task = asyncio.create_task(call(transport, b"x" * 30_000_000))
        await end.until(lambda: len(end.heads) == 1)
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        seen.set()
        await end.until(lambda: end.lost == 1)


async def test_a_call_cancelled_in_the_queue_leaves_the_others_their_turns() -> None:
    async with far(nothing, ok()) as end, calling(end.url, connections=1) as transport:
        first = asyncio.create_task(call(transport))
        await end.until(lambda: len(end.heads) == 1)
        second, third = (asyncio.create_task(call(transport)) for _ in range(2))
        await asyncio.sleep(0)
        second.cancel()
        first.cancel()
        assert await third == b"hello"
        assert len(end.heads) == 2
        await asyncio.wait([first, second])


async def test_a_deadline_in_the_queue() -> None:
    async with far(nothing) as end, calling(end.url, connections=1) as transport:
        first = asyncio.create_task(call(transport))
        await end.until(lambda: len(end.heads) == 1)
        with pytest.raises(Timeout, match="the call's deadline has passed"):
            await call(transport, asked=Ask(deadline=time.monotonic() + 0.05))
        first.cancel()
        await asyncio.wait([first])


@pytest.mark.alone
async def test_deadlines_of_many_calls_each_pass_at_their_own_time() -> None:
    async def late(after: float) -> float:
        begun = time.monotonic()
        with pytest.raises(Timeout, match="deadline"):
            await call(transport, asked=Ask(deadline=begun + after))
        return time.monotonic() - begun - after

    async with far(nothing) as end, calling(end.url, answer_timeout=5) as transport:
        overruns = await asyncio.gather(*(late(after / 50) for after in (20, 3, 11, 7, 3, 15)))
        assert all(-0.001 <= overrun < 0.2 for overrun in overruns)
        await end.until(lambda: end.lost == 6)


# -- the rest -------------------------------------------------------------------------------------


async def test_a_thousand_calls_at_once() -> None:
    async def soon(_: Far, writer: asyncio.StreamWriter, number: int) -> None:
        await asyncio.sleep(0.01)
        writer.write(ok(b"%d" % number))

    async with far(soon) as end, calling(end.url, connections=200) as transport:
        answers = await asyncio.gather(*(call(transport) for _ in range(1000)))
        assert sorted(map(int, answers)) == list(range(1000))
        assert end.accepted <= 200
        assert end.lost == 0


async def test_other_content_types_and_a_get() -> None:
    async with (
        far(ok(b"\x00\xff")) as end,
        calling(f"{end.url}?v=1", headers={"authorization": "Bearer k"}) as transport,
    ):
        async with transport.open("/audio", b"raw", ASK, content_type="multipart/form-data; boundary=b") as answer:
            assert await answer.read() == b"\x00\xff"
        async with transport.get("/models?limit=5") as answer:
            assert await answer.read() == b"\x00\xff"
        post, get = end.heads
        assert post.startswith("POST /v1/audio?v=1 HTTP/1.1\r\n")
        assert "content-type: multipart/form-data; boundary=b\r\ncontent-length: 3\r\n" in post
        assert get.startswith("GET /v1/models?limit=5&v=1 HTTP/1.1\r\n")
        assert "content-" not in get
        assert "authorization: Bearer k\r\n" in get
        assert end.bodies == [b"raw", b""]
        with pytest.raises(ValueError, match="content type"):
            transport.open("/audio", b"", ASK, content_type="a\r\nb: c")


async def test_the_errors_of_a_get_name_its_path() -> None:
    async with far(nothing) as end, calling(end.url) as transport:
        with pytest.raises(Timeout, match="/models"):
            async with transport.get("/models", deadline=time.monotonic() + 0.05):
                pass


async def test_closing_ends_the_calls_in_the_air() -> None:
    async with far(nothing) as end, calling(end.url) as transport:
        task = asyncio.create_task(call(transport))
        await end.until(lambda: len(end.heads) == 1)
        await transport.close()
        await end.until(lambda: end.lost == 1)
        with pytest.raises(ProviderError, match="closed on this side"):
            await asyncio.wait_for(task, 2)


def test_another_loop_than_asyncios() -> None:
    uvloop = pytest.importorskip("uvloop")

    async def main() -> None:
        async with far(ok(), half, nothing) as end, calling(end.url, answer_timeout=0.1) as transport:
            assert await call(transport) == b"hello"
            for _ in range(2):
                with pytest.raises(Timeout, match="answer_timeout"):
                    await call(transport)
            await end.until(lambda: end.lost == 2)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())
