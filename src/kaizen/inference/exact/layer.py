"""The layer: looks for an answer, joins a call in the air, or asks and keeps."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable
from dataclasses import dataclass, replace
from types import CoroutineType
from typing import Any, Final, TypeAlias, TypeVar

from kaizen.core.errors import Unavailable
from kaizen.core.known.repeats import facts_of
from kaizen.core.protocols import Cache, Provider
from kaizen.core.quick.values import changed
from kaizen.core.request import Chunk, Decoding, Options, Reply, Request, Stage
from kaizen.inference.exact.flight import Flight
from kaizen.inference.exact.kept import Decoded, Kept, encode, stripped
from kaizen.inference.key import request_key
from kaizen.inference.prices import PriceTable
from kaizen.inference.streams import closing

T = TypeVar("T")

_logger: Final = logging.getLogger("kaizen.exact")
_LOG_EVERY_S: Final = 60.0
# After a failure the cache is left alone for so long: a call must not wait for a server that is gone.
_REST_S: Final = 1.0
_SPACE: Final = "exact:"
_LOOK_AGAIN: Final = -1  # no epoch: somebody else looked, and did not find what fits

_Place: TypeAlias = tuple[asyncio.AbstractEventLoop, str, bool | None, bool]


@dataclass(slots=True)
class ExactCounts:
    """What the layer did in this process.

    Args:
        hits: calls answered from the cache.
        joined: calls answered by one that was in the air.
        misses: calls that asked.
        kept: answers kept.
        failures: times the cache failed; the call went on without it.
    """

    hits: int = 0
    joined: int = 0
    misses: int = 0
    kept: int = 0
    failures: int = 0


class ExactCache:
    """A Provider that answers a call it has answered before, and asks once where identical calls are in the air.

    A call is looked for and kept if ``Options.exact`` asks for it; where that is left open, if the layer is on by
    default and the call is deterministic: temperature 0, or a seed. What is given from here has tier "exact", costs 0,
    has the usage of the first answer, and says in its Stage what it would have cost, by today's price.

    Kept is an answer of a model that is whole, whatever its ``finish`` but ``content_filter``; not one that another
    cache gave, nor one of a model that stood in for another. It goes after its time, or when one of its tags is
    invalidated: the caller's, and ``model:<ref>`` of the model asked and of the one that answered. An answer whose tag
    was invalidated while it was made is given, not kept.

    A call in the air is shared by all who ask the same in one process and loop, whole or streamed: who comes late to a
    stream gets what there was and follows. Each has its own deadline. The call goes on while anybody waits, and is
    cancelled when nobody does. One of those who get its answer pays for it: the one who began, if still there. Where it
    fails, all are told so; who has more time than the one who began asks again where that may help.

    A cache that fails is a miss.

    Args:
        inner: whom to ask.
        cache: where answers are kept.
        prices: what tokens cost.
        by_default: whether a deterministic call is looked for and kept unless it says otherwise.
        ttl: seconds that an answer is kept, unless the call names fewer or more.
        max_bytes: how many encoded bytes are kept decoded beside what the cache itself holds.
        counts: where it counts what it does.
    """

    def __init__(
        self,
        inner: Provider,
        cache: Cache,
        prices: PriceTable,
        *,
        by_default: bool = True,
        ttl: float = 86_400.0,
        max_bytes: int = 64 * 1024 * 1024,
        counts: ExactCounts | None = None,
    ) -> None:
        self._inner, self._cache, self._prices = inner, cache, prices
        self._by_default, self._ttl = by_default, ttl
        self._decoded = Decoded(max_bytes)
        self._flights: dict[_Place, Flight] = {}
        self._looking: dict[_Place, list[asyncio.Future[Kept | None]]] = {}
        self._rest_until = self._log_at = 0.0
        self.counts = counts or ExactCounts()

    # plain, not async: a call that is none of ours costs a look
    def complete(self, request: Request, /) -> CoroutineType[Any, Any, Reply]:
        """The answer: kept, in the air, or new."""
        return self._complete(request) if self._takes(request) else self._inner.complete(request)

    def stream(self, request: Request, /) -> AsyncIterator[Chunk]:
        """The same as a stream. A kept answer comes in one piece."""
        return self._stream(request) if self._takes(request) else self._inner.stream(request)

    def _takes(self, request: Request) -> bool:
        asked = request.options.exact
        return asked if asked is not None else self._by_default and _is_deterministic(request.decoding)

    async def _complete(self, request: Request) -> Reply:
        started = time.perf_counter()
        place = _place(request)
        while True:
            found = await self._find(request, place, started, streamed=False)
            if isinstance(found, Reply):
                return found
            flight, leads = found
            flight.board()
            try:
                await flight.over()
            finally:
                flight.leave(leads=leads)
                if not flight.ended:
                    await self._leave(place, flight)
            if flight.reply is not None:
                return await self._given(flight, flight.reply, started, leads=leads)
            if leads or not flight.cut_short(request.deadline):
                raise flight.failure(shared=not leads)

    async def _stream(self, request: Request) -> AsyncGenerator[Chunk]:
        started = time.perf_counter()
        place = _place(request)
        while True:
            found = await self._find(request, place, started, streamed=True)
            if isinstance(found, Reply):
                if found.text:
                    yield Chunk(found.text)
                    found = replace(found, first_token_ms=_ms(started))
                yield Chunk(reply=found)
                return
            flight, leads = found
            at, first_ms = 0, None
            flight.board()
            try:
                while True:
                    while at < len(flight.chunks):
                        first_ms = _ms(started) if first_ms is None else first_ms
                        at += 1
                        yield flight.chunks[at - 1]
                    if flight.ended:
                        break
                    await flight.news()
            finally:
                flight.leave(leads=leads)
                await self._leave(place, flight)
            if flight.reply is not None:
                reply = await self._given(flight, flight.reply, started, leads=leads)
                if not at and reply.text:  # it was asked for whole by the one who began
                    first_ms = _ms(started)
                    yield Chunk(reply.text)
                yield Chunk(reply=reply if leads else replace(reply, first_token_ms=first_ms))
                return
            if leads or at or not flight.cut_short(request.deadline):
                raise flight.failure(shared=not leads)

    # -- looking ------------------------------------------------------------------------------------

    async def _find(
        self, request: Request, place: _Place, started: float, *, streamed: bool
    ) -> Reply | tuple[Flight, bool]:
        """A kept answer, or a flight and whether the caller leads it."""
        options = request.options
        while True:
            flight = self._flights.get(place)
            if flight is None:
                kept, epoch = await self._look(request, place)
                if kept is not None:
                    self.counts.hits += 1
                    note = {"age_s": round(max(0.0, time.time() - kept.at), 3)}
                    return await self._owed(kept.reply, started, note)
                flight = self._flights.get(place)  # another may have begun meanwhile
                if flight is None:
                    if epoch is _LOOK_AGAIN:
                        continue
                    self.counts.misses += 1
                    return self._begin(place, request, epoch, streamed=streamed), True
            if not flight.closed or flight.tags.issuperset(options.tags):
                flight.tags.update(options.tags)
                flight.ttl = min(flight.ttl, self._ttl_of(request))
                return flight, False
            # too late to have the answer kept under its own tags: take it from the cache, and tag it there
            await flight.over()

    async def _look(self, request: Request, place: _Place) -> tuple[Kept | None, int | None]:
        """The kept answer; or None, and the cache's epoch from before any call.

        Of identical calls one looks and the others wait for what it finds: where the cache is far away, a call might
        else look just before the answer is kept, hear of it just after, and ask once more.
        """
        waiting = self._looking.get(place)
        if waiting is not None:
            turn: asyncio.Future[Kept | None] = asyncio.get_running_loop().create_future()
            waiting.append(turn)
            kept = await turn
            return kept if kept is not None and _fits(kept, request.options) else None, _LOOK_AGAIN
        waiting = self._looking[place] = []
        kept, epoch = None, None
        try:
            if not request.options.refresh:
                kept = await self._kept(request, place[1])
            if kept is None and time.monotonic() >= self._rest_until:
                try:
                    epoch = await self._cache.epoch(request.scope)
                except Exception as error:  # noqa: BLE001 - as above
                    self._failed(error)
        finally:
            del self._looking[place]
            for turn in waiting:
                if not turn.done():
                    turn.set_result(kept)
        return kept, epoch

    async def _kept(self, request: Request, name: str) -> Kept | None:
        """The kept answer, if it is no older than the caller allows; tagged with the caller's tags as well."""
        if time.monotonic() < self._rest_until:
            return None
        options = request.options
        try:
            data = await self._cache.get(request.scope, name)
        except Exception as error:  # noqa: BLE001 - whatever a cache raises, the call goes on
            self._failed(error)
            return None
        kept = None if data is None else self._decoded.of(name, data)
        if kept is None or _fits(kept, options):
            return kept
        return await self._tagged(request, name) if _is_young(kept, options) else None

    async def _tagged(self, request: Request, name: str) -> Kept | None:
        """The answer, kept under this caller's tags too: else it would outlive what this caller says it depends on."""
        scope = request.scope
        epoch = await self._safely(self._cache.epoch(scope))
        data = await self._safely(self._cache.get(scope, name))
        kept = None if data is None else self._decoded.of(name, data)
        if kept is None or epoch is None:
            return None
        kept = replace(kept, tags=tuple(sorted({*kept.tags, *request.options.tags})))
        left = kept.at + kept.ttl - time.time()
        await self._safely(self._cache.put(scope, name, encode(kept), ttl=left, tags=kept.tags, since=epoch))
        return kept

    # -- asking -------------------------------------------------------------------------------------

    def _begin(self, place: _Place, request: Request, epoch: int | None, *, streamed: bool) -> Flight:
        flight = Flight(request, epoch, self._ttl_of(request))
        flight.tags.update(request.options.tags)
        self._flights[place] = flight
        flight.begin(self._fly(flight, place, streamed=streamed))
        return flight

    async def _fly(self, flight: Flight, place: _Place, *, streamed: bool) -> None:
        """Ask, keep the answer, and tell all who wait."""
        reply, error = None, None
        try:
            asked = self._read(flight) if streamed else self._inner.complete(flight.request)
            reply = await asked
            flight.closed = True
            await self._keep(flight, reply, place[1])
        except asyncio.CancelledError:
            # by us, when nobody waits any more; else by somebody below, which is no reason to cancel who waits
            error = None if reply else Unavailable("the call was cancelled", model=flight.request.model)
        except Exception as problem:  # noqa: BLE001 - handed to those who wait, each of whom raises it
            error = problem
        finally:
            if self._flights.get(place) is flight:
                del self._flights[place]
            flight.end(reply, error)

    async def _read(self, flight: Flight) -> Reply:
        async with closing(self._inner.stream(flight.request)) as chunks:
            async for chunk in chunks:
                if chunk.reply is not None:
                    return chunk.reply
                flight.add(chunk)
        raise Unavailable("the stream ended before its answer was whole", model=flight.request.model)

    async def _keep(self, flight: Flight, reply: Reply, name: str) -> None:
        if flight.epoch is None or not _is_worth_keeping(reply):
            return
        request = flight.request
        tags = tuple(sorted({*flight.tags, f"model:{request.model}", f"model:{reply.model}"}))
        kept = Kept(time.time(), flight.ttl, tags, stripped(reply))
        try:
            await self._cache.put(request.scope, name, encode(kept), ttl=kept.ttl, tags=tags, since=flight.epoch)
        except Exception as error:  # noqa: BLE001 - as above
            self._failed(error)
        else:
            self.counts.kept += 1

    async def _leave(self, place: _Place, flight: Flight) -> None:
        """Stop a call that nobody waits for any more. Nobody joins it from here on."""
        if flight.deserted and not flight.ended:
            if self._flights.get(place) is flight:
                del self._flights[place]
            await flight.cancel()

    # -- giving -------------------------------------------------------------------------------------

    async def _given(self, flight: Flight, reply: Reply, started: float, *, leads: bool) -> Reply:
        """The answer of a call in the air: to one caller as it is, to the others as one they owe to the cache."""
        if leads or (not flight.paid and flight.leaderless):
            flight.paid = True
            return reply
        self.counts.joined += 1
        return await self._owed(stripped(reply), started, {"joined": True})

    async def _owed(self, reply: Reply, started: float, note: dict[str, Any]) -> Reply:
        usd = reply.cost_usd
        if usd is None:
            quote = self._prices.quote(reply.model)
            if quote is None:
                quote = await asyncio.to_thread(self._prices.look_up, reply.model)
            usd = None if quote.price is None else quote.price.cost(reply.usage)
        return changed(reply, cost_usd=0.0, stages=(Stage("exact", _ms(started), usd, note),))

    # -- the cache ----------------------------------------------------------------------------------

    def _ttl_of(self, request: Request) -> float:
        ttl = request.options.ttl
        return self._ttl if ttl is None else ttl

    async def _safely(self, asked: Awaitable[T]) -> T | None:
        """What the cache says; None, and a rest for it, where it fails."""
        try:
            return await asked
        except Exception as error:  # noqa: BLE001 - as above
            self._failed(error)
            return None

    def _failed(self, error: Exception) -> None:
        self.counts.failures += 1
        now = time.monotonic()
        self._rest_until = now + _REST_S
        if now >= self._log_at:
            self._log_at = now + _LOG_EVERY_S
            _logger.warning("the exact cache failed, calls go on without it: %s", error)


def _place(request: Request) -> _Place:
    """Where a call in the air is found: the key is the cache's.

    An answer of a layer below may be another for one who does not want the semantic cache's, and for one who wants it
    anew: they share no call with the others.
    """
    options, facts = request.options, facts_of(request)
    name = None if facts is None else facts.get(_SPACE)
    if name is None:
        name = _SPACE + request_key(request)
        if facts is not None:
            facts[_SPACE] = name
    return asyncio.get_running_loop(), name, options.semantic, options.refresh


def _is_worth_keeping(reply: Reply) -> bool:
    """Whether the next caller should get it: not what stood in for a model that failed, which may be back by then."""
    stood_in = any(stage.layer == "failover" and "asked" in stage.note for stage in reply.stages)
    return reply.tier == "model" and reply.finish != "content_filter" and not stood_in


def _is_young(kept: Kept, options: Options) -> bool:
    """Whether an answer is no older than the caller allows."""
    return options.ttl is None or time.time() - kept.at <= options.ttl


def _fits(kept: Kept, options: Options) -> bool:
    """Whether an answer can be given as it is: it is young enough, and goes with all that the caller depends on."""
    return _is_young(kept, options) and (not options.tags or set(kept.tags).issuperset(options.tags))


def _is_deterministic(decoding: Decoding) -> bool:
    """Whether the same call would be answered the same, as far as a provider can promise it."""
    return decoding.temperature == 0 or decoding.seed is not None


def _ms(started: float) -> float:
    return (time.perf_counter() - started) * 1000
