"""The searches by name, and which of them are chained for what."""

from __future__ import annotations

import pytest

from kaizen.core.context import Context
from kaizen.core.errors import BudgetExceeded, ConfigError
from kaizen.core.params import Params
from kaizen.learn.budget import Spent
from kaizen.learn.optimize import compose
from kaizen.learn.optimize.board import Board
from kaizen.learn.optimize.compose import Compose, Ranked, is_strong, search_named
from kaizen.learn.optimize.task import Candidate, Task
from kaizen.learn.ranking import LEAST, Past, Ranking
from tests.desk import TEAMS, Desk
from tests.unit.learn.optimize.conftest import Bench

NAME = Desk.spec.name
PROPOSED = [("demonstrations", 0.25), ("instructions", 0.5), ("reflective", 1.0)]


@pytest.mark.parametrize(
    "name", ["compose", "ranked", "demonstrations", "decoding", "instructions", "reflective", "genetic", "models"]
)
def test_a_search_is_found_by_its_name(name: str) -> None:
    assert search_named(name).name == name


def test_an_unknown_name_is_told_the_nearest() -> None:
    with pytest.raises(ConfigError, match="did you mean reflective"):
        search_named("reflektive")


@pytest.mark.parametrize(
    ("ref", "embedded", "strong"),
    [
        ("embedded/smollm2-135m", True, False),
        ("embedded/mine", True, False),
        ("ollama/llama3.2:1b", False, False),
        ("ollama/qwen2.5-7b-instruct", False, True),
        ("openai/gpt-4o-mini", False, True),
        ("mine/large", False, True),
    ],
)
def test_a_model_is_strong_by_where_it_runs_and_by_its_size(ref: str, embedded: bool, strong: bool) -> None:
    assert is_strong(ref, embedded=embedded) is strong


def test_a_small_model_is_asked_for_no_proposals_unless_a_teacher_writes_them(bench: Bench) -> None:
    stages = Compose().stages
    assert stages(bench.task(strong=True)) == PROPOSED
    assert [name for name, _ in stages(bench.task(strong=False))] == ["decoding", "demonstrations"]
    taught = stages(bench.task(strong=False, teacher="a/b"))
    assert [name for name, _ in taught] == ["decoding", "demonstrations", "instructions", "reflective"]


def test_without_optuna_instructions_are_left_out(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compose, "find_spec", lambda name: None)
    assert [name for name, _ in Compose().stages(bench.task(strong=True))] == ["demonstrations", "reflective"]


class Stage:
    """A stage that puts one candidate, made of where it starts."""

    def __init__(self, name: str, log: list[tuple[str, float, str]], fails: bool = False) -> None:
        self.name, self._log, self._fails = name, log, fails

    def estimate(self, task: Task, each: float) -> int:
        return 7

    async def search(self, ctx: Context, task: Task, board: Board) -> None:
        self._log.append((self.name, round(board.left, 1), board.start.how))
        if self._fails:
            raise Spent("my share is spent")
        rules = Params(instructions=" ".join(f"{topic} means {team}." for topic, team in TEAMS.items()))
        await board.score(ctx, Candidate({NAME: rules}, f"by {self.name}"))


@pytest.mark.parametrize("fails", [False, True])
async def test_each_stage_starts_from_the_best_so_far_within_its_share(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, fails: bool
) -> None:
    log: list[tuple[str, float, str]] = []
    monkeypatch.setattr(compose, "search_named", lambda name: Stage(name, log, fails and name == "demonstrations"))
    task = bench.task(strong=True)
    board = await bench.search(Compose(), bench.board(task, calls=212))
    assert log[0] == ("demonstrations", 50.0, "the program as it is")
    assert log[1][0] == "instructions"
    assert log[1][2] == ("the program as it is" if fails else "by demonstrations")
    assert log[2] == ("reflective", board.left, board.best.how)
    assert Compose().estimate(task, 1.0) == 21


async def test_it_ends_where_too_little_is_left(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    log: list[tuple[str, float, str]] = []
    monkeypatch.setattr(compose, "search_named", lambda name: Stage(name, log))
    await bench.search(Compose(), bench.board(bench.task(strong=True), calls=30))
    assert log == []
    log.clear()
    monkeypatch.setattr(compose, "search_named", lambda name: Eats(name, log))
    with pytest.raises(BudgetExceeded):
        await bench.search(Compose(), bench.board(bench.task(strong=True), calls=40))


class Eats(Stage):
    """A stage that uses up more than its share, as the last call of a share may."""

    async def search(self, ctx: Context, task: Task, board: Board) -> None:
        board._purses[0].add(20, 0, 0.0)
        raise Spent("nothing is left")


def test_past_runs_change_the_order_and_the_shares(bench: Bench) -> None:
    past = [Past("reflective", "choice", 0.2, 0.5) for _ in range(LEAST)]
    past += [Past("demonstrations", "choice", 0.2, 0.0) for _ in range(LEAST)]
    task = bench.task(strong=True, ranking=Ranking.of(past))
    ranked = Ranked().chosen(task, 0.2)
    assert ranked[0][0] == "reflective"
    assert ranked[-1] == ("demonstrations", pytest.approx(1.0))
    assert Ranked().chosen(bench.task(strong=True), 0.2) == PROPOSED == Compose().chosen(task, 0.2)
