"""The rows of a Parquet file, a few thousand at a time."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from kaizen.core.errors import ConfigError, InvalidInput

_AT_ONCE: Final = 4096


def parquet_rows(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of a file, by column; decimals become floats.

    Raises:
        ConfigError: DuckDB, which reads it, is not installed.
        InvalidInput: it is no Parquet file.
    """
    if find_spec("duckdb") is None:
        raise ConfigError('reading Parquet needs DuckDB, not installed: pip install "kaizen-engine[parquet]"')
    import duckdb

    # the format is part of it: nothing may be fetched
    settings: Any = {"autoinstall_known_extensions": "false", "autoload_known_extensions": "false"}
    with duckdb.connect(config=settings) as connection:
        try:
            found = connection.execute("SELECT * FROM read_parquet([?])", [str(path)])
            names = [str(column[0]) for column in found.description or ()]
            while rows := found.fetchmany(_AT_ONCE):
                for row in rows:
                    yield dict(zip(names, map(_plain, row), strict=True))
        except duckdb.Error as error:
            raise InvalidInput(f"{path} can't be read as Parquet: {str(error).splitlines()[0]}") from None


def _plain(value: Any) -> Any:
    return float(value) if isinstance(value, Decimal) else value
