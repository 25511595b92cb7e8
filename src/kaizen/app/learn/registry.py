"""The registry, joined with the storage that the settings name."""

from __future__ import annotations

from kaizen.app.storage import not_installed
from kaizen.core.protocols import Archive
from kaizen.registry.registry import Registry
from kaizen.registry.releases import Releases
from kaizen.settings import Settings


def make_archive(settings: Settings) -> Archive:
    """Where versions and labels lie: PostgreSQL where ``storage.database_url`` names one, else ``registry.db``.

    Nothing is opened before the first use, and no file is made before the first version.

    Raises:
        ConfigError: the extra is not installed.
    """
    url = settings.storage.database_url
    if url is None:
        from kaizen.stores.registry.sqlite import SqliteArchive

        return SqliteArchive(settings.home.absolute() / "registry.db")
    try:
        from kaizen.stores.registry.postgres import PostgresArchive
    except ImportError as error:
        raise not_installed("storage.database_url", "postgres") from error
    return PostgresArchive(url.get_secret_value())


def make_releases(settings: Settings, archive: Archive | None = None) -> Releases:
    """The registry (``releases.registry``), and which of its versions run.

    Args:
        settings: where it lies.
        archive: instead of the settings'.
    """
    return Releases(Registry(archive or make_archive(settings)))
