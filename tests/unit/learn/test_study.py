"""An optimizer's run from end to end: what is chosen, what is tested, and that luck is not taken for a gain."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from typing import Any

import pytest

from kaizen.core.context import Context
from kaizen.core.errors import BudgetExceeded, Conflict, Denied
from kaizen.core.params import Params
from kaizen.core.request import Reply, Request, Usage
from kaizen.learn.budget import parted
from kaizen.learn.data.dataset import Sealed
from kaizen.learn.optimize.board import Board
from kaizen.learn.optimize.task import Candidate, Task
from kaizen.learn.ranking import LEAST, Past
from kaizen.learn.study import Plan, Study
from kaizen.learn.verdict import Report, report_json, report_of
from kaizen.registry.params import load
from tests.desk import TEAMS, Desk, by_request, rows
from tests.unit.learn.optimize.conftest import Bench
from tests.unit.programs.house import Open

NAME = Desk.spec.name


def told(topics: Sequence[str]) -> Params:
    return Params(instructions=" ".join(f"{topic} means {TEAMS[topic]}." for topic in topics))


class Puts:
    """A search that scores these."""

    name = "puts"

    def __init__(self, *candidates: Candidate, chosen: bool = False) -> None:
        self.candidates, self._chosen = candidates, chosen
        self.task: Task | None = None

    def estimate(self, task: Task, each: float) -> int:
        return int(len(self.candidates) * len(task.val) * each)

    async def search(self, ctx: Context, task: Task, board: Board) -> None:
        self.task = task
        for one in self.candidates:
            await board.score(ctx, one)
        if self._chosen:
            board.chosen = self.candidates[-1]


GOOD = Candidate({NAME: told(list(TEAMS))}, "told all")
HALF = Candidate({NAME: told(list(TEAMS)[:3])}, "told half")


async def studied(bench: Bench, search: Any, *, calls: int = 200, test: int = 0, **how: Any) -> tuple[Report, Study]:
    narrowed: list[int] = []
    plan_how = {name: how.pop(name) for name in ("strong", "past", "tokens", "usd", "openings") if name in how}
    plan = Plan(
        task=bench.task(**how),
        search=search,
        shares=parted(calls, test),
        test=Sealed(rows(test, 1000)) if test else None,
        run_id="r",
        **plan_how,
    )
    study = Study(plan, told=bench.told.append, narrow=narrowed.append)
    app = bench.house.app
    answer = await app.start_run(await app.new_run(), study, {"plan": plan.version})
    assert narrowed == [plan.shares.total - plan.shares.test, plan.shares.total]
    return report_of(answer.outputs["report"]), study


async def test_the_best_is_chosen_and_tested_on_held_out_rows(bench: Bench) -> None:
    report, _ = await studied(bench, Puts(HALF, GOOD), test=20)
    assert report.improved
    assert (report.how, report.candidates, report.test_rows) == ("told all", 2, 20)
    assert (report.test.rows, report.test.before, report.test.after) == (20, 0.0, 1.0)
    assert 0.6 < report.test.low < report.test.high == 1.0
    assert report.chosen_on.rows > 12  # rows to learn from tell the finalists apart as well
    assert load(report.params[NAME]) == Params(instructions=GOOD.params[NAME].instructions, contract=Desk.spec.contract)
    assert [one["score"] for one in report.front][-1] == 1.0


async def test_a_gain_on_many_rows_makes_up_for_bad_luck_on_the_few_to_choose_by(house: Open) -> None:
    """The base is lucky on the rows to choose by, and the candidate was compared on the rows to learn from too."""

    class Tries(Puts):
        async def search(self, ctx: Context, task: Task, board: Board) -> None:
            await super().search(ctx, task, board)
            for one in (board.base, *self.candidates):
                await board.score(ctx, one, task.train)

    def reply(request: Request) -> Any:
        told = " means " in request.messages[0].text
        number = int(request.messages[-1].text.split("no. ")[1].split(":")[0])
        right = number < 100 or number >= 104 if told else number >= 102  # those to choose by begin at 100
        team = TEAMS[request.messages[-1].text.rsplit("my ", 1)[1].split("<")[0].split('"')[0].strip()]
        return json.dumps({"team": team if right else "none"})

    report, _ = await studied(Bench(house(reply)), Tries(GOOD))
    assert report.improved


async def test_nothing_better_is_no_improvement(bench: Bench) -> None:
    report, _ = await studied(bench, Puts(Candidate({NAME: Params(instructions="Be kind.")}, "kind")), test=10)
    assert not report.improved
    assert report.params == {}
    assert "no candidate did better" in report.reason
    assert report.test is None  # there was nothing to test: the rows stay shut
    assert not await bench.house.records(ref="kaizen.learn.sealed")
    assert (report.chosen_on.before, report.chosen_on.after, report.chosen_on.gain) == (0.0, 0.0, 0.0)
    assert bench.house.calls == 24  # none for a test


async def test_luck_is_no_improvement(house: Open) -> None:
    """Right in half of the rows, other rows with each prompt: the best of 25 looks much better and is not."""

    def reply(request: Request) -> str:
        rng = random.Random("".join(message.text for message in request.messages))
        topic = next(topic for topic in TEAMS if topic in request.messages[-1].text)
        return f'{{"team": "{TEAMS[topic] if rng.random() < 0.5 else "none"}"}}'

    bench = Bench(house(reply))
    tries = [Candidate({NAME: Params(instructions=f"Wording {number}.")}, f"{number}") for number in range(25)]
    report, study = await studied(bench, Puts(*tries), calls=2000)
    best, base = (study.board.standing(one) for one in (study.board.best, study.board.base))
    assert best.score > base.score + 0.15
    assert not report.improved
    assert "may be luck" in report.reason
    assert report.chance > 0.1


async def test_a_winner_that_is_none_on_held_out_rows_is_refused(house: Open) -> None:
    def reply(request: Request) -> str:
        held_out = int(request.messages[-1].text.split("no. ")[1].split(":")[0]) >= 1000
        return '{"team": "none"}' if held_out else by_request(request)

    report, _ = await studied(Bench(house(reply)), Puts(GOOD), test=10)
    assert not report.improved
    assert report.params == {}
    assert "not on held-out rows" in report.reason


@pytest.mark.parametrize(("chance", "improved"), [(0.04, True), (0.12, False)])
async def test_a_gain_that_is_not_sure_has_to_be_borne_out_on_held_out_rows(
    house: Open, monkeypatch: pytest.MonkeyPatch, chance: float, improved: bool
) -> None:
    def reply(request: Request) -> str:
        number = int(request.messages[-1].text.split("no. ")[1].split(":")[0])
        return '{"team": "none"}' if number > 1000 else by_request(request)  # one held-out row gains, and no other

    monkeypatch.setattr("kaizen.learn.study.likely", lambda *_: chance)
    report, _ = await studied(Bench(house(reply)), Puts(GOOD), test=10)
    assert report.test is not None
    assert report.test.gain > 0
    assert report.test.low <= 0
    assert report.improved is improved
    assert ("may be luck too" in report.reason) is not improved


@pytest.mark.parametrize(("chance", "improved"), [(0.04, True), (0.06, False)])
async def test_without_held_out_rows_a_gain_has_to_be_sure(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, chance: float, improved: bool
) -> None:
    monkeypatch.setattr("kaizen.learn.study.likely", lambda *_: chance)
    report, _ = await studied(bench, Puts(GOOD))
    assert report.improved is improved
    assert ("may be luck" in report.reason) is not improved


async def test_a_gain_that_is_not_sure_is_nothing_where_no_budget_is_left_for_the_test(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kaizen.learn.study.likely", lambda *_: 0.1)
    monkeypatch.setattr(Study, "_each", lambda *_: 1e9)
    report, _ = await studied(bench, Puts(GOOD), test=5)
    assert report.test is None
    assert not report.improved
    assert "not sure enough" in report.reason


@pytest.mark.parametrize(("earlier", "improved"), [(0, True), (1, False), (2, False)])
async def test_rows_that_were_tested_on_before_have_to_show_a_gain_that_is_sure(
    house: Open, monkeypatch: pytest.MonkeyPatch, earlier: int, improved: bool
) -> None:
    def reply(request: Request) -> str:
        number = int(request.messages[-1].text.split("no. ")[1].split(":")[0])
        return '{"team": "none"}' if number > 1000 else by_request(request)  # one held-out row gains, and no other

    async def openings() -> int:
        return earlier

    monkeypatch.setattr("kaizen.learn.study.likely", lambda *_: 0.01)
    report, _ = await studied(Bench(house(reply)), Puts(GOOD), test=10, openings=openings)
    assert report.test.low <= 0 < report.test.gain
    assert (report.improved, report.tested_before) == (improved, earlier)
    said = {0: "all tries counted)", 1: "; these held-out rows were tested on once before", 2: "on 2 times before"}
    assert report.reason.endswith(said[earlier])


async def test_one_held_out_row_does_not_bear_a_gain_out(house: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kaizen.learn.study.likely", lambda *_: 0.19)
    report, _ = await studied(Bench(house(by_request)), Puts(GOOD), test=1)
    assert (report.test.rows, report.test.gain) == (1, 1.0)
    assert not report.improved
    assert "may be luck too" in report.reason


async def test_the_candidates_are_kept_before_the_run_is_on_record(bench: Bench) -> None:
    kept: list[tuple[int, int]] = []

    async def keep(board: Board) -> None:
        done = await bench.house.records(ref="kaizen.optimize")
        kept.append((len(board.candidates), len(done)))

    app = bench.house.app
    plan = Plan(task=bench.task(), search=Puts(GOOD), shares=parted(200, 0))
    await app.start_run(await app.new_run(), Study(plan, keep=keep), {"plan": plan.version})
    assert kept == [(2, 0)]


async def test_the_test_takes_no_more_than_the_budget_leaves(bench: Bench) -> None:
    report, study = await studied(bench, Puts(GOOD), calls=80, test=60)
    shares = study.plan.shares
    assert (shares.test, shares.reserve, shares.search) == (40, 8, 32)
    assert report.test.rows < report.test_rows == 60
    assert bench.house.calls <= 80 - shares.reserve


async def test_a_search_may_not_read_the_test(bench: Bench) -> None:
    class Peeks(Puts):
        async def search(self, ctx: Context, task: Task, board: Board) -> None:
            await sealed.open(ctx, "a peek")

    sealed = Sealed(rows(5, 1000))
    plan = Plan(task=bench.task(), search=Peeks(), shares=parted(100, 5), test=sealed)
    app = bench.house.app
    with pytest.raises(Denied, match="under seal"):
        await app.start_run(await app.new_run(), Study(plan), {"plan": plan.version})


async def test_test_rows_to_learn_from_are_refused(bench: Bench) -> None:
    plan = Plan(task=bench.task(), search=Puts(), shares=parted(100, 5), test=Sealed(rows(5, 100)))
    app = bench.house.app
    with pytest.raises(Conflict, match="to test on"):
        await app.start_run(await app.new_run(), Study(plan), {"plan": plan.version})
    assert bench.house.calls == 0


async def test_a_search_that_runs_out_of_budget_ends_with_its_best(bench: Bench) -> None:
    class Endless(Puts):
        async def search(self, ctx: Context, task: Task, board: Board) -> None:
            await super().search(ctx, task, board)
            for number in range(100):
                await board.score(ctx, Candidate({NAME: Params(instructions=f"Wording {number}.")}, f"{number}"))

    report, _ = await studied(bench, Endless(GOOD))
    assert report.improved
    assert report.how == "told all"
    assert "don't fit" in report.stopped
    assert report.used <= 200 - 16


async def test_a_budget_that_ends_before_the_base_is_scored_changes_nothing(bench: Bench) -> None:
    report, _ = await studied(bench, Puts(GOOD), calls=8)
    assert not report.improved
    assert report.chosen_on is None
    assert report.stopped


async def test_a_budget_spent_elsewhere_ends_the_test_with_what_is_whole(house: Open) -> None:
    asked = [0]

    def reply(request: Request) -> Any:
        held_out = int(request.messages[-1].text.split("no. ")[1].split(":")[0]) >= 1000
        asked[0] += held_out
        return BudgetExceeded("spent") if asked[0] > 55 else by_request(request)

    report, _ = await studied(Bench(house(reply)), Puts(GOOD), calls=400, test=60, concurrency=1)
    assert report.test.rows == 20  # of the chunks of 20, the first was whole with both
    assert report.stopped == "spent"


class Priced:
    """A model that costs a tenth of the other, and knows as much, or as little."""

    def __init__(self, knows: bool) -> None:
        self.knows = knows

    def __call__(self, request: Request) -> Reply:
        cheap = request.model == "test/small"
        text = '{"team": "none"}' if cheap and not self.knows else by_request(request)
        return Reply(model=request.model, text=text, cost_usd=0.001 if cheap else 0.01, usage=Usage(10, 5))


@pytest.mark.parametrize(("knows", "improved"), [(True, True), (False, False)])
async def test_what_is_chosen_for_its_cost_has_to_hold_the_quality(house: Open, knows: bool, improved: bool) -> None:
    small = GOOD.over(NAME, Params(model="test/small"), "small")
    report, _ = await studied(
        Bench(house(Priced(knows))),
        Puts(small, chosen=True),
        calls=600,
        test=40,
        start=dict(GOOD.params),
        val=rows(40, 100),
    )
    assert report.improved is improved
    if improved:
        assert "costs 90% less" in report.reason
        assert report.test.usd_after == pytest.approx(report.test.usd_before / 10)
    else:
        assert "score may fall" in report.reason


async def test_what_is_no_cheaper_is_not_chosen(house: Open) -> None:
    other = GOOD.over(NAME, Params(model="test/other"), "other")
    report, _ = await studied(
        Bench(house(Priced(True))), Puts(other, chosen=True), calls=600, start=dict(GOOD.params), val=rows(40, 100)
    )
    assert report.reason == "no candidate is cheaper at the same quality"


async def test_what_is_cheaper_only_by_chance_is_refused_by_the_test(house: Open) -> None:
    def reply(request: Request) -> Reply:
        held_out = int(request.messages[-1].text.split("no. ")[1].split(":")[0]) >= 1000
        return Priced(not held_out)(request)

    small = GOOD.over(NAME, Params(model="test/small"), "small")
    report, _ = await studied(
        Bench(house(reply)), Puts(small, chosen=True), calls=600, test=40, start=dict(GOOD.params), val=rows(40, 100)
    )
    assert "quality does not hold" in report.reason


async def test_the_search_learns_how_strong_the_model_is_and_what_past_runs_showed(bench: Bench) -> None:
    async def past() -> list[Past]:
        return [Past("reflective", "choice", 0.2, 0.1 * (number % 3), "old") for number in range(LEAST)]

    search = Puts(GOOD)
    await studied(bench, search, strong=lambda ref: ref == "test/model", past=past)
    assert search.task.strong is True
    assert search.task.ranking.count == LEAST
    await studied(bench, search, strong=lambda ref: False)
    assert (search.task.strong, search.task.ranking.count) == (False, 0)


async def test_plans_that_differ_have_other_versions(bench: Bench) -> None:
    def version(**how: Any) -> str:
        task = {name: how.pop(name) for name in ("seed", "train", "teacher") if name in how}
        plan = {"shares": parted(100, 0), "search": Puts()} | how
        return Plan(task=bench.task(**task), **plan).version

    plans = [version(), version(seed=1), version(train=rows(5)), version(teacher="a/b"), version(shares=parted(90, 0))]
    plans += [version(test=Sealed(rows(3, 1000))), version(tokens=5)]
    assert len(set(plans)) == len(plans)
    assert version() == plans[0]


def test_a_report_survives_json() -> None:
    report = Report(program="p", optimizer="o", metric="m", seed=0, improved=False, reason="why", front=[])
    assert report_of(report_json(report)) == report
