"""Records to a collector of OpenTelemetry traces, after they were kept: no answer waits for it."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Final

from pydantic_core import to_json

from kaizen.core.errors import ProviderError
from kaizen.core.record import Record
from kaizen.ledger.otel import spans_of

_logger = logging.getLogger(__name__)

_QUEUE: Final = 20_000
_BATCH: Final = 512
_EVERY_S: Final = 2.0
_WORST_S: Final = 60.0


class Exporter:
    """Sends records in batches, at most two seconds after they were kept; at most 20,000 wait.

    A collector that is away is tried again with growing pauses. What does not fit the queue meanwhile is dropped, the
    oldest first, and counted: the ledger has it still.

    Args:
        post: sends one export request; it raises a ProviderError where it could not.
        service: what traces are filed under.
        sleep: waits that many seconds.

    Attributes:
        sent, dropped: how many records.
    """

    def __init__(
        self,
        post: Callable[[bytes], Awaitable[None]],
        service: str = "kaizen",
        *,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._post, self._service, self._sleep = post, service, sleep
        self._waiting: deque[Record] = deque()
        self._task: asyncio.Task[None] | None = None
        self.sent = self.dropped = 0

    def take(self, records: Sequence[Record]) -> None:
        """Send these soon. Called on a loop, as an append ends.

        Other applications' spans are left out: they have their own way to a collector, and a gateway that were its
        own collector would send the same ones for ever.
        """
        self._waiting.extend(record for record in records if record.kind not in ("score", "span"))
        while len(self._waiting) > _QUEUE:
            self._waiting.popleft()
            self.dropped += 1
        if not self._waiting:
            return
        if self._task is None or self._task.done() or self._task.get_loop() is not asyncio.get_running_loop():
            self._task = asyncio.get_running_loop().create_task(self._run())

    async def close(self) -> None:
        """Send what waits, once, and stop."""
        task, self._task = self._task, None
        if task is not None and not task.done() and task.get_loop() is asyncio.get_running_loop():
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
        while self._waiting and await self._send():
            pass

    async def _run(self) -> None:
        """Until nothing waits any more."""
        pause = _EVERY_S
        while self._waiting:
            await self._sleep(pause)
            while self._waiting:
                if not await self._send():
                    pause = min(_WORST_S, pause * 2)
                    break
                pause = _EVERY_S

    async def _send(self) -> bool:
        batch = [self._waiting.popleft() for _ in range(min(_BATCH, len(self._waiting)))]
        try:
            await self._post(to_json(spans_of(batch, self._service)))
        except ProviderError as error:
            if error.retryable:
                self._waiting.extendleft(reversed(batch))
            else:
                self.dropped += len(batch)
            _logger.warning("traces can't be exported: %s", error.kept)
            return not error.retryable
        except BaseException:
            self._waiting.extendleft(reversed(batch))
            raise
        self.sent += len(batch)
        return True
