"""The home's secret: what makes a payload's address say nothing about the payload."""

from __future__ import annotations

import fcntl
import os
import secrets
from pathlib import Path
from typing import Final

from kaizen.core.errors import StoreError

KEY_BYTES: Final = 32
_NAME: Final = "ledger.key"


def load_key(home: Path) -> bytes:
    """The 32 secret bytes in ``<home>/ledger.key`` (mode 0600), made at the first call.

    Processes that start at once all get the same key: it is written under a name of its own and then
    linked to the real one, which succeeds for one of them only and never shows a half-written file.
    Without the key, what is kept can still be read; new contents get other addresses than before.
    So it is not forced to the disk, no more than the records are: an empty file is one that the power
    left when it went, and gives way to a new key, again the same for all.

    Raises:
        StoreError: it can't be read or made, or has another length.
    """
    path = home / _NAME
    try:
        key = path.read_bytes() if path.exists() else b""
        if not key:
            home.mkdir(mode=0o700, parents=True, exist_ok=True)
            _make(path)
            key = path.read_bytes()
    except OSError as error:
        raise _error(f"{path}: {error.strerror}") from error
    if len(key) != KEY_BYTES:
        raise _error(f"{path} has {len(key)} bytes, not {KEY_BYTES}: put the right file back")
    return key


def _make(path: Path) -> None:
    draft = path.with_name(f".{_NAME}.{secrets.token_hex(8)}")
    try:
        file = os.open(draft, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
        try:
            os.write(file, secrets.token_bytes(KEY_BYTES))
        finally:
            os.close(file)
        try:
            path.hardlink_to(draft)
        except FileExistsError:  # another process was first, and its key is the key; or the file is empty
            _fill(path, draft)
    finally:
        draft.unlink(missing_ok=True)


def _fill(path: Path, draft: Path) -> None:
    """Put the draft in the place of an empty file, one process at a time: who looks next finds it full."""
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        if path.stat().st_size == 0:
            draft.replace(path)
    finally:
        os.close(folder)


def _error(message: str) -> StoreError:
    error = StoreError(f"the ledger's key {message}")
    error.retryable = False
    return error
