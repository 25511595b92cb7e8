"""Training a router from rows that say which model answered a prompt rightly, and measuring what it is worth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from kaizen.core.errors import InvalidInput
from kaizen.inference.route.features import surface
from kaizen.inference.route.forest import Floats, Forest, Growth
from kaizen.inference.route.linear import Ridge, stacked
from kaizen.inference.route.router import Columns, Parts, Point, Prompt, Router, blended, given

LEAST: Final = 20
_FOLDS: Final = 5
_LEAF: Final = 8
_LEAVES: Final = 150
_DIAL: Final = tuple(round(step / 20, 2) for step in range(21))


@dataclass(frozen=True, slots=True)
class Example:
    """A prompt, and how right each model's answer was: 0 to 1."""

    prompt: Prompt
    right: Mapping[str, float] = field(default_factory=dict[str, float])


@dataclass(frozen=True, slots=True)
class Training:
    """How a router is trained.

    Args:
        costs: what a call of each model costs, on any scale; without, the rank of how often it is right.
        embedder: ref of the embedder that made the prompts' points; None uses none.
        seed: of folds and trees.
        trees: how many trees.
    """

    costs: Mapping[str, float] | None = None
    embedder: str | None = None
    seed: int = 0
    trees: int = 100


def train(examples: Sequence[Example], how: Training = Training()) -> Router:
    """A router for the models that all examples name.

    Four models of the prompt are fitted (ridge regression on its surface, on its meaning, and on both, and trees on
    the surface), all on the *differences* between the language models: that a prompt is hard for all of them is no
    reason to choose one. How far each is trusted is found by inner cross-validation: weights, none below zero, with
    which their predictions of rows they had not seen add up best to the differences there were.

    Raises:
        InvalidInput: for fewer than 20 examples, or fewer than two models.
    """
    models = _models(examples)
    right = np.array([[example.right[model] for model in models] for example in examples], np.float64)
    prompts = [_looked_at(example.prompt) for example in examples]
    with_meaning = how.embedder is not None and all(prompt.point is not None for prompt in prompts)
    held = [np.zeros_like(right) for _ in range(len(_names(with_meaning)))]
    base = np.zeros_like(right)
    for fold in folds(len(examples), min(_FOLDS, len(examples)), how.seed):
        kept = ~fold
        columns, parts = _fitted(_some(prompts, kept), right[kept], how, with_meaning=with_meaning)
        for whole, part in zip(held, parts.predict(columns, _some(prompts, fold)), strict=True):
            whole[fold] = part
        base[fold] = right[kept].mean(0)
    trust = stacked(np.stack([_apart(one - base).ravel() for one in held], 1), _apart(right - base).ravel())
    unseen = blended(held, trust, base)
    columns, parts = _fitted(prompts, right, how, with_meaning=with_meaning)
    return Router(
        models=models,
        rates=right.mean(0),
        rows=len(examples),
        embedder=how.embedder if with_meaning else None,
        columns=columns,
        parts=parts,
        trust=trust,
        curve=_curve(unseen, right, _costs(models, right, how.costs)),
    )


def _models(examples: Sequence[Example]) -> tuple[str, ...]:
    if len(examples) < LEAST:
        raise InvalidInput(f"a router needs at least {LEAST} rows to be trained on, not {len(examples)}")
    models = tuple(examples[0].right)
    if len(models) < 2 or any(set(example.right) != set(models) for example in examples):
        raise InvalidInput("a router needs rows that say of the same models, two at least, whether each was right")
    return models


def _looked_at(prompt: Prompt) -> Prompt:
    """With its features, so that they are not found anew in every fold."""
    return prompt if prompt.seen else replace(prompt, seen=tuple(surface(prompt.text).values()))


def _names(with_meaning: bool) -> tuple[str, ...]:
    return ("surface", "both", "meaning", "trees") if with_meaning else ("surface", "trees")


def _fitted(prompts: Sequence[Prompt], right: Floats, how: Training, *, with_meaning: bool) -> tuple[Columns, Parts]:
    columns = Columns.of(prompts if with_meaning else [replace(one, point=None) for one in prompts])
    shown = columns.shown(prompts)
    meant = columns.meant(prompts) if with_meaning else None
    apart = _apart(right)
    linear = {name: Ridge.fitted(given(name, shown, meant), right, apart) for name in _names(with_meaning)[:-1]}
    growth = Growth(how.trees, least=max(_LEAF, len(prompts) // _LEAVES), seed=how.seed)
    return columns, Parts(linear=linear, forest=Forest.grown(shown, right, apart, growth))


def _apart(right: Floats) -> Floats:
    """How far each model is from the mean of all of them, on each row."""
    return right - right.mean(1, keepdims=True)


def _some(prompts: Sequence[Prompt], chosen: NDArray[np.bool_]) -> list[Prompt]:
    return [prompt for prompt, one in zip(prompts, chosen, strict=True) if one]


def folds(rows: int, count: int, seed: int) -> list[NDArray[np.bool_]]:
    """Rows dealt into parts of about the same size: for each part, which rows are in it."""
    dealt = np.random.default_rng(seed).permutation(rows) % count
    return [dealt == at for at in range(count)]


def _costs(models: Sequence[str], right: Floats, costs: Mapping[str, float] | None) -> Floats:
    """From 0, the cheapest, to 1, the dearest."""
    found = right.mean(0).argsort().argsort() if costs is None else np.array([costs[model] for model in models])
    spread = found.max() - found.min()
    return (found - found.min()) / spread if spread else np.zeros(len(models))


def _curve(unseen: Floats, right: Floats, costs: Floats) -> tuple[Point, ...]:
    """The dial: for each mean cost the weight that leads to it, and how often the models chosen were right.

    With little weight on being right the cheapest is chosen, with much the best; in between each prompt has weights
    at which its choice changes, and those are tried.
    """
    weights = np.concatenate([[0.0], np.geomspace(0.05, 1e4, 400)])
    found: list[tuple[float, float, float]] = []
    for weight in weights:
        chosen = (unseen * weight - costs).argmax(1)
        found.append((float(weight), float(costs[chosen].mean()), float(right[np.arange(len(right)), chosen].mean())))
    points: list[Point] = []
    for dial in _DIAL:
        weight, cost, share = min(found, key=lambda one: (abs(one[1] - dial), -one[2], one[0]))
        points.append(Point(dial, float(f"{weight:.6g}"), round(cost, 4), round(share, 4)))
    return tuple(points)


# -- what a router is worth -----------------------------------------------------------------------


def predictions(examples: Sequence[Example], how: Training = Training(), parts: int = 10) -> Floats:
    """What routers say of prompts they were not trained on: each part by a router trained on the others.

    Nested: the router of each part finds its own trust and strengths by cross-validation on the others alone.
    """
    models = _models(examples)
    examples = [replace(example, prompt=_looked_at(example.prompt)) for example in examples]
    found = np.zeros((len(examples), len(models)))
    for fold in folds(len(examples), parts, how.seed + 1):
        kept = [example for example, out in zip(examples, fold, strict=True) if not out]
        found[fold] = train(kept, how).predict([e.prompt for e, out in zip(examples, fold, strict=True) if out])
    return found


def share_needed(order: Floats, weak: Floats, strong: Floats, target: float = 0.95) -> float:
    """The least share of prompts that the strong model must answer to be right as often as ``target`` of it alone.

    Args:
        order: the prompts with the highest numbers go to the strong model first.
        weak: whether the weak model was right.
        strong: whether the strong one was.
        target: share of the strong model's accuracy.
    """
    gains = (strong - weak)[np.argsort(-order, kind="stable")]
    reached = weak.sum() + np.concatenate([[0.0], gains.cumsum()])
    enough = np.nonzero(reached >= target * strong.sum() - 1e-9)[0]
    return float(enough[0] / len(order)) if len(enough) else 1.0
