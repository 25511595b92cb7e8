"""The SQLite file of the ledger: making it, opening it, bringing an older one up to date."""

from __future__ import annotations

import os
import random
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Final, TypeVar

from kaizen.core.errors import StoreError

Result = TypeVar("Result")

# Migration n takes a file from version n to n + 1; what is released is never edited. Columns have no type, so
# values come back as they went in. The scope leads every index. Rows lie in the order they came, since a write
# to the end of a table is the cheapest there is. Each index ends in the id, the order that queries ask for: with
# another order SQLite would rather scan a scope than sort.
MIGRATIONS: Final[tuple[tuple[str, ...], ...]] = (
    (
        """CREATE TABLE records (
            tenant, environment, id, kind, ref, run_id, started_at, parent_id, step, principal, status, latency_ms,
            model, params, contract, tokens_in, tokens_out, tokens_cached, tokens_estimated, cost_usd, cache_tier,
            attempts, model_calls, first_token_ms, input_digest, output_digest, error_code, error, about, value)""",
        "CREATE UNIQUE INDEX records_id ON records (tenant, environment, id)",
        "CREATE INDEX records_run ON records (tenant, environment, run_id, id)",
        "CREATE INDEX records_about ON records (tenant, environment, about, id) WHERE about IS NOT NULL",
        # See stores/upkeep.py for why this is not an index of SQLite's.
        "CREATE TABLE payloads (place INTEGER PRIMARY KEY, tenant, environment, digest, data)",
        """CREATE TABLE addresses (tenant, environment, digest, place, PRIMARY KEY (tenant, environment, digest))
            WITHOUT ROWID""",
        "CREATE TABLE upkeep (indexed)",
        "INSERT INTO upkeep VALUES (0)",
    ),
    (
        "ALTER TABLE records ADD COLUMN task",
        "ALTER TABLE records ADD COLUMN saved_usd DEFAULT 0.0",
        "ALTER TABLE records ADD COLUMN stages",
    ),
    (
        "ALTER TABLE records ADD COLUMN version",
        "ALTER TABLE records ADD COLUMN experiment",
        "ALTER TABLE records ADD COLUMN subject DEFAULT ''",
    ),
    # The record of a lone call has its run's id, by which it is found already.
    (
        "DROP INDEX records_run",
        "CREATE INDEX records_run ON records (tenant, environment, run_id, id) WHERE run_id != id",
    ),
)

_BUSY: Final = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED})
_LASTING: Final = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_READONLY})
_PAUSE_S: Final = 0.001
# Without checkpoints a commit in WAL mode calls no fsync: it ends in the system's page cache, which outlives the
# process. Erased contents are overwritten with zeros, not only unlinked.
_SETTINGS: Final = ("synchronous = NORMAL", "wal_autocheckpoint = 0", "cache_size = -16384", "secure_delete = ON")

# Closing any descriptor of a file drops the locks that this process holds on it (POSIX), SQLite's too.
# So none of our threads may close the descriptor it made the file with while another one opens the file.
_making = threading.Lock()


def is_busy(error: sqlite3.Error) -> bool:
    """Whether another connection holds the lock; the same call succeeds once it lets go."""
    return _primary(error) in _BUSY


def store_error(path: Path, error: Exception) -> StoreError:
    """The house's error for what SQLite or the file system said, naming the file."""
    text = (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__
    made = StoreError(f"the record store {path}: {' '.join(text.split())}")
    if isinstance(error, sqlite3.Error) and _primary(error) in _LASTING:
        made.retryable = False
    return made


def patiently(act: Callable[[], Result], patience: float) -> Result:
    """Call until the lock is free, for at most ``patience`` seconds; sleeps in between, so never on a loop.

    The pauses are short and random rather than growing: a transaction takes far less than a millisecond,
    and whoever waits longer each time would lose to every newcomer.
    """
    give_up = time.monotonic() + patience
    while True:
        try:
            return act()
        except sqlite3.OperationalError as error:
            if not is_busy(error) or time.monotonic() >= give_up:
                raise
        time.sleep(_PAUSE_S * random.uniform(0.1, 1))  # noqa: S311 - no secret


def prepare(path: Path, patience: float, migrations: Sequence[Sequence[str]] = MIGRATIONS) -> sqlite3.Connection:
    """Make the file where it is missing (its folder 0700, itself 0600), bring it up to date and connect to it.

    Several processes may do so at once.

    Raises:
        StoreError: the file was written by a newer version.
        sqlite3.Error, OSError: it can't be made, read or changed.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with _making, suppress(FileExistsError):
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
    connection = connect(path, patience)
    try:
        patiently(lambda: connection.execute("PRAGMA journal_mode = WAL"), patience)
        patiently(lambda: _migrate(connection, path, migrations), patience)
    except BaseException:
        connection.close()
        raise
    return connection


def connect(path: Path, patience: float) -> sqlite3.Connection:
    """A connection to a prepared file, for one thread at a time.

    Raises:
        sqlite3.Error: it can't be read, or is locked for longer than ``patience``.
    """
    with _making:
        connection = sqlite3.connect(
            path, timeout=0, isolation_level=None, check_same_thread=False, cached_statements=256
        )
    try:
        for setting in _SETTINGS:
            # Even this may find the file locked, while another process makes, recovers or leaves it.
            patiently(partial(connection.execute, f"PRAGMA {setting}"), patience)
    except BaseException:
        connection.close()
        raise
    return connection


def _migrate(connection: sqlite3.Connection, path: Path, migrations: Sequence[Sequence[str]]) -> None:
    if _version(connection, path, len(migrations)) == len(migrations):
        return
    connection.execute("BEGIN IMMEDIATE")
    try:
        # Another process may have done it while this one waited for the lock.
        for steps in migrations[_version(connection, path, len(migrations)) :]:
            for sql in steps:
                connection.execute(sql)
        connection.execute(f"PRAGMA user_version = {len(migrations)}")
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _version(connection: sqlite3.Connection, path: Path, known: int) -> int:
    version: int = connection.execute("PRAGMA user_version").fetchone()[0]
    if version > known:
        error = StoreError(
            f"the record store {path} has version {version}; this Kaizen knows {known}: install a newer one"
        )
        error.retryable = False
        raise error
    return version


def _primary(error: sqlite3.Error) -> int:
    """The primary result code: extended ones carry it in their low byte. Errors of the module itself have none."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF
