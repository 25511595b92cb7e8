"""A trained router: how likely each model is to answer a prompt rightly, told from the prompt alone."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Self

import numpy as np

from kaizen.core.errors import InvalidInput
from kaizen.inference.route.features import NAMES, surface
from kaizen.inference.route.forest import Floats, Forest
from kaizen.inference.route.linear import Ridge

KIND: Final = "kaizen router"
VERSION: Final = 1
# An embedding's 256 numbers beside some 80 features: as many columns of unit variance would drown them.
_EMBEDDING: Final[Mapping[str, float]] = {"both": 0.3, "meaning": 1.0}


@dataclass(frozen=True, slots=True)
class Point:
    """One setting of the dial.

    Args:
        dial: 0 asks the cheapest model always, 1 the best.
        weight: what a full point of probability is worth, in differences between the dearest and the cheapest model.
        cost: mean cost of the models chosen, 0 for the cheapest and 1 for the dearest.
        right: share of right answers, measured on prompts that the router had not seen.
    """

    dial: float
    weight: float
    cost: float
    right: float


@dataclass(frozen=True, slots=True)
class Prompt:
    """What a router looks at.

    Args:
        text: the question.
        traits: what else is known of it, such as ``{"domain": "law"}``; unknown ones change nothing.
        point: its embedding by the router's own embedder, float32, little endian; None where there is none.
        seen: the text's features, where they are at hand.
    """

    text: str
    traits: Mapping[str, str] = field(default_factory=dict[str, str])
    point: bytes | None = None
    seen: tuple[float, ...] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Columns:
    """How a prompt becomes a row of numbers.

    Args:
        traits: pairs of trait and value, a column each.
        mean, scale: by column of features and traits: what becomes 0, and what 1.
        centre: the embedding that becomes 0; empty where no embeddings are used.
    """

    traits: tuple[tuple[str, str], ...]
    mean: Floats
    scale: Floats
    centre: Floats

    @classmethod
    def of(cls, prompts: Sequence[Prompt], values: int = 50) -> Columns:
        """Columns for prompts like these, with the commonest ``values`` of each trait."""
        counts: dict[tuple[str, str], int] = {}
        for prompt in prompts:
            for pair in prompt.traits.items():
                counts[pair] = counts.get(pair, 0) + 1
        common: list[tuple[str, str]] = []
        for name in sorted({name for name, _ in counts}):
            mine = sorted((pair for pair in counts if pair[0] == name), key=lambda pair: (-counts[pair], pair))
            common += mine[:values] if len(mine) > 1 else []
        seen = _seen(prompts, tuple(common))
        scale = seen.std(0)
        points = _points(prompts)
        centre = points.mean(0) if points is not None else np.zeros(0)
        return cls(traits=tuple(common), mean=seen.mean(0), scale=np.where(scale > 1e-9, scale, 1.0), centre=centre)

    @property
    def names(self) -> tuple[str, ...]:
        """The columns' names, those of the embedding left out."""
        return (*NAMES, *(f"{name} = {value}" for name, value in self.traits))

    def shown(self, prompts: Sequence[Prompt]) -> Floats:
        """Features and traits, scaled; a trait that a prompt does not name is at its mean."""
        rows = (_seen(prompts, self.traits) - self.mean) / self.scale
        for at, (name, _) in enumerate(self.traits, len(NAMES)):
            missing = np.array([name not in prompt.traits for prompt in prompts])
            rows[missing, at] = 0.0
        return rows

    def meant(self, prompts: Sequence[Prompt]) -> Floats:
        """Embeddings, so that their squared columns add up to about their number.

        Raises:
            InvalidInput: if a prompt has none, or one of another length.
        """
        size = len(self.centre)
        points = _points(prompts)
        if points is None or points.shape[1] != size:
            raise InvalidInput(f"this router reads embeddings of {size} numbers, and was given others or none")
        return (points - self.centre) * np.sqrt(size)


def _seen(prompts: Sequence[Prompt], traits: Sequence[tuple[str, str]]) -> Floats:
    rows = [
        [
            *(prompt.seen or surface(prompt.text).values()),
            *(float(prompt.traits.get(name) == value) for name, value in traits),
        ]
        for prompt in prompts
    ]
    return np.array(rows, np.float64)


def _points(prompts: Sequence[Prompt]) -> Floats | None:
    if any(prompt.point is None for prompt in prompts):
        return None
    points = [np.frombuffer(prompt.point or b"", "<f4").astype(np.float64) for prompt in prompts]
    return np.array(points) if len({len(point) for point in points}) == 1 else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """The models of one router, each of which says how likely each language model is to be right.

    Args:
        linear: by the features it is fitted to, "surface", "both" or "meaning", a ridge regression.
        forest: trees on the surface.
    """

    linear: Mapping[str, Ridge]
    forest: Forest

    @property
    def names(self) -> tuple[str, ...]:
        """In the order of ``predict``."""
        return (*self.linear, "trees")

    def predict(self, columns: Columns, prompts: Sequence[Prompt]) -> list[Floats]:
        """By part, a row of probabilities for each prompt; not bounded to 0 and 1 yet."""
        shown = columns.shown(prompts)
        meant = columns.meant(prompts) if len(columns.centre) else None
        found = [ridge.predict(given(name, shown, meant)) for name, ridge in self.linear.items()]
        return [*found, self.forest.predict(shown)]


def given(part: str, shown: Floats, meant: Floats | None) -> Floats:
    """The columns that a linear part reads."""
    if part == "surface" or meant is None:
        return shown
    scaled = meant * _EMBEDDING[part]
    return scaled if part == "meaning" else np.hstack([shown, scaled])


@dataclass(frozen=True, slots=True, kw_only=True)
class Router:
    """Made by ``kaizen.inference.route.training.train``, or loaded from where it was saved.

    Args:
        models: refs, in the order of every row of numbers below.
        rates: how often each was right on the rows it was trained on.
        rows: how many there were.
        embedder: ref of the embedder whose points it reads; None where it reads none.
        columns: how a prompt becomes a row.
        parts: what predicts.
        trust: by part, how far its word counts; what is missing to 1 goes to ``rates``.
        curve: the dial, from the cheapest to the best.
    """

    models: tuple[str, ...]
    rates: Floats
    rows: int
    embedder: str | None
    columns: Columns
    parts: Parts
    trust: Floats
    curve: tuple[Point, ...]

    def right(self, prompt: Prompt) -> dict[str, float]:
        """By model, the probability that its answer is right, 0 to 1.

        Raises:
            InvalidInput: the router reads embeddings and the prompt has none of that kind.
        """
        found = self.predict([prompt])[0]
        return {model: float(one) for model, one in zip(self.models, found, strict=True)}

    def predict(self, prompts: Sequence[Prompt]) -> Floats:
        """``right`` for many: a row a prompt, a column a model."""
        words = self.parts.predict(self.columns, prompts)
        return np.clip(blended(words, self.trust, self.rates), 0.0, 1.0)

    def weight(self, dial: float) -> float:
        """What a full point of probability is worth at this setting, in differences between dearest and cheapest."""
        return min(self.curve, key=lambda point: abs(point.dial - dial)).weight

    def as_json(self) -> dict[str, Any]:
        """Readable: a coefficient under the name of its feature and the ref of its model."""
        columns = self.columns
        return {
            "kind": KIND,
            "version": VERSION,
            "models": dict(zip(self.models, _rounded(self.rates), strict=True)),
            "rows": self.rows,
            "embedder": self.embedder,
            "trust": dict(zip(self.parts.names, _rounded(self.trust), strict=True)),
            "curve": [{"dial": p.dial, "weight": p.weight, "cost": p.cost, "right": p.right} for p in self.curve],
            "traits": [list(pair) for pair in columns.traits],
            "columns": {
                name: [mean, scale]
                for name, mean, scale in zip(
                    columns.names, _rounded(columns.mean), _rounded(columns.scale), strict=True
                )
            },
            "centre": _rounded(columns.centre),
            "linear": {name: self._linear(name, ridge) for name, ridge in self.parts.linear.items()},
            "trees": self.parts.forest.as_json(),
        }

    def _linear(self, part: str, ridge: Ridge) -> dict[str, Any]:
        named = () if part == "meaning" else self.columns.names
        slopes = [dict(zip(self.models, _rounded(row), strict=True)) for row in ridge.slopes]
        return {
            "strength": ridge.strength,
            "base": dict(zip(self.models, _rounded(ridge.base), strict=True)),
            "mean": _rounded(ridge.mean),
            "features": dict(zip(named, slopes, strict=False)),
            "embedding": [list(row.values()) for row in slopes[len(named) :]],
        }

    def save(self, path: Path) -> None:
        """Write it down as JSON."""
        path.write_text(json.dumps(self.as_json(), ensure_ascii=False, indent=1) + "\n", "utf-8")

    @classmethod
    def load(cls, path: Path) -> Self:
        """A saved router.

        Raises:
            InvalidInput: if the file is none, or one of another version.
        """
        try:
            tree = json.loads(path.read_text("utf-8"))
        except (OSError, ValueError) as error:
            raise InvalidInput(f"{path} is no router: {error}") from None
        if not isinstance(tree, dict) or tree.get("kind") != KIND or tree.get("version") != VERSION:  # pyright: ignore[reportUnknownMemberType] - JSON
            raise InvalidInput(f"{path} is no router of version {VERSION}: train it anew")
        return cls.from_json(tree)  # pyright: ignore[reportUnknownArgumentType] - JSON

    @classmethod
    def from_json(cls, tree: Mapping[str, Any]) -> Self:
        """The other way."""
        if tuple(tree["columns"])[: len(NAMES)] != NAMES:
            raise InvalidInput("this router was trained on other features: train it anew")
        pairs = np.array(list(tree["columns"].values()), np.float64)
        columns = Columns(
            traits=tuple((name, value) for name, value in tree["traits"]),
            mean=pairs[:, 0],
            scale=pairs[:, 1],
            centre=np.array(tree["centre"], np.float64),
        )
        models = tuple(tree["models"])
        linear = {name: _ridge(part, models) for name, part in tree["linear"].items()}
        return cls(
            models=models,
            rates=np.array(list(tree["models"].values()), np.float64),
            rows=tree["rows"],
            embedder=tree["embedder"],
            columns=columns,
            parts=Parts(linear=linear, forest=Forest.from_json(tree["trees"])),
            trust=np.array(list(tree["trust"].values()), np.float64),
            curve=tuple(Point(**point) for point in tree["curve"]),
        )


def blended(words: Sequence[Floats], trust: Floats, rates: Floats) -> Floats:
    """What the parts say together: the models' rates, and each part's departures from them as far as it is trusted."""
    return rates + np.tensordot(trust, np.array(words) - rates, 1)


def _ridge(part: Mapping[str, Any], models: tuple[str, ...]) -> Ridge:
    named = [[row[model] for model in models] for row in part["features"].values()]
    slopes = np.array([*named, *part["embedding"]], np.float64).reshape(-1, len(models))
    base = np.array([part["base"][model] for model in models], np.float64)
    return Ridge(np.array(part["mean"], np.float64), base, slopes, part["strength"])


def _rounded(numbers: Floats) -> list[float]:
    return [float(f"{one:.6g}") for one in numbers]
