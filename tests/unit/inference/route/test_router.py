"""The trained router: its parts, what it learns, how it is kept, and the dial."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kaizen.core.errors import InvalidInput
from kaizen.core.protocols import Embeddings
from kaizen.core.scope import Scope
from kaizen.inference.route.features import NAMES, surface
from kaizen.inference.route.forest import Forest, Growth
from kaizen.inference.route.linear import Ridge, stacked
from kaizen.inference.route.router import Columns, Prompt, Router
from kaizen.inference.route.rows import read, train_file, with_points
from kaizen.inference.route.training import (
    Example,
    Training,
    folds,
    predictions,
    share_needed,
    train,
)

QUICK = Training(trees=10)


def point(*numbers: float) -> bytes:
    return np.array(numbers, "<f4").tobytes()


def examples(n: int = 120, *, points: bool = False, seed: int = 0) -> list[Example]:
    """The weak model fails where there are many numbers, the strong one hardly ever."""
    rng = np.random.default_rng(seed)
    found: list[Example] = []
    for _ in range(n):
        hard = bool(rng.random() < 0.5)
        numbers = " and ".join(str(one) for one in rng.integers(2, 90, 8 if hard else 1))
        text = f"Mia has {numbers} apples. How many are there?"
        right = {"a/weak": float(rng.random() < (0.15 if hard else 0.95)), "b/strong": float(rng.random() < 0.95)}
        near = point(float(hard), *rng.normal(0, 0.1, 3)) if points else None
        found.append(Example(Prompt(text, {"level": "hard" if hard else "easy"}, near), right))
    return found


def test_features_are_finite_numbers_whatever_the_text() -> None:
    for text in (
        "",
        "?",
        "9" * 400,
        "\x00",
        "日本語の質問。",
        "a " * 5000,
        "Ann’s 1,000.5 isn't 3/4 of 12% (def f(): ```x```)",
    ):
        found = surface(text)
        assert tuple(found) == NAMES
        assert all(np.isfinite(one) and one >= 0 for one in found.values())


def test_features_count_what_they_are_called() -> None:
    found = surface("Tom buys twice as many eggs as Ann, 12 more than Bo. How much is 50% of it?")
    seen = {name for name, value in found.items() if value > 0}
    assert {"multiples", "as many as", "comparatives", "than", "percent signs", "asks how much", "names"} <= seen
    assert found["numbers"] == pytest.approx(np.log(3))
    assert found["sentences"] == pytest.approx(np.log(3))
    assert surface("I don't know")["negations"] > 0


def test_trees_find_a_step_and_survive_being_written_down() -> None:
    rng = np.random.default_rng(1)
    rows = rng.random((300, 4))
    wanted = np.stack([(rows[:, 2] > 0.5) * 1.0, np.ones(300)], 1).astype(np.float64)
    forest = Forest.grown(rows, wanted, wanted - wanted.mean(1, keepdims=True), Growth(trees=20))
    low, high = forest.predict(np.array([[0.5, 0.5, 0.1, 0.5], [0.5, 0.5, 0.9, 0.5]]))
    assert low[0] < 0.3 < 0.7 < high[0]
    assert low[1] == high[1] == pytest.approx(1.0)
    again = Forest.from_json(json.loads(json.dumps(forest.as_json())))
    assert again.predict(rows) == pytest.approx(forest.predict(rows), abs=0.05)


def test_trees_without_anything_to_part_are_leaves() -> None:
    rows, wanted = np.ones((30, 2)), np.arange(60.0).reshape(30, 2)
    forest = Forest.grown(rows, wanted, wanted, Growth(trees=2))
    assert forest.predict(rows[:1])[0] == pytest.approx(wanted.mean(0))
    assert [len(tree["feature"]) for tree in forest.as_json()] == [1, 1]


def test_ridge_finds_slopes_and_shrinks_where_there_are_none() -> None:
    rng = np.random.default_rng(2)
    rows = rng.normal(size=(200, 3))
    wanted = rows[:, :1] * 2 + 1
    fit = Ridge.fitted(rows, wanted, wanted)
    assert fit.slopes[:, 0] == pytest.approx([2, 0, 0], abs=0.05)
    noise = rng.normal(size=(200, 1))
    assert abs(Ridge.fitted(rows, noise, noise).slopes).max() < 0.1


def test_stacking_trusts_what_is_right() -> None:
    rng = np.random.default_rng(3)
    wanted = rng.normal(size=500)
    weights = stacked(
        np.stack([wanted + rng.normal(size=500) * 0.1, rng.normal(size=500), np.zeros(500), -wanted], 1), wanted
    )
    assert weights[0] > 0.9
    assert list(weights[2:]) == [0.0, 0.0]
    assert (weights >= 0).all()


def test_a_router_learns_who_is_right_where() -> None:
    router = train(examples(), QUICK)
    easy = router.right(Prompt("Mia has 3 apples. How many are there?"))
    hard = router.right(Prompt("Mia has 3 and 4 and 5 and 6 and 7 and 8 and 9 and 11 apples. How many are there?"))
    assert easy["a/weak"] > 0.7 > 0.5 > hard["a/weak"]
    assert hard["b/strong"] - hard["a/weak"] > easy["b/strong"] - easy["a/weak"] + 0.3
    assert all(0 <= one <= 1 for one in (*easy.values(), *hard.values()))
    assert (router.rows, router.embedder, router.models) == (120, None, ("a/weak", "b/strong"))


def test_the_dial_goes_from_the_cheapest_to_the_best() -> None:
    router = train(examples(), QUICK)
    costs, rates = [one.cost for one in router.curve], [one.right for one in router.curve]
    assert costs == sorted(costs)
    assert (costs[0], router.weight(0.0)) == (0.0, 0.0)
    assert rates[-1] > rates[0] + 0.2
    assert router.weight(0.3) <= router.weight(0.6) <= router.weight(1.0)
    # half of the prompts are hard, so half of the cost has to do
    assert max(one.right for one in router.curve if one.dial <= 0.55) > max(rates) - 0.05


def test_costs_may_be_given() -> None:
    dear_and_bad = train(examples(), Training(trees=10, costs={"a/weak": 9.0, "b/strong": 1.0}))
    assert dear_and_bad.curve[0].right > 0.9  # the cheapest is the strong one
    equal = train(examples(), Training(trees=10, costs={"a/weak": 1.0, "b/strong": 1.0}))
    assert equal.curve[0].right > 0.9


@pytest.mark.parametrize("points", [False, True])
def test_a_router_is_the_same_after_it_was_saved(tmp_path: Path, points: bool) -> None:
    router = train(examples(points=points), Training(trees=10, embedder="e/x" if points else None))
    router.save(tmp_path / "router.json")
    again = Router.load(tmp_path / "router.json")
    prompts = [one.prompt for one in examples(20, points=points, seed=9)]
    assert again.predict(prompts) == pytest.approx(router.predict(prompts), abs=0.01)
    assert (again.models, again.rows, again.embedder, again.curve) == (
        router.models, router.rows, router.embedder, router.curve,
    )  # fmt: skip
    tree = json.loads((tmp_path / "router.json").read_text())
    assert set(tree["linear"]["surface"]["features"]["numbers"]) == {"a/weak", "b/strong"}
    assert "level = hard" in tree["columns"]
    assert tree["trust"].keys() == {*tree["linear"], "trees"}


def test_a_router_of_meaning_wants_points_of_its_embedder() -> None:
    router = train(examples(points=True), Training(trees=10, embedder="e/x"))
    assert router.embedder == "e/x"
    for given in (None, point(1.0, 2.0)):
        with pytest.raises(InvalidInput, match="embeddings of 4 numbers"):
            router.right(Prompt("hello", point=given))


def test_a_trait_that_is_not_known_changes_nothing() -> None:
    columns = Columns.of([one.prompt for one in examples(40)])
    shown = columns.shown([Prompt("x"), Prompt("x", {"level": "new"})])
    assert list(shown[0, len(NAMES) :]) == [0.0, 0.0]
    assert (shown[1, len(NAMES) :] < 0).all()


@pytest.mark.parametrize("broken", ["", "[]", "{}", '{"kind": "kaizen router", "version": 99}'])
def test_what_is_no_router_is_refused(tmp_path: Path, broken: str) -> None:
    (tmp_path / "r.json").write_text(broken)
    with pytest.raises(InvalidInput, match="no router"):
        Router.load(tmp_path / "r.json")
    with pytest.raises(InvalidInput, match="no router"):
        Router.load(tmp_path / "missing.json")


def test_a_router_of_other_features_is_refused() -> None:
    tree = train(examples(30), QUICK).as_json()
    tree["columns"] = {"other": [0, 1]}
    with pytest.raises(InvalidInput, match="other features"):
        Router.from_json(tree)


def test_too_few_rows_or_models_train_nothing() -> None:
    with pytest.raises(InvalidInput, match="at least 20 rows"):
        train(examples(19))
    one_model = [Example(one.prompt, {"a/weak": 1.0}) for one in examples(30)]
    with pytest.raises(InvalidInput, match="two at least"):
        train(one_model)


def test_what_cross_validation_says_is_of_prompts_not_trained_on() -> None:
    some = examples(100)
    found = predictions(some, QUICK, parts=4)
    weak, strong = (np.array([one.right[name] for one in some]) for name in ("a/weak", "b/strong"))
    at_random = (0.95 * strong.mean() - weak.mean()) / (strong.mean() - weak.mean())
    assert share_needed(found[:, 1] - found[:, 0], weak, strong) < at_random
    # the labels dealt anew: there is nothing to learn, so nothing may be found
    dealt: list[int] = np.random.default_rng(5).permutation(100).tolist()
    mixed = [Example(one.prompt, some[at].right) for one, at in zip(some, dealt, strict=True)]
    blind = predictions(mixed, QUICK, parts=4)
    gains = np.asarray(strong[dealt] - weak[dealt])
    assert abs(np.corrcoef(blind[:, 1] - blind[:, 0], gains)[0, 1]) < 0.35


def test_shares_are_read_off_the_order() -> None:
    weak, strong = np.array([1.0, 0.0, 0.0, 1.0]), np.ones(4)
    assert share_needed(strong - weak, weak, strong, 1.0) == 0.5
    assert share_needed(weak - strong, weak, strong, 1.0) == 1.0
    assert share_needed(weak, weak, strong, 0.5) == 0.0
    assert share_needed(np.zeros(2), np.array([1.0, 0.0]), np.array([0.0, 1.0]), 2.0) == 1.0
    assert sum(fold.sum() for fold in folds(11, 3, 0)) == 11


# -- files ----------------------------------------------------------------------------------------


class Letters:
    """An embedder of how often four letters come."""

    async def embed(self, scope: Scope, texts: list[str], /) -> Embeddings:
        rows = np.array([[text.count(letter) for letter in "aeio"] for text in texts], "<f4")
        return Embeddings("e/letters", 4, rows.tobytes())


def lines(rows: list[dict[str, object]]) -> str:
    return "\n".join(json.dumps(row) for row in rows) + "\n\n"


def test_columns_are_found_by_what_they_hold(tmp_path: Path) -> None:
    rows: list[Any] = [
        {
            "id": at,
            "domain": ("law", "art")[at % 2],
            "prompt": f"Question {at}?",
            "m/a": "True",
            "m/b": at % 2 == 0,
            "m/c": 0.5,
        }
        for at in range(20)
    ]
    rows += [{"prompt": "no answers", "m/a": "", "m/b": None}, {"prompt": None, "m/a": 1, "m/b": 1, "m/c": 1}]
    (tmp_path / "rows.jsonl").write_text(lines(rows))
    table = read(tmp_path / "rows.jsonl")
    assert (table.text, table.models, table.traits) == ("prompt", ("m/a", "m/b", "m/c"), ("domain",))
    assert (len(table.examples), table.left_out) == (20, 2)
    assert table.examples[1] == Example(Prompt("Question 1?", {"domain": "art"}), {"m/a": 1.0, "m/b": 0.0, "m/c": 0.5})


def test_a_csv_is_read_and_columns_can_be_named(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text('words,x,y,z\n"one, two",right,wrong,0.7\nthree,0,1,many\n')
    table = read(tmp_path / "rows.csv")
    assert (table.text, table.models) == ("words", ("x", "y"))
    assert table.examples[0].right == {"x": 1.0, "y": 0.0}
    table = read(tmp_path / "rows.csv", text="words", models=["x", "z"])
    assert (len(table.examples), table.left_out) == (1, 1)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.jsonl", "nonsense\n", "line 1: no JSON"),
        ("a.jsonl", "[1]\n", "no JSON object"),
        ("a.jsonl", '{"prompt": "x", "m": true}\n', "two of right or wrong"),
        ("a.csv", "", "two of right or wrong"),
        ("b.jsonl", None, "can't be read"),
    ],
)
def test_a_file_that_can_not_be_trained_on_says_why(tmp_path: Path, name: str, content: str | None, said: str) -> None:
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(InvalidInput, match=said):
        read(tmp_path / name)


async def test_a_file_becomes_a_router(tmp_path: Path) -> None:
    rows = [{"prompt": one.prompt.text, **one.right} for one in examples(60)]
    (tmp_path / "rows.jsonl").write_text(lines([dict(row) for row in rows]))
    table, router = await train_file(tmp_path / "rows.jsonl", tmp_path / "router.json", embedder=Letters())  # pyright: ignore[reportArgumentType] - a list is a sequence
    assert (len(table.examples), router.embedder) == (60, "e/letters")
    again = Router.load(tmp_path / "router.json")
    (one,), _ = await with_points([Example(Prompt("Mia has 3 apples."))], Letters())  # pyright: ignore[reportArgumentType] - a list is a sequence
    assert set(again.right(one.prompt)) == {"a/weak", "b/strong"}
    _, plain = await train_file(tmp_path / "rows.jsonl", tmp_path / "plain.json", costs={"a/weak": 1, "b/strong": 2})
    assert plain.embedder is None
