"""Rows in parts: fixed by a seed and the rows themselves, and with no group in two of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from kaizen.core.errors import ConfigError
from kaizen.core.ids import digest
from kaizen.learn.data.rows import Row

_CHOOSING: Final = 1 / 3


def split(
    rows: Iterable[Row], *, seed: int, shares: Mapping[str, float], by_group: bool = True
) -> dict[str, tuple[Row, ...]]:
    """Part rows by shares.

    Rows of one group stay together, and so do rows of the same inputs, so that no question is both learned and tested:
    groups that share one are taken for one. Groups are taken in an order that the seed and their names decide, whatever
    order the rows have, and fill one part after another: a part misses its share by less than one group.

    Args:
        rows: what to part; each part keeps their order.
        seed: another one parts otherwise.
        shares: by the name of each part; they have to sum to 1.
        by_group: whether ``Row.group`` counts.

    Raises:
        ConfigError: if the shares don't sum to 1, or one is below 0.
    """
    if not shares or abs(sum(shares.values()) - 1.0) > 1e-6 or min(shares.values()) < 0:
        raise ConfigError(f"the shares of a split have to sum to 1, not {sum(shares.values()):g}")
    rows = tuple(rows)
    names = _joined(rows, by_group=by_group)
    sizes: dict[str, int] = {}
    for name in names:
        sizes[name] = sizes.get(name, 0) + 1
    parts = _placed(sizes, seed, shares, len(rows))
    made: dict[str, list[Row]] = {part: [] for part in shares}
    for name, row in zip(names, rows, strict=True):
        made[parts[name]].append(row)
    return {part: tuple(its) for part, its in made.items()}


def _joined(rows: Sequence[Row], *, by_group: bool) -> list[str]:
    """The group of each row, by the first name in order of all that are joined with it."""
    above: dict[str, str] = {}

    def first(name: str) -> str:
        while (up := above.setdefault(name, name)) != name:
            above[name] = name = above[up]  # halving the path keeps it short
        return name

    for row in rows:
        if by_group and row.group is not None:
            one, other = sorted((first(f"group {row.group}"), first(f"row {row.asked}")))
            above[other] = one
    return [first(f"row {row.asked}") for row in rows]


def _placed(sizes: Mapping[str, int], seed: int, shares: Mapping[str, float], total: int) -> dict[str, str]:
    """The part of each group."""
    parts = [(part, share) for part, share in shares.items() if share > 0]
    placed: dict[str, str] = {}
    at, filled, bound = 0, 0, parts[0][1]
    for name in sorted(sizes, key=lambda name: digest(f"{seed}\n{name}".encode("utf-8", "surrogatepass"))):
        # a group belongs where its middle falls
        while at + 1 < len(parts) and filled + sizes[name] / 2 > bound * total + 1e-9:
            at += 1
            bound += parts[at][1]
        placed[name] = parts[at][0]
        filled += sizes[name]
    return placed


def kept_back(rows: Sequence[Row], seed: int) -> tuple[tuple[Row, ...], tuple[Row, ...]]:
    """Rows to learn from, and a third of them to choose by, where nobody said which."""
    parts = split(rows, seed=seed, shares={"train": 1 - _CHOOSING, "val": _CHOOSING})
    return parts["train"], parts["val"]
