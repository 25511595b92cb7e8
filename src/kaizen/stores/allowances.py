"""What each run has taken from its allowance: a small SQLite file that outlives the process. Counts, no contents."""

from __future__ import annotations

import asyncio
import fcntl
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Final, Self, TypeVar

from kaizen.core.errors import BudgetExceeded, ConfigError, Conflict, StoreError
from kaizen.core.ids import digest
from kaizen.core.protocols import Need
from kaizen.core.request import Request, Usage
from kaizen.core.scope import Scope
from kaizen.stores.schema import patiently, prepare, store_error

T = TypeVar("T")

MIGRATIONS: Final[tuple[tuple[str, ...], ...]] = (
    (
        """CREATE TABLE allowances (
            tenant, environment, run_id, plan, calls, tokens, usd, seconds, begun,
            PRIMARY KEY (tenant, environment, run_id)) WITHOUT ROWID""",
    ),
)
_PATIENCE_S: Final = 30.0
_KEPT_S: Final = 90 * 86_400.0
_AT_ONCE: Final = 100  # old runs that are forgotten at one opening
_WHOSE: Final = "tenant = ? AND environment = ? AND run_id = ?"
# One statement, so that two processes can't both take what is left.
_TAKE: Final = """
    UPDATE allowances
    SET calls = calls + 1, tokens = tokens + :tokens, usd = usd + :usd, seconds = max(seconds, :seconds)
    WHERE tenant = :tenant AND environment = :environment AND run_id = :run_id
      AND (:calls_limit IS NULL OR calls + 1 <= :calls_limit)
      AND (:tokens_limit IS NULL OR tokens + :tokens <= :tokens_limit)
      AND (:usd_limit IS NULL OR usd + :usd <= :usd_limit + 1e-12)"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a run may take; None is no limit.

    Args:
        calls: requests that reach a provider.
        tokens: tokens read and written.
        usd: dollars.
        seconds: of wall time that processes worked on the run, those that were killed included.
    """

    calls: int | None = None
    tokens: int | None = None
    usd: float | None = None
    seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Taken:
    """What a run has taken so far."""

    calls: int = 0
    tokens: int = 0
    usd: float = 0.0
    seconds: float = 0.0


class FileAllowance:
    """An ``Allowance`` in a file, for all processes of a machine that work on the run, one at a time.

    A request is counted, and that is written, before it is sent: what a killed process had sent stays counted, whether
    or not its answer came. It survives the end of the process; the last moments before the machine's end may be lost.
    A run that nobody has worked on for 90 days is forgotten.

    Args:
        path: the file; made when first needed.
        scope: whose run.
        run_id: which.
        limits: what it may take.
        bound: what a request may use at most, and the request so bounded; asked where tokens or dollars are limited.
        price: what a usage costs on a model; None where that is not known.
    """

    def __init__(
        self,
        path: Path,
        scope: Scope,
        run_id: str,
        limits: Limits,
        *,
        bound: Callable[[Request], tuple[Request, Need]] | None = None,
        price: Callable[[str, Usage], float | None] | None = None,
    ) -> None:
        self.limits = limits
        self._path, self._scope, self._run_id = path, scope, run_id
        self._bound, self._price = bound, price
        self._whose = (scope.tenant, scope.environment, run_id)
        self._using = threading.Lock()
        self._db: sqlite3.Connection | None = None
        self._held: int | None = None
        self._begun, self._before = time.monotonic(), 0.0

    # -- opening and closing ------------------------------------------------------------------------

    async def open(self, plan: str) -> Taken:
        """Take hold of the run: no other process works on it from here on. What it has taken before.

        Args:
            plan: digest of what the run is to do: a run goes on with the plan it began with.

        Raises:
            Conflict: another process works on it, or it was begun with another plan.
        """
        # no task of its own, which would be cancelled beside us where a loop ends
        opening = asyncio.get_running_loop().run_in_executor(None, self._open, plan)
        try:
            return await asyncio.shield(opening)
        except asyncio.CancelledError:
            # The thread goes on, and takes hold of a run that nobody would ever let go of.
            while not opening.done():
                with suppress(asyncio.CancelledError):
                    await asyncio.wait([opening])
            opening.exception()  # seen: whoever cancelled does not want it
            with self._using:
                self._let_go()
            raise

    def _open(self, plan: str) -> Taken:
        self._lock()
        try:
            with self._using:
                db = self._connected()
                # `begun` is when somebody last began to work on it
                begin = (
                    "INSERT INTO allowances VALUES (?, ?, ?, ?, 0, 0, 0.0, 0.0, ?) "
                    "ON CONFLICT DO UPDATE SET begun = excluded.begun"
                )
                patiently(lambda: db.execute(begin, (*self._whose, plan, time.time())), _PATIENCE_S)
                known: str = db.execute(f"SELECT plan FROM allowances WHERE {_WHOSE}", self._whose).fetchone()[0]  # noqa: S608 - a constant
            if known != plan:
                raise Conflict(
                    f"run {self._run_id} was begun with other data, another program or other settings: go on with it "
                    "as it was begun, or start a new one",
                    detail={"run_id": self._run_id},
                )
            taken = self._taken()
            with suppress(StoreError, OSError):  # the next to open goes on with it
                self._forget_old()
        except (sqlite3.Error, OSError) as error:
            self._let_go()
            raise store_error(self._path, error) from error
        except BaseException:
            self._let_go()
            raise
        self._begun, self._before = time.monotonic(), taken.seconds
        return taken

    def _lock(self) -> None:
        """Hold the run's own lock file: the lock ends with the process, however it ends."""
        file = self._lock_file(self._whose)
        try:
            file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            held = _locked(file)
        except OSError as error:
            raise store_error(self._path, error) from error
        if held is None:
            raise Conflict(
                f"another process works on run {self._run_id}; wait until it ends",
                detail={"run_id": self._run_id, "held": True},
            )
        self._held = held

    def _lock_file(self, whose: Sequence[str]) -> Path:
        return self._path.parent / "allowances" / f"{digest(' '.join(whose).encode())}.lock"

    def _forget_old(self) -> None:
        """Drop runs that nobody has begun to work on for 90 days, and their lock files, but none that is held now."""
        sql = f"SELECT tenant, environment, run_id FROM allowances WHERE begun < ? LIMIT {_AT_ONCE}"  # noqa: S608 - a constant
        delete = f"DELETE FROM allowances WHERE {_WHOSE} AND begun < ?"  # noqa: S608 - a constant
        before = time.time() - _KEPT_S
        old: list[tuple[str, str, str]] = self._do(lambda db: db.execute(sql, (before,)).fetchall())
        for whose in old:
            file = self._lock_file(whose)
            held = _locked(file)
            if held is None:
                continue
            try:
                given = (*whose, before)
                self._do(lambda db, given=given: db.execute(delete, given))
                file.unlink(missing_ok=True)
            finally:
                os.close(held)

    async def close(self) -> Taken:
        """Let go of the run; what it has taken."""
        return await asyncio.to_thread(self._close)

    def _close(self) -> Taken:
        try:
            if self._held is not None:  # whoever was refused spent none of the run's time
                sql = f"UPDATE allowances SET seconds = max(seconds, ?) WHERE {_WHOSE}"  # noqa: S608 - a constant
                self._do(lambda db: db.execute(sql, (self._seconds(), *self._whose)))
            return self._taken()
        finally:
            with self._using:
                self._let_go()

    def _let_go(self) -> None:
        db, self._db = self._db, None
        if db is not None:
            db.close()
        held, self._held = self._held, None
        if held is not None:
            os.close(held)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def known(self) -> bool:
        """Whether the run was begun before."""
        sql = f"SELECT 1 FROM allowances WHERE {_WHOSE}"  # noqa: S608 - a constant
        return await asyncio.to_thread(self._do, lambda db: db.execute(sql, self._whose).fetchone() is not None)

    # -- taking -------------------------------------------------------------------------------------

    def narrow(self, limits: Limits) -> None:
        """Hold the run to these limits from here on, such as those of a part of its work."""
        self.limits = limits

    def left_seconds(self) -> float | None:
        """Seconds that the run may still take; None without a limit."""
        return None if self.limits.seconds is None else max(0.0, self.limits.seconds - self._seconds())

    async def taken(self) -> Taken:
        """What the run has taken so far."""
        return await asyncio.to_thread(self._taken)

    async def take(self, request: Request, /) -> _Claim:
        """Count a request that is about to be sent; with what it may use at most, where that is limited.

        Raises:
            BudgetExceeded: it would pass a limit.
            ConfigError: dollars are limited and the model's price is not known.
        """
        # to its end even where the caller is cancelled meanwhile: it is counted, and was not sent
        return await asyncio.to_thread(self._claimed, request, self.limits)

    def _claimed(self, request: Request, limits: Limits) -> _Claim:
        need = Need(1)
        if self._bound is not None and (limits.tokens is not None or limits.usd is not None):
            request, need = self._bound(request)  # may read the table of prices, which takes a while the first time
        if limits.usd is not None and need.usd is None:
            raise ConfigError(
                f"the price of {request.model} is not known, so a budget in dollars can't be held with it: name it in "
                f'[models."{request.model}"]',
                detail={"model": request.model},
            )
        tokens = 0 if limits.tokens is None else need.tokens
        usd = 0.0 if limits.usd is None else need.usd or 0.0
        self._take(limits, tokens, usd)
        return _Claim(self, request, tokens, usd)

    def _take(self, limits: Limits, tokens: int, usd: float) -> None:
        given = {f"{one.name}_limit": getattr(limits, one.name) for one in fields(limits)}
        given |= dict(zip(("tenant", "environment", "run_id"), self._whose, strict=True))
        given |= {"tokens": tokens, "usd": usd, "seconds": self._seconds()}
        late = limits.seconds is not None and self._seconds() >= limits.seconds
        if late or not self._do(lambda db: db.execute(_TAKE, given).rowcount):
            taken = replace(self._taken(), seconds=round(self._seconds(), 1))
            spent = ", ".join(
                f"{getattr(taken, one.name)} of {limit} {one.name}"
                for one in fields(limits)
                if (limit := getattr(limits, one.name)) is not None
            )
            raise BudgetExceeded(f"the budget of run {self._run_id} is spent: {spent}", detail={"run_id": self._run_id})

    async def put(self, model: str, usage: Usage, tokens: int, usd: float) -> None:
        """Put what a request really used in the place of what was taken for it."""
        await asyncio.to_thread(self._put, model, usage, tokens, usd)

    def _put(self, model: str, usage: Usage, tokens: int, usd: float) -> None:
        cost = self._price(model, usage) if self._price is not None else None
        used = usage.tokens_in + usage.tokens_out
        change = (used - tokens, (usd if cost is None and usd else cost or 0.0) - usd, *self._whose)
        sql = f"UPDATE allowances SET tokens = tokens + ?, usd = usd + ? WHERE {_WHOSE}"  # noqa: S608 - a constant
        self._do(lambda db: db.execute(sql, change))

    # -- inside -------------------------------------------------------------------------------------

    def _seconds(self) -> float:
        return self._before + time.monotonic() - self._begun

    def _taken(self) -> Taken:
        sql = f"SELECT calls, tokens, usd, seconds FROM allowances WHERE {_WHOSE}"  # noqa: S608 - a constant
        row: Any = self._do(lambda db: db.execute(sql, self._whose).fetchone())
        return Taken() if row is None else Taken(*row)

    def _do(self, act: Callable[[sqlite3.Connection], T]) -> T:
        try:
            with self._using:
                db = self._connected()
                return patiently(lambda: act(db), _PATIENCE_S)
        except (sqlite3.Error, OSError) as error:
            raise store_error(self._path, error) from error

    def _connected(self) -> sqlite3.Connection:
        if self._db is None:
            self._db = prepare(self._path, _PATIENCE_S, MIGRATIONS)
            self._db.execute("PRAGMA wal_autocheckpoint = 256")
        return self._db


def _locked(file: Path) -> int | None:
    """A lock file that is locked now; None where another holds it.

    Raises:
        OSError: it can't be opened.
    """
    while True:
        held = os.open(file, os.O_RDWR | os.O_CREAT, 0o600)
        kept = False
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            kept = _is_there(file, held)
        except BlockingIOError:
            return None
        finally:
            if not kept:
                os.close(held)
        if kept:  # else it was forgotten between opening and locking, and another may have made it anew
            return held


def _is_there(file: Path, held: int) -> bool:
    """Whether the file of that name is still the one that was opened."""
    try:
        return os.path.samestat(file.stat(), os.fstat(held))
    except FileNotFoundError:
        return False


class _Claim:
    """What was taken for one request."""

    __slots__ = ("_allowance", "_tokens", "_usd", "request")

    def __init__(self, allowance: FileAllowance, request: Request, tokens: int, usd: float) -> None:
        self._allowance, self.request, self._tokens, self._usd = allowance, request, tokens, usd

    async def settle(self, usage: Usage, /) -> None:
        """Put what was used in the place of what was taken."""
        await self._allowance.put(self.request.model, usage, self._tokens, self._usd)
