"""Labels from points: neighbours, centroids and a linear classifier, chosen by cross-validation. Needs numpy."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from operator import eq
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from typing import TypeAlias

    import numpy as np
    from numpy.typing import NDArray

    Points: TypeAlias = NDArray[np.float32]
    Guess: TypeAlias = Callable[[Points], list[str]]
    Fit: TypeAlias = Callable[[Points, Sequence[str]], Guess]

_FOLDS: Final = 10
_REPEATS: Final = 3  # with so few rows one partition decides by chance
_FEW: Final = 200


@dataclass(frozen=True, slots=True)
class Classifier:
    """What was chosen.

    Args:
        name: which, such as ``ridge 0.3`` or ``neighbours 5``.
        guess: labels of points.
        right: share of labels that each candidate got right in cross-validation.
    """

    name: str
    guess: Guess
    right: Mapping[str, float]


def choose(points: Points, labels: Sequence[str], seed: int) -> Classifier:
    """The candidate that is right most often on rows it was not fitted to; of equal ones the first.

    Args:
        points: one a row, of length 1.
        labels: by row.
        seed: of the partitions.
    """
    import numpy as np

    n = len(labels)
    if len(set(labels)) < 2 or n < 4:
        return Classifier("majority", _majority(points, labels), {})
    rng = np.random.default_rng(seed)
    right = dict.fromkeys(CANDIDATES, 0)
    repeats, folds = (_REPEATS, min(_FOLDS, n)) if n <= _FEW else (1, 5)
    for _ in range(repeats):
        fold = _stratified(labels, folds, rng)
        for part in range(folds):
            held, kept = np.flatnonzero(fold == part), np.flatnonzero(fold != part)
            if not len(held) or not len(kept):
                continue
            known, wanted = [labels[int(place)] for place in kept], [labels[int(place)] for place in held]
            for name, fit in CANDIDATES.items():
                guessed = fit(points[kept], known)(points[held])
                right[name] += sum(map(eq, guessed, wanted))
    best = max(CANDIDATES, key=lambda name: right[name])
    shares = {name: count / (n * repeats) for name, count in right.items()}
    return Classifier(best, CANDIDATES[best](points, labels), shares)


def _stratified(labels: Sequence[str], folds: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """The fold of each row, each label spread over all of them."""
    import numpy as np

    order = sorted(range(len(labels)), key=lambda place: (labels[place], rng.random()))
    fold = np.empty(len(labels), dtype=np.int64)
    fold[order] = np.arange(len(labels)) % folds
    return fold


# -- candidates -----------------------------------------------------------------------------------


def _majority(points: Points, labels: Sequence[str]) -> Guess:
    common = Counter(labels).most_common(1)[0][0]
    return lambda asked: [common] * len(asked)


def _neighbours(k: int) -> Fit:
    def fit(points: Points, labels: Sequence[str]) -> Guess:
        import numpy as np

        names, codes = np.unique(np.asarray(labels), return_inverse=True)

        def guess(asked: Points) -> list[str]:
            near = asked @ points.T
            best = np.argsort(-near, axis=1, kind="stable")[:, :k]
            votes = np.zeros((len(asked), len(names)), dtype=np.float32)
            for column in best.T:
                np.add.at(
                    votes, (np.arange(len(asked)), codes[column]), 1e-3 + near[np.arange(len(asked)), column].clip(0)
                )
            return [str(names[place]) for place in votes.argmax(axis=1)]

        return guess

    return fit


def _centroids(points: Points, labels: Sequence[str]) -> Guess:
    import numpy as np

    names, codes = np.unique(np.asarray(labels), return_inverse=True)
    centres = np.stack([points[codes == place].mean(axis=0) for place in range(len(names))])
    centres /= np.linalg.norm(centres, axis=1, keepdims=True) + 1e-9
    return lambda asked: [str(names[place]) for place in (asked @ centres.T).argmax(axis=1)]


def _ridge(strength: float) -> Fit:
    """Linear least squares on one column a label, with a penalty: the classifier for few rows of many columns."""

    def fit(points: Points, labels: Sequence[str]) -> Guess:
        import numpy as np

        names, codes = np.unique(np.asarray(labels), return_inverse=True)
        wanted = np.eye(len(names), dtype=np.float64)[codes]
        middle, mean = points.mean(axis=0, dtype=np.float64), wanted.mean(axis=0)
        x: NDArray[np.float64] = points - middle
        rows, columns = x.shape
        if rows <= columns:
            weights = x.T @ _solve(x @ x.T + strength * np.eye(rows), wanted - mean)
        else:
            weights = _solve(x.T @ x + strength * np.eye(columns), x.T @ (wanted - mean))
        return lambda asked: [str(names[place]) for place in ((asked - middle) @ weights + mean).argmax(axis=1)]

    return fit


def _solve(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    import numpy as np

    solved: Any = np.linalg.solve(a, b)
    return solved


CANDIDATES: Final[Mapping[str, Fit]] = {
    **{f"ridge {strength:g}": _ridge(strength) for strength in (0.03, 0.3, 3.0, 30.0)},
    **{f"neighbours {k}": _neighbours(k) for k in (1, 3, 5, 9)},
    "centroids": _centroids,
    "majority": _majority,
}
