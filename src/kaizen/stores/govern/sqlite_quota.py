"""Accounts in a SQLite file, for all processes of one machine."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final, TypeVar

from kaizen.core.errors import StoreError
from kaizen.core.identity import Amount, Refused, Standing
from kaizen.core.scope import Scope
from kaizen.stores.govern.book import (
    Account,
    Batch,
    Charged,
    Now,
    SettleOp,
    WaitOp,
    correct,
    minus,
    moment,
    work,
)
from kaizen.stores.govern.file import open_file
from kaizen.stores.govern.lanes import GatheringQuota, Outcomes
from kaizen.stores.govern.wire import packed, unpacked
from kaizen.stores.schema import connect, is_busy, patiently, store_error
from kaizen.stores.upkeep import fold, roll_back

Result = TypeVar("Result")

_logger = logging.getLogger(__name__)

_FOLD_EVERY: Final = 2048  # transactions, of some 8 KiB of log each
_SWEPT_AT_ONCE: Final = 100
_NOTHING: Final = Amount()
# What SQLite says, and what Python says of values that SQLite can't take.
_FAILURES: Final = (sqlite3.Error, UnicodeError, OverflowError)

_READ: Final = (
    "SELECT requests, tokens, at, day, usd_day, month, usd_month FROM accounts WHERE tenant = ? AND account = ?"
)
_WRITE: Final = "REPLACE INTO accounts VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
_OTHERS: Final = (
    "SELECT coalesce(sum(calls), 0) FROM air WHERE tenant = ? AND account = ? AND holder != ? AND until > ?"
)
_STALE: Final = "SELECT id, back FROM waiting WHERE until <= ?1 AND (?2 IS NULL OR tenant = ?2) LIMIT ?3"
_ALL: Final = "SELECT coalesce(sum(calls), 0) FROM air WHERE tenant = ? AND account = ? AND until > ?"


class SqliteQuota(GatheringQuota):
    """Accounts in one SQLite file with a write-ahead log, which several processes and loops may use at once.

    A batch is one transaction, done on the loop itself: some 30 µs, and no fsync. What may take longer goes to a
    thread: waiting for another process's lock, and checkpoints. What was taken survives the death of the process; a
    power loss may cost the last transactions (``synchronous=NORMAL``).

    Args:
        path: the file; its folder is made where it is missing.
        lease: seconds that calls in the air count after their process died.
        patience: seconds to wait for other processes' locks before a take fails.
        clock: Unix seconds.
    """

    def __init__(
        self, path: Path, *, lease: float = 30.0, patience: float = 10.0, clock: Callable[[], float] = time.time
    ) -> None:
        super().__init__(lease)
        self._path, self._patience, self._clock = path, patience, clock
        self._writer: sqlite3.Connection | None = None
        self._writing = threading.Lock()  # held while the writer is used
        self._threads = ThreadPoolExecutor(2, "kaizen-quota")
        self._unfolded = 0
        self._folding = threading.Lock()

    def _now(self, batch: Batch) -> Outcomes | None:
        # While the log is folded the system may hold up writes until an fsync is through.
        if self._writer is None or self._folding.locked() or not self._writing.acquire(blocking=False):
            return None
        try:
            return self._do(self._writer, batch)
        except Exception:  # noqa: BLE001 - the lock is taken, or whatever is wrong: a thread will see, and say so
            return None
        finally:
            self._writing.release()

    async def _later(self, batch: Batch) -> Outcomes:
        return await self._on_thread(lambda writer: self._do(writer, batch))

    async def _standing(self, scope: Scope, accounts: Sequence[str]) -> Sequence[Standing]:
        def read(writer: sqlite3.Connection) -> list[Standing]:
            now = moment(self._clock())
            page = _Page(writer, "", now, 0)
            return [page.standing(scope.tenant, account) for account in accounts]

        return await self._on_thread(read)

    async def _let_go(self) -> None:
        await asyncio.to_thread(self._threads.shutdown)
        with self._writing:
            if self._writer is not None:
                self._writer.close()
            self._writer = None

    # -- the file -----------------------------------------------------------------------------------

    def _do(self, writer: sqlite3.Connection, batch: Batch) -> list[Charged | Refused]:
        """One batch in one transaction. Whoever calls holds ``_writing``."""
        writer.execute("BEGIN IMMEDIATE")
        try:
            # The time is taken under the lock, so that no writer goes back behind another one's.
            page = _Page(writer, batch.holder, moment(self._clock()), batch.hold_ms)
            outcomes = page.do(batch)
            writer.execute("COMMIT" if page.changed else "ROLLBACK")
        except BaseException:
            roll_back(writer)
            raise
        self._unfolded += 1
        if self._unfolded > _FOLD_EVERY and self._folding.acquire(blocking=False):
            self._unfolded = 0
            try:
                self._threads.submit(self._fold)
            except RuntimeError:  # closing
                self._folding.release()
        return outcomes

    async def _on_thread(self, act: Callable[[sqlite3.Connection], Result]) -> Result:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, self._patiently, act)
        except RuntimeError:
            raise StoreError(f"{self._path} is closed") from None

    def _patiently(self, act: Callable[[sqlite3.Connection], Result]) -> Result:
        try:
            with self._writing:
                if self._writer is None:
                    self._writer = open_file(self._path, self._patience)
                writer = self._writer
                return patiently(lambda: act(writer), self._patience)
        except _FAILURES as error:
            raise store_error(self._path, error) from error

    def _fold(self) -> None:
        try:
            connection = connect(self._path, self._patience)
            try:
                fold(connection, shrink=False)
            finally:
                connection.close()
        except (sqlite3.Error, OSError) as error:
            if not (isinstance(error, sqlite3.Error) and is_busy(error)):
                _logger.warning("the log of %s could not be folded: %s", self._path, error)
        finally:
            self._folding.release()


class _Page:
    """The accounts that one transaction looks at."""

    __slots__ = ("_accounts", "_air", "_execute", "_hold_ms", "_holder", "_now", "_own", "_writer", "changed")

    def __init__(self, writer: sqlite3.Connection, holder: str, now: Now, hold_ms: int) -> None:
        self._writer, self._execute = writer, writer.execute
        self._holder, self._now, self._hold_ms = holder, now, hold_ms
        self._accounts: dict[tuple[str, str], Account] = {}
        self._air: dict[tuple[str, str], int] = {}
        self._own: dict[tuple[str, str], int] = {}
        self.changed = False

    def do(self, batch: Batch) -> list[Charged | Refused]:
        # what this holder has in the air lives on with each word of it, a refused take's too
        self.changed = bool(batch.settles or batch.waits or batch.air) or batch.alive is not None
        if batch.alive is not None:
            self._beat()
        for op in batch.settles:
            lost = op.waiting is not None and not self._unmark(op.waiting)
            self._correct(op, minus(op.less, op.whole) if lost else op.less)
        for mark in batch.waits:
            self._wait(mark)
        self._own = dict(batch.air)
        outcomes = self._work(batch)
        if not self.changed and all(isinstance(outcome, Refused) for outcome in outcomes):
            return outcomes
        self.changed = True
        self._write()
        return outcomes

    def _work(self, batch: Batch) -> list[Charged | Refused]:
        outcomes = work(batch.takes, self._now, self._account, self._in_air, self._add_air)
        refused = [place for place, outcome in enumerate(outcomes) if isinstance(outcome, Refused)]
        if sum(self._sweep(tenant) for tenant in {batch.takes[place].tenant for place in refused}):
            again = work(
                [batch.takes[place] for place in refused], self._now, self._account, self._in_air, self._add_air
            )
            for place, outcome in zip(refused, again, strict=True):
                outcomes[place] = outcome
        return outcomes

    def _account(self, tenant: str, name: str) -> Account:
        key = (tenant, name)
        account = self._accounts.get(key)
        if account is None:
            row = self._execute(_READ, key).fetchone()
            account = self._accounts[key] = Account() if row is None else Account(*row)
        return account

    def _in_air(self, tenant: str, name: str) -> int:
        key = (tenant, name)
        if key not in self._air:
            self._air[key] = self._execute(_OTHERS, (*key, self._holder, self._now.ms)).fetchone()[0]
        return self._air[key] + self._own.get(key, 0)

    def _add_air(self, tenant: str, name: str, calls: int) -> None:
        key = (tenant, name)
        self._own[key] = self._own.get(key, 0) + calls

    def _correct(self, op: SettleOp, less: Amount) -> None:
        for name in op.accounts:
            correct(self._account(op.tenant, name), less, op.day, op.month)

    def _wait(self, op: WaitOp) -> None:
        back = op.back
        if not op.sent:
            row = (back.waiting, back.tenant, self._holder, self._now.ms + self._hold_ms, packed(back))
            self._execute("REPLACE INTO waiting VALUES (?, ?, ?, ?, ?)", row)
        elif not self._unmark(back.waiting):
            self._correct(back, minus(_NOTHING, back.whole))

    def _unmark(self, mark: str | None) -> bool:
        return self._execute("DELETE FROM waiting WHERE id = ?", (mark,)).rowcount > 0

    def _beat(self) -> None:
        until = self._now.ms + self._hold_ms
        self._execute("UPDATE waiting SET until = ? WHERE holder = ?", (until, self._holder))
        self._execute("DELETE FROM air WHERE until <= ?", (self._now.ms,))
        self._sweep()

    def _sweep(self, tenant: str | None = None) -> bool:
        """Give back what was taken for calls that were never sent, by processes that died; whether there were any."""
        found = self._execute(_STALE, (self._now.ms, tenant, _SWEPT_AT_ONCE)).fetchall()
        for waiting, back in found:
            op = unpacked(back)
            self._correct(op, op.whole)
            self._unmark(waiting)
        self.changed |= bool(found)
        return bool(found)

    def _write(self) -> None:
        self._many(_WRITE, [(*key, *_row(account)) for key, account in self._accounts.items()])
        if self._own:
            until = self._now.ms + self._hold_ms
            rows = [(*key, self._holder, calls, until) for key, calls in self._own.items()]
            self._many("REPLACE INTO air VALUES (?, ?, ?, ?, ?)", rows)

    def _many(self, sql: str, rows: Iterable[tuple[Any, ...]]) -> None:
        for row in rows:  # faster than executemany for the few that there are
            self._execute(sql, row)

    def standing(self, tenant: str, name: str) -> Standing:
        account, now = self._account(tenant, name), self._now
        return Standing(
            name,
            account.usd_day if account.day == now.day else 0,
            account.usd_month if account.month == now.month else 0,
            self._execute(_ALL, (tenant, name, now.ms)).fetchone()[0],
        )


def _row(account: Account) -> tuple[int | None, ...]:
    return (
        account.requests,
        account.tokens,
        account.at,
        account.day,
        account.usd_day,
        account.month,
        account.usd_month,
    )
