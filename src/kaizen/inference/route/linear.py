"""Ridge regression for several outputs, its strength found by leaving each row out once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from kaizen.inference.route.forest import Floats

_STRENGTHS: Final = tuple(10.0**power for power in (0, 0.5, 1, 1.5, 2, 2.5, 3, 3.5, 4, 5, 6))


@dataclass(frozen=True, slots=True)
class Ridge:
    """``outputs = base + (rows - mean) @ slopes``.

    Args:
        mean: by feature.
        base: by output.
        slopes: by feature and output.
        strength: the penalty it was fitted with.
    """

    mean: Floats
    base: Floats
    slopes: Floats
    strength: float

    @classmethod
    def fitted(cls, rows: Floats, outputs: Floats, judged_by: Floats) -> Ridge:
        """The fit to all rows; columns are scaled by whoever calls.

        Args:
            rows: a row a sample, a column a feature.
            outputs: what to predict.
            judged_by: the strength is the one whose errors on these columns, each row left out once, are least. They
                must be the outputs times a matrix, since the same weights then predict them.
        """
        mean, base = rows.mean(0), outputs.mean(0)
        left, sizes, right = np.linalg.svd(rows - mean, full_matrices=False)
        centred = judged_by - judged_by.mean(0)
        shadow = left.T @ centred
        least, chosen = np.inf, _STRENGTHS[-1]
        for strength in _STRENGTHS:
            kept = sizes**2 / (sizes**2 + strength)
            # the share of each row's own word in its prediction, the mean's included
            own = (left**2) @ kept + 1 / len(rows)
            errors = (centred - left @ (kept[:, None] * shadow)) / np.maximum(1 - own, 1e-6)[:, None]
            total = float((errors**2).sum())
            if total < least:
                least, chosen = total, strength
        weights = (sizes / (sizes**2 + chosen))[:, None] * (left.T @ (outputs - base))
        return cls(mean, base, right.T @ weights, chosen)

    def predict(self, rows: Floats) -> Floats:
        """A row of outputs for each row."""
        return self.base + (rows - self.mean) @ self.slopes


def stacked(predictions: Floats, wanted: Floats, rounds: int = 200) -> Floats:
    """Weights, none below zero, with which predictions add up best to what is wanted (least squares).

    The idea is Breiman's (Stacked regressions, Machine Learning 24, 1996): predictions of rows that their models had
    not seen tell how far each may be trusted, beside the others.

    Args:
        predictions: a row a sample, a column a model.
        wanted: a number a sample.
        rounds: of coordinate descent.
    """
    gram, shadow = predictions.T @ predictions, predictions.T @ wanted
    weights = np.zeros(predictions.shape[1])
    for _ in range(rounds):
        for at in range(len(weights)):
            if gram[at, at] > 0:
                rest = shadow[at] - gram[at] @ weights + gram[at, at] * weights[at]
                weights[at] = max(0.0, float(rest / gram[at, at]))
    return weights
