"""Where records and answers lie, as the settings want it."""

from __future__ import annotations

import os
from pathlib import Path

from kaizen.core.errors import ConfigError
from kaizen.core.protocols import Cache, Store
from kaizen.settings import Settings


def make_store(settings: Settings) -> Store:
    """The ledger's store: PostgreSQL where ``storage.database_url`` names one, else SQLite under ``home``.

    Raises:
        ConfigError: the extra is not installed.
    """
    url = settings.storage.database_url
    if url is None:
        from kaizen.stores.sqlite import SqliteStore

        return SqliteStore(ledger_file(settings.home))
    try:
        from kaizen.stores.postgres.store import PostgresStore
    except ImportError as error:
        raise not_installed("storage.database_url", "postgres") from error
    return PostgresStore(url.get_secret_value())


def make_cache(settings: Settings, *, sole: bool = False) -> Cache:
    """Where answers are kept: Redis where ``storage.redis_url`` names one; else memory, and behind it a file.

    The file, ``cache.db`` under ``home``, is what the processes of a machine share, and what is there again after they
    end; ``inference.exact.disk_bytes = 0`` does without. Nothing is opened before the first use.

    Args:
        settings: where.
        sole: this process alone answers from it, see ``TieredCache``.

    Raises:
        ConfigError: the extra is not installed.
    """
    own, url = settings.inference.exact, settings.storage.redis_url
    if url is not None:
        try:
            from kaizen.stores.cache.redis import RedisCache
        except ImportError as error:
            raise not_installed("storage.redis_url", "redis") from error
        return RedisCache(url.get_secret_value())
    from kaizen.stores.cache.memory import MemoryCache

    memory = MemoryCache(own.max_bytes)
    if not own.disk_bytes:
        return memory
    from kaizen.stores.cache.sqlite import SqliteCache
    from kaizen.stores.cache.tiered import TieredCache

    return TieredCache(memory, SqliteCache(settings.home.absolute() / "cache.db", own.disk_bytes), sole=sole)


def counts_folder(settings: Settings) -> Path:
    """Where each gateway keeps its counts, in a folder named by its port."""
    return settings.home.absolute() / "gateway"


def ledger_file(home: Path) -> Path:
    """The SQLite file of the ledger."""
    return home.absolute() / "ledger.db"


def process_cache(settings: Settings) -> Cache:
    """The cache of the process's Apps: one for the same settings, however often the process is configured anew."""
    own, url = settings.inference.exact, settings.storage.redis_url
    key = (settings.home.absolute(), own.max_bytes, own.disk_bytes, None if url is None else url.get_secret_value())
    if key not in _caches:
        _caches[key] = make_cache(settings)
    return _caches[key]


def forget_cache(cache: Cache) -> None:
    """It was closed: the process's next App gets another."""
    for key in [key for key, kept in _caches.items() if kept is cache]:
        _caches.pop(key, None)


_caches: dict[tuple[object, ...], Cache] = {}
_left: list[dict[tuple[object, ...], Cache]] = []


def _start_anew() -> None:
    """In a forked child: the parent's caches are neither used nor closed."""
    global _caches
    _left.append(_caches)
    _caches = {}


os.register_at_fork(after_in_child=_start_anew)


def not_installed(key: str, extra: str) -> ConfigError:
    """The error for a setting whose extra is not there."""
    return ConfigError(f'{key} is set, and its client is not installed: pip install "kaizen-engine[{extra}]"')
