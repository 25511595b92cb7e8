"""What is known of the risk: how often the answer to a shortened prompt agreed with the answer to the whole one."""

from __future__ import annotations

import fcntl
import heapq
import json
import math
import os
import re
import secrets
import time
from collections import deque
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, TypeAlias, cast

from kaizen.core.request import Reply
from kaizen.core.scope import Scope
from kaizen.inference.compress.words import WORD, terms
from kaizen.ledger.intervals import wilson

Key: TypeAlias = tuple[str, str, str, str, str]

# Of the time-uniform bound: it is tightest for disagreements that are rare, which is where a limit lies.
_PRIOR: Final = (0.5, 25.0)
_SURE: Final = 0.95
_SAME_WORDS: Final = 0.8
_NUMBER: Final = re.compile(r"\d+(?:[.,:]\d+)*")
_NEGATION: Final = re.compile(r"\b(?:no|not|never|none|false|cannot|\w+n't)\b", re.IGNORECASE)
_DROPPED: Final = frozenset(("the", "a", "an"))
# The file is asked that often, not for each call.
_LOOK_EVERY_S: Final = 0.05
_KEPT: Final = 2 * 1024 * 1024  # some 20,000 lines
# When lines are summed up, twice as many of a level count as half of them: what comes after has to weigh something.
_COUNTED: Final = 20_000


@dataclass(frozen=True, slots=True)
class Agreement:
    """How often answers agreed.

    Args:
        compared: pairs of answers.
        differed: those that did not agree.
    """

    compared: int = 0
    differed: int = 0

    def with_more(self, other: Agreement) -> Agreement:
        """Both together."""
        return Agreement(self.compared + other.compared, self.differed + other.differed)

    def halved(self) -> Agreement:
        """The same share of half as many; where it does not come out even, one more that differed."""
        return Agreement(self.compared // 2, -(-self.differed // 2))

    @property
    def risk(self) -> float:
        """The most that the share of differing answers may be, with 95 % confidence at every moment."""
        return upper_bound(self.differed, self.compared)

    def interval(self) -> tuple[float, float]:
        """The 95 % interval of the share of agreeing answers."""
        return wilson(self.compared - self.differed, self.compared)


@lru_cache(maxsize=65_536)
def upper_bound(failures: int, trials: int, confidence: float = _SURE) -> float:
    """A bound of a share that holds at all numbers of trials at once, so that one may look after each.

    The bound is where the likelihood ratio of a Beta mixture to that share reaches 1 / (1 - confidence) (Robbins, 1970;
    Ville's inequality); an interval for a fixed number of trials would fail who stops when it pleases.
    """
    if not trials:
        return 1.0
    a, b = _PRIOR
    mixture = _beta(a + failures, b + trials - failures) - _beta(a, b)
    limit = math.log(1 / (1 - confidence))

    def excluded(share: float) -> bool:
        null = failures * math.log(share) + (trials - failures) * math.log1p(-share)
        return mixture - null >= limit

    low, high = max(failures / trials, 1e-9), 1 - 1e-9
    if not excluded(high):
        return 1.0
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (low, middle) if excluded(middle) else (middle, high)
    return high


def _beta(a: float, b: float) -> float:
    return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)


class Evidence:
    """Agreements by tenant, model, type of task and level.

    Args:
        file: where they are kept, a JSON line for each comparison or for the sum of several; several processes of a
            machine may share it, and see each other's within 50 ms. None keeps them in this process alone.
        kept: bytes that may stay when the file has grown to twice as many: then the comparisons of each tenant, model,
            type of task and level become one line. Only where these are more bytes still do some go: of the tenant that
            has the most of them, those that nothing was added to for longest.
    """

    def __init__(self, file: Path | None = None, *, kept: int = _KEPT) -> None:
        self._file, self._kept = file, kept
        self._read, self._place = 0, (0, 0)  # how far it was read; its inode and size then
        self._first = b""  # its first line: another one begins another file
        self._look_at = 0.0
        self._known: dict[Key, dict[int, Agreement]] = {}

    def of(self, scope: Scope, model: str, task: str) -> dict[int, Agreement]:
        """The agreement at each level that there is evidence of."""
        self._refresh()
        return dict(self._known.get(_key(scope, model, task), {}))

    def rows(self, scope: Scope) -> list[dict[str, Any]]:
        """All of a scope, to be shown: model, task, level, pairs compared, those that differed, bound of the risk."""
        self._refresh()
        return [
            {"model": key[3], "task": key[4], "level": level, "compared": one.compared, "differed": one.differed}
            | {"risk": one.risk}
            for key, levels in sorted(self._known.items())
            if key[1:3] == (scope.tenant, scope.environment)
            for level, one in sorted(levels.items())
        ]

    def add(self, scope: Scope, model: str, task: str, level: int, *, agreed: bool) -> None:
        """Keep one comparison.

        Raises:
            OSError: if the file can't be written.
        """
        key = _key(scope, model, task)
        if self._file is None:
            self._count(key, level, Agreement(1, int(not agreed)))
            return
        line = json.dumps([*key, level, int(agreed)]).encode() + b"\n"
        self._file.parent.mkdir(parents=True, exist_ok=True)
        with _alone(self._file):
            with self._file.open("ab") as file:
                file.write(line)
                size = file.tell()
            if size > 2 * self._kept:
                self._shorten(self._file)
        self._look_at = 0.0

    def strongest(self, scope: Scope, model: str, task: str, risk: float) -> tuple[int, float]:
        """The highest level whose risk, and that of all levels below it, is known to be under the limit; its risk.

        Levels are looked at in order and the first that fails ends it: so the limit holds for all of them together.
        One that there is no evidence of, as it shortened none of the calls, is passed over.
        """
        level, bound = 0, 0.0
        for above, agreement in sorted(self.of(scope, model, task).items()):
            if agreement.risk > risk:
                break
            level, bound = above, agreement.risk
        return level, bound

    def _refresh(self) -> None:
        """Read what was added since, by this process or another."""
        now = time.monotonic()
        if self._file is None or now < self._look_at:
            return
        self._look_at = now + _LOOK_EVERY_S
        try:
            found = self._file.stat()
            if (found.st_ino, found.st_size) == self._place:
                return
            with self._file.open("rb") as file:
                found, first = os.fstat(file.fileno()), file.readline()
                if first != self._first:  # it was rewritten
                    self._known, self._first, self._read = {}, first, 0
                file.seek(self._read)
                lines = file.read()
            self._place = found.st_ino, found.st_size
        except FileNotFoundError:
            return
        whole = lines[: lines.rfind(b"\n") + 1]
        self._read += len(whole)
        for key, level, found in _lines(whole):
            self._count(key, level, found)

    def _shorten(self, file: Path) -> None:
        """Sum up. The others' readers find another file under the name, and read it from its beginning."""
        draft = file.with_name(f"{file.name}.new")
        draft.write_bytes(b'["%b"]\n%b' % (secrets.token_hex(8).encode(), _summed(file.read_bytes(), self._kept)))
        draft.replace(file)

    def _count(self, key: Key, level: int, found: Agreement) -> None:
        levels = self._known.setdefault(key, {})
        levels[level] = levels.get(level, Agreement()).with_more(found)


@contextmanager
def _alone(file: Path) -> Generator[None, None, None]:
    """As the only one, of all processes, that writes in this file's folder."""
    held = os.open(file.parent, os.O_RDONLY)
    try:
        fcntl.flock(held, fcntl.LOCK_EX)
        yield
    finally:
        os.close(held)


def _key(scope: Scope, model: str, task: str) -> Key:
    return "1", scope.tenant, scope.environment, model, task


def _lines(data: bytes) -> Iterator[tuple[Key, int, Agreement]]:
    """What each line says: a comparison ends with whether answers agreed, a sum with both numbers."""
    for line in data.splitlines():
        try:
            one = json.loads(line)
        except ValueError:
            continue  # a line that a full disk cut
        match one:
            case ["1", tenant, environment, model, task, level, agreed]:
                found = Agreement(1, int(not agreed))
            case ["1", tenant, environment, model, task, level, compared, differed]:
                found = Agreement(int(compared), int(differed))
            case _:
                continue
        yield ("1", tenant, environment, model, task), int(level), found


def _summed(data: bytes, room: int) -> bytes:
    """The same in a line for each key and level, the one that was added to last at the end, as far as there is room."""
    sums: dict[tuple[Key, int], Agreement] = {}
    for key, level, found in _lines(data):
        sums[key, level] = sums.pop((key, level), Agreement()).with_more(found)
    lines: dict[tuple[Key, int], bytes] = {}
    for (key, level), found in sums.items():
        one = found.halved() if found.compared >= 2 * _COUNTED else found
        lines[key, level] = json.dumps([*key, level, one.compared, one.differed]).encode() + b"\n"
    of: dict[str, deque[tuple[Key, int]]] = {}
    for at in lines:
        of.setdefault(at[0][1], deque()).append(at)
    # by bytes, the largest first
    tenants = [(-sum(len(lines[at]) for at in some), place, some) for place, some in enumerate(of.values())]
    heapq.heapify(tenants)
    over = sum(map(len, lines.values())) - room
    while over > 0:
        size, place, some = tenants[0]
        gone = len(lines.pop(some.popleft()))
        over -= gone
        heapq.heapreplace(tenants, (size + gone, place, some))
    return b"".join(lines.values())


def agree(one: Reply, other: Reply) -> bool:
    """Whether two answers say the same.

    Calls of tools must be the same, in order. JSON must have the same fields, whose texts say the same. Texts say the
    same when their words are, or when four fifths of their words are (F1) and their numbers and negations are the same.
    """
    calls = [(call.name, _parsed(call.arguments)) for call in one.tool_calls]
    if calls != [(call.name, _parsed(call.arguments)) for call in other.tool_calls]:
        return False
    return _alike(_parsed(one.text), _parsed(other.text))


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _alike(one: Any, other: Any) -> bool:
    if isinstance(one, dict) and isinstance(other, dict):
        left, right = cast("dict[str, Any]", one), cast("dict[str, Any]", other)
        return left.keys() == right.keys() and all(_alike(value, right[name]) for name, value in left.items())
    if isinstance(one, list) and isinstance(other, list):
        many, more = cast("list[Any]", one), cast("list[Any]", other)
        return len(many) == len(more) and all(map(_alike, many, more))
    if isinstance(one, str) and isinstance(other, str):
        return _same_text(one, other)
    return bool(one == other) and isinstance(one, bool) == isinstance(other, bool)


def _same_text(one: str, other: str) -> bool:
    first = [word for word in WORD.findall(one.lower()) if word not in _DROPPED]
    second = [word for word in WORD.findall(other.lower()) if word not in _DROPPED]
    if first == second:
        return bool(first) or one.strip() == other.strip()
    if sorted(_NUMBER.findall(one)) != sorted(_NUMBER.findall(other)):
        return False
    if bool(_NEGATION.search(one)) != bool(_NEGATION.search(other)):
        return False
    left, right = terms(one), terms(other)
    rest = list(right)
    for word in left:
        if word in rest:
            rest.remove(word)
    shared = len(right) - len(rest)
    return 2 * shared >= _SAME_WORDS * (len(left) + len(right)) and shared > 0
