"""Extremely randomised trees for several outputs at once, small and in numpy alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

Floats: TypeAlias = NDArray[np.float64]
Ints: TypeAlias = NDArray[np.int64]

_LEAF: Final = -1


@dataclass(frozen=True, slots=True)
class Growth:
    """How trees are grown.

    Args:
        trees: how many.
        tried: share of the features of which each split tries one threshold.
        least: rows that a leaf has at least.
        seed: of the random numbers.
    """

    trees: int = 100
    tried: float = 0.3
    least: int = 8
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Forest:
    """Grown trees (Geurts, Ernst and Wehenkel, Extremely randomized trees, Machine Learning 63, 2006).

    Args:
        feature: by tree and node, the column a row is asked for; -1 at a leaf.
        threshold: rows at most this go left.
        child: the left child; the right one follows it.
        value: by tree, node and output, the mean of the rows there.
    """

    feature: Ints
    threshold: Floats
    child: Ints
    value: Floats

    @classmethod
    def grown(cls, rows: Floats, outputs: Floats, parted_by: Floats, growth: Growth) -> Forest:
        """Trees on all rows.

        Args:
            rows: a row a sample, a column a feature.
            outputs: what leaves average.
            parted_by: what splits part: the variance of these columns is made small. With the outputs less their
                mean over the row, trees look for what tells the outputs apart, not for what moves them together.
            growth: how.
        """
        rng = np.random.default_rng(growth.seed)
        made = [_tree(rows, outputs, parted_by, growth, rng) for _ in range(growth.trees)]
        nodes = max(len(feature) for feature, *_ in made)

        def padded(part: int, fill: float) -> Any:
            shape = made[0][part].shape[1:]
            whole = np.full((len(made), nodes, *shape), fill, made[0][part].dtype)
            for row, tree in zip(whole, made, strict=True):
                row[: len(tree[part])] = tree[part]
            return whole

        return cls(padded(0, _LEAF), padded(1, 0.0), padded(2, 0), padded(3, 0.0))

    def predict(self, rows: Floats) -> Floats:
        """A row of outputs for each row: the mean over the trees."""
        tree = np.arange(len(self.feature))[:, None]
        node = np.zeros((len(self.feature), len(rows)), np.int64)
        while True:
            feature = self.feature[tree, node]
            inner = feature != _LEAF
            if not inner.any():
                return self.value[tree, node].mean(0)
            right = rows[np.arange(len(rows)), feature] > self.threshold[tree, node]
            node = np.where(inner, self.child[tree, node] + right, node)

    def as_json(self) -> list[dict[str, Any]]:
        """The trees as JSON-able values, without padding."""
        return [
            {
                "feature": self.feature[at, :size].tolist(),
                "threshold": [float(f"{one:.6g}") for one in self.threshold[at, :size]],
                "child": self.child[at, :size].tolist(),
                "value": np.round(self.value[at, :size], 4).tolist(),
            }
            for at, size in enumerate(_sizes(self.feature, self.child))
        ]

    @classmethod
    def from_json(cls, trees: list[Mapping[str, Any]]) -> Forest:
        """The other way."""
        nodes = max(len(tree["feature"]) for tree in trees)
        outputs = len(trees[0]["value"][0])
        forest = cls(
            np.full((len(trees), nodes), _LEAF),
            np.zeros((len(trees), nodes)),
            np.zeros((len(trees), nodes), np.int64),
            np.zeros((len(trees), nodes, outputs)),
        )
        for at, tree in enumerate(trees):
            size = len(tree["feature"])
            forest.feature[at, :size] = tree["feature"]
            forest.threshold[at, :size] = tree["threshold"]
            forest.child[at, :size] = tree["child"]
            forest.value[at, :size] = tree["value"]
        return forest


def _sizes(feature: Ints, child: Ints) -> list[int]:
    """How many nodes each tree has: the last child's number, and one for it and its sibling."""
    return [int(np.where(tree != _LEAF, kids + 2, 1).max()) for tree, kids in zip(feature, child, strict=True)]


_Tree: TypeAlias = tuple[Ints, Floats, Ints, Floats]


def _tree(rows: Floats, outputs: Floats, parted_by: Floats, growth: Growth, rng: np.random.Generator) -> _Tree:
    feature, threshold, child = [_LEAF], [0.0], [0]
    value = [outputs.mean(0)]
    pending = [(0, np.arange(len(rows)))]
    tried = max(1, round(growth.tried * rows.shape[1]))
    while pending:
        node, members = pending.pop()
        if len(members) < 2 * growth.least:
            continue
        columns = rng.permutation(rows.shape[1])[:tried]
        split = _split(rows[members[:, None], columns], parted_by[members], growth.least, rng)
        if split is None:
            continue
        best, threshold[node], left = split
        feature[node] = int(columns[best])
        child[node] = len(feature)
        for side in (members[left], members[~left]):
            pending.append((len(feature), side))
            feature.append(_LEAF)
            threshold.append(0.0)
            child.append(0)
            value.append(outputs[side].mean(0))
    return np.array(feature), np.array(threshold), np.array(child), np.array(value)


def _split(
    seen: Floats, parted_by: Floats, least: int, rng: np.random.Generator
) -> tuple[int, float, NDArray[np.bool_]] | None:
    """The best of some columns at one random threshold each; None where none parts the rows."""
    low, high = seen.min(0), seen.max(0)
    thresholds = low + rng.random(len(low)) * (high - low)
    left = seen <= thresholds
    count = left.sum(0)
    fits = (count >= least) & (len(seen) - count >= least)
    if not fits.any():
        return None
    parts = left.T.astype(np.float64) @ parted_by
    others = parted_by.sum(0) - parts
    # what the split takes off the sum of squares, up to what is the same for all
    gain = (parts**2).sum(1) / np.maximum(count, 1) + (others**2).sum(1) / np.maximum(len(seen) - count, 1)
    best = int(np.where(fits, gain, -np.inf).argmax())
    return best, float(thresholds[best]), left[:, best]
