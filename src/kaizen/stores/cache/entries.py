"""The rows of the SQLite cache: its tables, and what is done to them inside one transaction."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from pydantic_core import from_json, to_json

from kaizen.core.quick.values import quick
from kaizen.core.scope import Scope

# A put costs what it dirties: a page at the end of the table and one of the index of keys, and no other. So no index
# says what is old or unread (that is looked for in the table, behind the back of the puts), and an entry's tags are
# entered into ``tags`` with many others, or when somebody invalidates: those of places after ``upkeep.tagged`` are not
# there yet. The value stands last, so that to look through the table is not to read it. ``used`` is the minute in
# which an entry was last known to be read.
MIGRATIONS: Final[tuple[tuple[str, ...], ...]] = (
    (
        "CREATE TABLE entries (place INTEGER PRIMARY KEY, tenant, environment, key, until, used, tags, value)",
        "CREATE UNIQUE INDEX entries_key ON entries (tenant, environment, key)",
        """CREATE TABLE tags (
            tenant, environment, tag, place, PRIMARY KEY (tenant, environment, tag, place)) WITHOUT ROWID""",
        "CREATE TABLE scopes (tenant, environment, epoch, generation, PRIMARY KEY (tenant, environment)) WITHOUT ROWID",
        """CREATE TABLE invalidated (
            tenant, environment, tag, epoch, at, PRIMARY KEY (tenant, environment, tag)) WITHOUT ROWID""",
        "CREATE TABLE upkeep (tagged)",
        "INSERT INTO upkeep VALUES (0)",
    ),
)

_AT_ONCE: Final = 256  # rows that are deleted in one transaction: other writers wait for it
_TAGGED_AT_ONCE: Final = 2048
_LOOKED_AT: Final = 20_000
_KEYS_AT_ONCE: Final = 1024
# Nothing is in the air for a day: older invalidations can be forgotten.
_REMEMBERED_S: Final = 86_400.0
_EVERYTHING: Final = ""  # the tag under which the invalidation of a whole scope is remembered; no tag is empty
_SCOPED: Final = "tenant = ? AND environment = ?"


_FIND: Final = (
    f"SELECT place, value, until, used FROM entries WHERE {_SCOPED} AND key = ? AND (until IS NULL OR until > ?)"  # noqa: S608 - no values
)
_INSERT: Final = "INSERT INTO entries (tenant, environment, key, until, used, tags, value) VALUES "
_ROW: Final = "(?, ?, ?, ?, ?, ?, ?)"
_ROWS_A_STATEMENT: Final = 32


@quick
@dataclass(frozen=True, slots=True)
class Entry:
    """What is put: ``until`` and ``now`` are Unix seconds."""

    scope: Scope
    key: str
    value: bytes
    until: float | None
    tags: tuple[str, ...]
    since: int | None
    now: float


@dataclass(frozen=True, slots=True)
class Found:
    """What was found: where it lies, its value, its end, and the minute it was last noted as read."""

    place: int
    value: bytes
    until: float | None
    used: int


def find(reader: sqlite3.Connection, scope: Scope, key: str, now: float) -> Found | None:
    """An entry that is not too old."""
    row = reader.execute(_FIND, (scope.tenant, scope.environment, key, now)).fetchone()
    return None if row is None else Found(*row)


def counts(reader: sqlite3.Connection, scope: Scope) -> tuple[int, int]:
    """A scope's epoch and generation."""
    row = reader.execute(f"SELECT epoch, generation FROM scopes WHERE {_SCOPED}", _owner(scope)).fetchone()  # noqa: S608
    return row or (0, 0)


def put_all(writer: sqlite3.Connection, group: Sequence[Entry]) -> bool:
    """Keep entries, each in the place of what is there; whether a scope's counts have grown.

    Nearly all are new: those are written many at once, and the others looked at one by one.
    """
    epochs: dict[Scope, int] = {}
    new: dict[tuple[Scope, str], Entry] = {}
    for entry in group:
        scope, since = entry.scope, entry.since
        if scope not in epochs:
            epochs[scope] = counts(writer, scope)[0]
        untouched = since is None or since == epochs[scope]
        if untouched and (entry.until is None or entry.until > entry.now):
            new.setdefault((scope, entry.key), entry)
    there = set[int]()
    rows = list(new.values())
    for start in range(0, len(rows), _ROWS_A_STATEMENT):
        part = rows[start : start + _ROWS_A_STATEMENT]
        there.update(map(id, _insert(writer, part)))
    if len(there) == len(group):
        return False
    grown = False
    for entry in group:
        if id(entry) not in there:
            grown |= put(writer, entry)
    return grown


def _insert(writer: sqlite3.Connection, part: Sequence[Entry]) -> Sequence[Entry]:
    """Keep those of which nothing is there yet; which these were."""
    values: list[object] = []
    for entry in part:
        values += (*_owner(entry.scope), entry.key, entry.until, int(entry.now // 60), _written(entry), entry.value)
    cursor = writer.execute(f"{_INSERT}{', '.join([_ROW] * len(part))} ON CONFLICT DO NOTHING", values)
    count = cursor.rowcount
    if count == len(part):  # as nearly always. RETURNING would gather them all first, in a table of its own
        return part
    if not count:
        return ()
    # their places are the last ones
    sql = "SELECT tenant, environment, key FROM entries ORDER BY place DESC LIMIT ?"
    inserted = set(writer.execute(sql, (count,)).fetchall())
    return [entry for entry in part if (*_owner(entry.scope), entry.key) in inserted]


def _written(entry: Entry) -> str | None:
    return to_json(entry.tags).decode() if entry.tags else None


def put(writer: sqlite3.Connection, entry: Entry) -> bool:
    """Keep an entry in the place of what is there, unless one of its tags was invalidated since.

    Whether the scope's counts have grown.
    """
    owner = _owner(entry.scope)
    if entry.since is not None and _invalidated(writer, entry, entry.since):
        return False
    row = writer.execute(
        f"SELECT place, tags, until FROM entries WHERE {_SCOPED} AND key = ?",  # noqa: S608
        (*owner, entry.key),
    ).fetchone()
    grown = row is not None and (row[2] is None or row[2] > entry.now)
    if grown:  # others may have it in memory
        _count(writer, entry.scope, epoch=0)
    over = entry.until is not None and entry.until <= entry.now
    tags = _written(entry)
    values = (entry.until, int(entry.now // 60), tags, entry.value)
    if row is None:
        if not over:
            writer.execute(f"{_INSERT}{_ROW}", (*owner, entry.key, *values))
    elif over:
        _delete(writer, [(row[0], *owner, row[1])])
    else:
        # in its place: a place that was deleted might be handed out anew, and be taken for one whose tags are entered
        sql = "UPDATE entries SET until = ?, used = ?, tags = ?, value = ? WHERE place = ?"
        writer.execute(sql, (*values, row[0]))
        if row[1] != tags and row[0] <= _tagged(writer):
            _untag(writer, [(row[0], *owner, row[1])])
            _tag(writer, [(row[0], *owner, tags)])
    return grown


def invalidate(writer: sqlite3.Connection, scope: Scope, tags: Sequence[str] | None, now: float) -> int:
    """Drop what carries any of the tags, or all, and remember it; how many there were that were not too old."""
    owner = _owner(scope)
    epoch = _count(writer, scope, epoch=1)
    writer.execute("DELETE FROM invalidated WHERE at < ?", (now - _REMEMBERED_S,))
    names = [_EVERYTHING] if tags is None else list(dict.fromkeys(tags))
    writer.executemany(
        "INSERT OR REPLACE INTO invalidated VALUES (?, ?, ?, ?, ?)", [(*owner, name, epoch, now) for name in names]
    )
    if tags is None:
        count = size(writer, scope, now)[0]
        writer.execute(f"DELETE FROM entries WHERE {_SCOPED}", owner)  # noqa: S608
        writer.execute(f"DELETE FROM tags WHERE {_SCOPED}", owner)  # noqa: S608
        _set_back(writer)
        return count
    while enter_tags(writer):
        pass
    count = 0
    for name in names:
        found = writer.execute(
            f"""SELECT place, tenant, environment, tags, until FROM entries WHERE place IN (
                SELECT place FROM tags WHERE {_SCOPED} AND tag = ?)""",  # noqa: S608
            (*owner, name),
        ).fetchall()
        count += sum(until is None or until > now for *_, until in found)
        _delete(writer, [row[:4] for row in found])
    return count


def size(reader: sqlite3.Connection, scope: Scope, now: float) -> tuple[int, int]:
    """Entries of a scope and the bytes of their keys and values."""
    return reader.execute(
        f"""SELECT count(*), coalesce(sum(length(value) + length(key)), 0) FROM entries
            WHERE {_SCOPED} AND (until IS NULL OR until > ?)""",  # noqa: S608
        (*_owner(scope), now),
    ).fetchone()


def keys(reader: sqlite3.Connection, after: tuple[str, str, str] | None) -> list[tuple[str, str, str]]:
    """Tenant, environment and key of the next entries, in no order; none at the end."""
    # In one row. Each row would be a wait for the interpreter's lock, for as long as the loop is busy.
    after_it = "" if after is None else "WHERE (tenant, environment, key) > (?, ?, ?)"
    found = reader.execute(
        f"""SELECT json_group_array(json_array(tenant, environment, key)) FROM (
            SELECT tenant, environment, key FROM entries {after_it} ORDER BY 1, 2, 3 LIMIT {_KEYS_AT_ONCE})""",  # noqa: S608
        after or (),
    ).fetchone()
    return [(tenant, environment, key) for tenant, environment, key in from_json(found[0])]


def note_read(writer: sqlite3.Connection, read: Mapping[int, int]) -> None:
    """Write down when entries were last read."""
    writer.executemany(
        "UPDATE entries SET used = ? WHERE place = ?", [(minute, place) for place, minute in read.items()]
    )


def enter_tags(writer: sqlite3.Connection) -> bool:
    """Enter the tags of some entries that were put since the last time; whether there may be more."""
    rows = writer.execute(
        "SELECT place, tenant, environment, tags FROM entries WHERE place > ? ORDER BY place LIMIT ?",
        (_tagged(writer), _TAGGED_AT_ONCE),
    ).fetchall()
    if rows:
        _tag(writer, rows)
        writer.execute("UPDATE upkeep SET tagged = ?", (rows[-1][0],))
    return len(rows) == _TAGGED_AT_ONCE


def find_old(reader: sqlite3.Connection, after: int, now: float) -> tuple[list[int], int]:
    """Places of what is too old among some entries after a place, and where to go on: 0 at the end."""
    rows = reader.execute(
        "SELECT place, until FROM entries WHERE place > ? ORDER BY place LIMIT ?", (after, _LOOKED_AT)
    ).fetchall()
    old = [place for place, until in rows if until is not None and until <= now]
    return old, rows[-1][0] if len(rows) == _LOOKED_AT else 0


def find_unread(reader: sqlite3.Connection, size: float) -> list[int]:
    """Places of what was not read for the longest time, as many as have this many bytes."""
    places: list[int] = []
    for place, length in reader.execute("SELECT place, length(value) + length(key) FROM entries ORDER BY used, place"):
        if size <= 0:
            break
        places.append(place)
        size -= length
    return places


def drop(writer: sqlite3.Connection, places: list[int]) -> None:
    """Delete some of these entries, and take them off the list."""
    part = places[-_AT_ONCE:]
    del places[-_AT_ONCE:]
    marks = ", ".join("?" * len(part))
    sql = f"SELECT place, tenant, environment, tags FROM entries WHERE place IN ({marks})"  # noqa: S608
    _delete(writer, writer.execute(sql, part).fetchall())


def excess(reader: sqlite3.Connection, size: float) -> float:
    """How many bytes more than this are in use of the file; less than 0 where it has room."""
    pages = ("page_size", "page_count", "freelist_count")
    page, all_pages, free = (reader.execute(f"PRAGMA {name}").fetchone()[0] for name in pages)
    return page * (all_pages - free) - size


def _delete(writer: sqlite3.Connection, rows: Sequence[Sequence[Any]]) -> None:
    """Delete entries, given as place, tenant, environment and tags."""
    writer.executemany("DELETE FROM entries WHERE place = ?", [row[:1] for row in rows])
    _untag(writer, rows)
    _set_back(writer)


def _untag(writer: sqlite3.Connection, rows: Sequence[Sequence[Any]]) -> None:
    gone = [(tenant, environment, tag, place) for place, tenant, environment, tags in rows for tag in _listed(tags)]
    writer.executemany(f"DELETE FROM tags WHERE {_SCOPED} AND tag = ? AND place = ?", gone)  # noqa: S608


def _tag(writer: sqlite3.Connection, rows: Sequence[Sequence[Any]]) -> None:
    new = [(tenant, environment, tag, place) for place, tenant, environment, tags in rows for tag in _listed(tags)]
    writer.executemany("INSERT INTO tags VALUES (?, ?, ?, ?)", sorted(new))


def _listed(tags: str | None) -> list[str]:
    return from_json(tags) if tags else []


def _tagged(writer: sqlite3.Connection) -> int:
    return writer.execute("SELECT tagged FROM upkeep").fetchone()[0]


def _set_back(writer: sqlite3.Connection) -> None:
    """Places are handed out anew when the last ones are deleted: those are not entered any more."""
    writer.execute("UPDATE upkeep SET tagged = min(tagged, (SELECT coalesce(max(place), 0) FROM entries))")


def _invalidated(writer: sqlite3.Connection, entry: Entry, since: int) -> bool:
    if counts(writer, entry.scope)[0] == since:
        return False
    names = [_EVERYTHING, *entry.tags]
    marks = ", ".join("?" * len(names))
    return (
        writer.execute(
            f"SELECT 1 FROM invalidated WHERE {_SCOPED} AND tag IN ({marks}) AND epoch > ? LIMIT 1",  # noqa: S608
            (*_owner(entry.scope), *names, since),
        ).fetchone()
        is not None
    )


def _count(writer: sqlite3.Connection, scope: Scope, *, epoch: int) -> int:
    """Let the scope's generation grow, and its epoch by so much; the epoch."""
    return writer.execute(
        """INSERT INTO scopes VALUES (?, ?, ?, 1)
            ON CONFLICT DO UPDATE SET epoch = epoch + excluded.epoch, generation = generation + 1 RETURNING epoch""",
        (*_owner(scope), epoch),
    ).fetchone()[0]


def _owner(scope: Scope) -> tuple[str, str]:
    return scope.tenant, scope.environment
