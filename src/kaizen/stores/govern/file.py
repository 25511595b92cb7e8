"""The SQLite file of keys and accounts, ``govern.db``."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Final

from kaizen.stores.schema import prepare, store_error

# Migration n takes a file from version n to n + 1; what is released is never edited.
MIGRATIONS: Final[tuple[tuple[str, ...], ...]] = (
    (
        """CREATE TABLE accounts (
            tenant, account, requests, tokens, at, day, usd_day, month, usd_month,
            PRIMARY KEY (tenant, account)) WITHOUT ROWID""",
        """CREATE TABLE air (
            tenant, account, holder, calls, until, PRIMARY KEY (tenant, account, holder)) WITHOUT ROWID""",
        "CREATE TABLE waiting (id PRIMARY KEY, tenant, holder, until, back) WITHOUT ROWID",
        """CREATE TABLE keys (
            id PRIMARY KEY, tenant, environment, digest, previous, previous_until, created_at, expires_at, revoked_at,
            last_used_at, about) WITHOUT ROWID""",
        "CREATE INDEX keys_tenant ON keys (tenant, created_at)",
    ),
)


def open_file(path: Path, patience: float) -> sqlite3.Connection:
    """A connection to the file, made where it is missing.

    Raises:
        StoreError: it can't be made or read, or is of a newer version.
    """
    try:
        return prepare(path, patience, MIGRATIONS)
    except (sqlite3.Error, OSError) as error:
        raise store_error(path, error) from error
