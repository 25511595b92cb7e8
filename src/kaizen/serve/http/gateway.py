"""The ASGI application: a table of paths, and the one way that every model call takes through it."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache, partial
from typing import Any, Final, cast

from kaizen.core.context import Context
from kaizen.core.errors import Denied
from kaizen.core.identity import INFER, Identity, permits
from kaizen.core.protocols import Suspended
from kaizen.core.quick.values import changed
from kaizen.core.record import Record
from kaizen.core.request import Chunk, Reply, Stage
from kaizen.programs.calls import Suspension
from kaizen.programs.wrap.decompose import answer_parts, plan
from kaizen.serve.http.backend import Backend
from kaizen.serve.http.call import JSON, Call, Gone, Receive, Scope, Send, release, watch
from kaizen.serve.http.door import Door, options_of
from kaizen.serve.http.metrics import Metrics
from kaizen.serve.http.problem import Problem, Refused, problem_of
from kaizen.serve.http.status import Status
from kaizen.serve.http.stream import Flushing
from kaizen.serve.http.wires import embeddings
from kaizen.serve.http.wires.again import Again
from kaizen.serve.http.wires.anthropic import Messages
from kaizen.serve.http.wires.native import Native, documents_of, steps_answer, takes_apart
from kaizen.serve.http.wires.native_body import NativeBody
from kaizen.serve.http.wires.openai_chat import ChatCompletions, error_body
from kaizen.serve.http.wires.openai_responses import Responses
from kaizen.serve.http.wires.wire import Asked, Caller, Wire, opened, tier_name, to_text

_logger = logging.getLogger(__name__)

_GATHER_EVERY_S: Final = 1.0
_AGAIN_S: Final = 1.0  # after that time what failed beside the calls begins again
CLOSED: Final = 499  # nginx's word for a caller that went away; nobody is sent it

Work = Callable[[Call], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]


def _plain_error(problem: Problem, _: str) -> bytes:
    return error_body(problem)


@dataclass(frozen=True, slots=True)
class Route:
    """What answers one path.

    Args:
        name: in the metrics.
        work: by method, what does it.
        error: the body of an error, as the clients of this path know it.
        mounted: makes another application that answers instead.
    """

    name: str
    work: Mapping[str, Work]
    error: Callable[[Problem, str], bytes] = _plain_error
    mounted: Callable[[], Application] | None = None


class Gateway:
    """The application that uvicorn serves.

    Args:
        backend: what is behind it.
        metrics: what it counts.
        max_body: bytes of a request at most.
        local: whether it listens on loopback only.

    Attributes:
        beside: what runs as long as the server does, beside the calls. One that fails is begun again a second later.
    """

    def __init__(self, backend: Backend, metrics: Metrics, *, max_body: int, local: bool = False) -> None:
        self._backend, self._metrics, self._max_body = backend, metrics, max_body
        self._native = Native(backend.layers)
        self._again = Again()
        self._messages = Messages()
        self.door = Door(backend.authenticator)
        self.beside: list[Callable[[], Coroutine[Any, Any, None]]] = []
        status = Status(backend, self.door, metrics, local=local)
        self._routes: dict[str, Route] = {}
        self._below: list[tuple[str, Route]] = []
        for path, wire in (
            ("/v1/chat/completions", ChatCompletions()),
            ("/v1/responses", Responses()),
            ("/v1/messages", self._messages),
        ):
            self.add(path, Route(wire.name, {"POST": partial(self._ask, wire=wire)}, wire.error))
        for path in ("/api/v1/infer", "/infer"):
            self.add(path, Route("infer", {"POST": self._infer}, self._native.error))
        self.add("/v1/messages/count_tokens", Route("count_tokens", {"POST": self._count}, self._messages.error))
        self.add("/v1/embeddings", Route("embeddings", {"POST": self._embed}))
        self.add("/v1/models", Route("models", {"GET": status.models}))
        self.add("/v1/models/*", Route("models", {"GET": status.model}))
        self.add("/health/live", Route("health", {"GET": status.live}))
        for path in ("/health/ready", "/health"):
            self.add(path, Route("health", {"GET": status.ready}))
        self.add("/metrics", Route("metrics", {"GET": status.counts}))

    def add(self, path: str, route: Route) -> None:
        """Answer a path, or with ``/*`` at its end all that lie below it."""
        if path.endswith("/*"):
            self._below.append((path[:-1], route))
        else:
            self._routes[path] = route

    def mount(self, paths: Sequence[str], application: Callable[[], Application]) -> None:
        """Hand requests for these paths to another application, made at the first of them."""
        for path in paths:
            self.add(path, Route("mounted", {}, mounted=cache(application)))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or one life of the server."""
        if scope["type"] == "lifespan":
            await self._live(receive, send)
            return
        call = Call(scope, receive, send)
        route = self._routes.get(call.path) or self._found(call.path)
        if route.mounted is not None:
            await _hand_over(route.mounted, scope, receive, send)
            return
        watch(scope)
        self._metrics.begin()
        try:
            await self._work(route, call)
        except Gone:
            call.status, call.error = CLOSED, "cancelled"
        except asyncio.CancelledError:
            call.error = "cancelled"
            if _gone(scope):
                call.status = CLOSED
            elif call.started:
                raise
            else:  # the server ends, and its patience with it
                await call.refuse(_ENDING, route.error(_ENDING, call.id.decode()))
        finally:
            release(scope)
            seconds = time.perf_counter() - call.begun
            self._metrics.end(route.name, call.status, seconds, call.error, call.reply)

    def _found(self, path: str) -> Route:
        return next((route for above, route in self._below if path.startswith(above)), _NOWHERE)

    async def _work(self, route: Route, call: Call) -> None:
        try:
            work = route.work.get(call.method)
            if work is None:
                raise _no_work(route, call)
            await work(call)
        except (Exception, Suspension) as error:
            if isinstance(error, Gone):
                raise
            if isinstance(error, Suspension):
                error = Denied(f"the call waits for approval: {error.question}")
            problem = problem_of(error)
            call.error = problem.code
            if call.started:
                _logger.exception("an answer broke off")  # uvicorn closes the connection, so that it is no clean end
                return
            await call.refuse(problem, route.error(problem, call.id.decode()))

    async def _live(self, receive: Receive, send: Send) -> None:
        """Start and end with the server."""
        beside = [asyncio.ensure_future(_lasting(work)) for work in (self._gather, *self.beside)]
        while True:
            message = await receive()
            if message["type"] == "lifespan.startup":
                await send({"type": "lifespan.startup.complete"})
            else:
                for work in beside:
                    work.cancel()
                await asyncio.gather(*beside, return_exceptions=True)
                await self._backend.close()
                self._metrics.gather(self._backend.counts())
                self._metrics.close()
                await send({"type": "lifespan.shutdown.complete"})
                return

    async def _gather(self) -> None:
        """Have the caches' counts where the other workers find them: now and then, so that no call pays for it."""
        while True:
            await asyncio.sleep(_GATHER_EVERY_S)
            self._metrics.gather(self._backend.counts())

    # -- model calls ---

    async def _ask(self, call: Call, wire: Wire) -> None:
        """One model call, whatever the wire: who, what, ask, answer."""
        identity, asked = await self._asked(call, wire)
        await self._answer(call, wire, asked, identity)

    async def _infer(self, call: Call) -> None:
        """The native call: one model call, or a prompt's parts one by one."""
        identity, asked = await self._asked(call, self._native)
        said: NativeBody = asked.echo
        documents = documents_of(said)
        if not takes_apart(asked) or plan(said.prompt or "", len(documents)) is None:
            await self._answer(call, self._native, asked, identity)
            return
        inputs = {
            "prompt": said.prompt,
            "documents": documents,
            "model": asked.request.model,
            "cache": said.cache is None or said.cache.steps is not False,
        }
        answer = await self._backend.runs(identity, answer_parts, inputs, deadline=asked.request.deadline)
        if isinstance(answer, Suspended):
            raise Denied(f"the call waits for approval: {answer.question}")
        record = answer.record
        steps = await self._backend.steps(record)
        body = to_text(steps_answer(str(answer.outputs["result"]), record, steps))
        await call.answer(200, body, _record_headers(record))

    async def _embed(self, call: Call) -> None:
        """Points for texts."""
        identity = await self.door.enter(call, INFER)
        asked = embeddings.decode(await call.body(self._max_body))
        ref = self._backend.resolve(asked.model, "openai")
        if not permits(identity.models, ref):
            raise Denied(f"this key may not ask {ref}")
        ctx = self._backend.contexts(identity)
        points = await self._backend.embed(ctx, ref, asked.texts)
        headers = [JSON, (b"x-kaizen-record", ctx.run.run_id.encode()), (b"x-kaizen-model", _value(ref))]
        await call.answer(200, embeddings.encode(asked, points), headers)

    async def _count(self, call: Call) -> None:
        """An estimate of a prompt's tokens."""
        identity = await self.door.enter(call, INFER)
        body = await call.body(self._max_body)
        caller = Caller(identity.scope, options_of(identity, call), self._backend.resolve)
        await call.answer(200, self._messages.count(body, caller), (JSON, (b"x-kaizen-estimated", b"true")))

    async def _asked(self, call: Call, wire: Wire) -> tuple[Identity, Asked]:
        """Who asks, and what."""
        identity = await self.door.enter(call, INFER)
        body = await call.body(self._max_body)
        options = options_of(identity, call)
        known = self._again.find(wire, identity, options, body)
        asked = known or wire.decode(body, Caller(identity.scope, options, self._backend.resolve))
        request = asked.request
        if not permits(identity.models, request.model):
            raise Denied(f"this key may not ask {request.model}")
        if known is not None:
            return identity, known
        decoding = request.decoding
        if decoding.temperature and decoding.seed is None and request.options.exact and wire is not self._native:
            # drawn at random, by the caller's own word: the cache's own rule decides
            asked.request = changed(request, options=changed(request.options, exact=None))
        self._again.note(wire, identity, options, body, asked)
        return identity, asked

    async def _answer(self, call: Call, wire: Wire, asked: Asked, identity: Identity) -> None:
        """Ask, and answer."""
        ctx = self._backend.contexts(identity, deadline=asked.request.deadline)
        opened(asked, ctx.run.run_id)
        if asked.stream:
            await self._stream(call, wire, asked, ctx)
            return
        if asked.count == 1:
            reply = call.reply = await ctx.complete(asked.request)
            replies: Sequence[Reply] = (reply,)
        else:
            replies = await _several(ctx, asked)
            reply = call.reply = replies[0]
        await call.answer(200, wire.encode(asked, replies), _headers(replies))

    async def _stream(self, call: Call, wire: Wire, asked: Asked, ctx: Context) -> None:
        """Pieces as they come. The head waits for the first, so that what fails before it has a status of its own."""
        writing = wire.writing(asked)
        gathered: list[bytes] = []

        async def flush() -> None:
            if not gathered:
                return
            data = b"".join(gathered)
            gathered.clear()
            if call.started:
                await call.write(data)
            else:
                await call.open(_known(asked), data)

        chunks = cast("AsyncGenerator[Chunk]", ctx.stream(asked.request))
        try:
            begun = False
            while True:
                chunk = await Flushing(chunks.__anext__(), flush)
                if (reply := chunk.reply) is not None:
                    break
                if not begun:
                    begun = True
                    gathered.append(writing.begin())
                gathered.append(writing.text(chunk.text))
            call.reply = reply
            gathered += () if begun else (writing.begin(),)
            gathered.append(writing.end(reply))
            if not call.started:
                await call.open(_headers((reply,))[1:], b"".join(gathered))
                gathered.clear()
            await call.end(b"".join(gathered))
        except Exception as error:
            if not call.started:
                raise
            problem = problem_of(error)
            call.error = problem.code
            await call.end(b"".join(gathered) + writing.fail(problem))
        finally:
            await chunks.aclose()


async def _lasting(work: Callable[[], Awaitable[None]]) -> None:
    """What runs beside the calls, until it ends or is cancelled: a failure is told, and it begins again."""
    while True:
        try:
            await work()
        except Exception:
            task = asyncio.current_task()
            if task is not None and task.cancelling():  # what failed is its end: nobody would cancel it a second time
                _logger.exception("what runs beside the calls failed as it ended")
                return
            _logger.exception("what runs beside the calls failed and begins again")
            await asyncio.sleep(_AGAIN_S)
        else:
            return


async def _hand_over(mounted: Callable[[], Application], scope: Scope, receive: Receive, send: Send) -> None:
    """Have another application answer; whose caller goes away is cancelled, as ours are."""
    watch(scope)
    try:
        await mounted()(scope, receive, send)
    except asyncio.CancelledError:
        if not _gone(scope):
            raise
    finally:
        release(scope)


async def _several(ctx: Context, asked: Asked) -> Sequence[Reply]:
    """Several answers to one call, each a call of its own that no cache answers, or all would be the same."""
    request = changed(asked.request, options=changed(asked.request.options, exact=False, semantic=False))
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(ctx.complete(request)) for _ in range(asked.count)]
    return [task.result() for task in tasks]


def _known(asked: Asked) -> list[tuple[bytes, bytes]]:
    """What the head of a stream can say."""
    return [(b"x-kaizen-record", asked.id.encode()), (b"x-kaizen-model", _value(asked.request.model))]


def _headers(replies: Sequence[Reply]) -> list[tuple[bytes, bytes]]:
    """What the head of a whole answer says. Without a known price there is no header for it."""
    reply = replies[0]
    cost, saved, record = reply.cost_usd, reply.saved_usd, reply.record_id or ""
    if len(replies) > 1:
        cost, saved = _sum([one.cost_usd for one in replies]), _sum([one.saved_usd for one in replies])
        record = ",".join([one.record_id or "" for one in replies])
    headers = [
        JSON,
        (b"x-kaizen-record", record.encode()),
        (b"x-kaizen-model", _value(reply.model)),
        (b"x-kaizen-cache", tier_name(reply).encode()),
    ]
    if cost is not None:
        headers.append((b"x-kaizen-cost-usd", b"%.9g" % cost))
    if saved is not None:
        headers.append((b"x-kaizen-saved-usd", b"%.9g" % saved))
    return headers


def _record_headers(record: Record) -> list[tuple[bytes, bytes]]:
    """The same of a record."""
    reply = Reply(
        model=record.model or "",
        record_id=record.id,
        tier=record.cache_tier,
        cost_usd=record.cost_usd,
        stages=(Stage("steps", saved_usd=record.saved_usd),),
    )
    return _headers((reply,))


def _sum(values: Sequence[float | None]) -> float | None:
    return None if any(one is None for one in values) else sum(one or 0.0 for one in values)


@lru_cache(maxsize=1024)
def _value(text: str) -> bytes:
    """A text as a header can hold it."""
    return text.encode("ascii", "backslashreplace").translate(_PRINTABLE)


_PRINTABLE: Final = bytes(byte if 32 <= byte < 127 else ord("?") for byte in range(256))


def _gone(scope: Scope) -> bool:
    """Whether a cancelled task was cancelled since its caller went away; then it goes on to its end."""
    connection = scope.get("extensions", {}).get("kaizen.connection")
    if connection is None or not connection.gone:
        return False
    task = asyncio.current_task()
    if task is not None:
        task.uncancel()
    return True


def _no_work(route: Route, call: Call) -> Refused:
    if not route.work:
        return Refused(404, "not_found", f"there is nothing at {call.path}; /docs shows what there is")
    return Refused(405, "method_not_allowed", f"{call.path} takes {', '.join(route.work)}, not {call.method}")


_ENDING: Final = Problem(503, "ending", "the gateway is being ended", retryable=True)
_NOWHERE: Final = Route("other", {})
