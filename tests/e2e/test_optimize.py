"""An optimizer on a real socket: what the server was asked, what was counted, and that a kill changes nothing."""

from __future__ import annotations

import asyncio
import json
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kaizen.app import App, build
from kaizen.app.learn.optimize import optimize
from kaizen.core.artifact import BASE, Arm, Artifact
from kaizen.core.errors import ConfigError, NotFound, StoreError
from kaizen.core.ids import new_id
from kaizen.core.params import Params
from kaizen.core.record import RecordQuery
from kaizen.learn.metrics.metric import metric
from kaizen.learn.optimize.genetic import Genetic
from kaizen.learn.optimize.instructions import Instructions
from kaizen.learn.optimize.reflective import Reflective
from kaizen.serve.doors import Optimized, Optimizing
from kaizen.settings import load_settings
from kaizen.stores.allowances import FileAllowance
from kaizen.testing.fault_server import Call, Fault, FaultServer, slow, status
from tests.desk import TEAMS, Desk, by_body, front, rows

Make = Callable[..., App]


class Counting(FaultServer):
    """Counts each request by its contents, and how many were in the air at once."""

    def __init__(self, delay: float = 0.0) -> None:
        super().__init__(by_body, default=slow(delay))
        self.asked: Counter[bytes] = Counter()

    def received(self, call: Call) -> Fault:
        self.asked[call.body] += 1
        return super().received(call)


@pytest.fixture
def server() -> Iterator[Counting]:
    with Counting() as running:
        yield running


@pytest.fixture
def make(server: Counting, tmp_path: Path) -> Iterator[Make]:
    made: list[App] = []

    def open_app(**tree: Any) -> App:
        provider = {"kind": "openai", "base_url": server.base_url, "api_key": "none"}
        price = {"input_usd_per_mtok": 1000.0, "output_usd_per_mtok": 1000.0, "max_output_tokens": 20}
        models = {"mine/m": price, "mine/small": price | {"input_usd_per_mtok": 100.0}}
        settings = {"model": "mine/m", "home": str(tmp_path), "providers": {"mine": provider}, "models": models}
        made.append(build(load_settings(tmp_path, {}, settings | {"log": {"level": "error"}} | tree)))
        return made[-1]

    yield open_app
    for one in made:
        asyncio.run(one.close())


def wanted(**how: Any) -> Optimizing:
    given = {"program": Desk, "train": rows(18), "val": rows(12, 100), "optimizer": "reflective", "calls": 200} | how
    return Optimizing(metric=metric("accuracy", given["program"].spec), **given)


async def stored(app: App, kind: str) -> list[Any]:
    return [one async for one in app.ledger.records(app.scope, RecordQuery(kind=kind))]


async def test_what_is_counted_is_what_reached_the_server_and_never_more_than_the_budget(
    server: Counting, make: Make
) -> None:
    app = make()
    for optimizer in ("reflective", Instructions(), Genetic()):
        for calls in (40, 150):
            server.count = 0
            ended = await optimize(app, wanted(optimizer=optimizer, calls=calls, test=rows(15, 1000), seed=calls))
            assert ended.calls == server.count <= calls
    models = await stored(app, "model")
    assert sum(one.attempts for one in models if one.cache_tier == "model") == sum(server.asked.values())


async def test_a_gain_is_a_version_and_its_candidates_are_artifacts(server: Counting, make: Make) -> None:
    app = make()
    ended = await optimize(app, wanted(test=rows(20, 1000), release=True))
    assert ended.report.improved
    assert (ended.report.test.before, ended.report.test.after) == (0.0, 1.0)
    assert ended.versions == {Desk.spec.name: 1}
    version = await app.registry.version(app.scope, "params", Desk.spec.name, "prod")
    assert version.author == "optimizer:reflective"
    assert ended.run_id in version.reason
    candidates = await app.registry.versions(app.scope, "candidate", Desk.spec.name)
    bodies = [json.loads(one.artifact.body) for one in candidates]
    assert {body["run"] for body in bodies} == {ended.run_id}
    assert bodies[0]["how"] == "the program as it is"
    assert all(one.artifact.parents for one in candidates[1:])
    server.count = 0
    answer = await app.start(Desk, {"message": "about my parcel"})
    assert answer.outputs == {"team": "blue"}


async def test_the_cheapest_model_that_holds_the_quality_is_released_and_the_others_are_asked_little(
    server: Counting, make: Make
) -> None:
    def reply(body: Any) -> str:
        return '{"team": "none"}' if body["model"] == "tiny" else by_body(body)

    server.reply = reply
    usd = {"m": 100.0, "small": 10.0, "tiny": 1.0, "dear": 1000.0}
    priced = {
        f"mine/{name}": {"input_usd_per_mtok": one, "output_usd_per_mtok": one, "max_output_tokens": 20}
        for name, one in usd.items()
    }
    app = make(models=priced)
    rules = Params(instructions=" ".join(f"{topic} means {team}." for topic, team in TEAMS.items()))
    task = {"train": rows(28), "val": rows(12, 100), "start": {Desk.spec.name: rules}, "calls": 300, "release": True}
    ended = await optimize(app, wanted(optimizer="models", models=tuple(sorted(priced)), **task))
    asked = Counter(call.json["model"] for call in server.calls)
    # two rows show what a row costs; what is worse beyond doubt is not asked about the rest
    assert asked == {"m": 40, "small": 40, "tiny": 8, "dear": 2}
    assert ended.calls == server.count == 90
    assert "90%" in ended.report.reason
    await app.start(Desk, {"message": "about my parcel"})
    assert server.calls[-1].json["model"] == "small"


async def test_another_program_s_programs_are_tuned_and_released_under_their_own_names(make: Make) -> None:
    app = make()
    ended = await optimize(
        app, wanted(program=front, train=rows(18, 0, "result"), val=rows(12, 100, "result"), release=True)
    )
    assert set(ended.versions) == {Desk.spec.name}
    answer = await app.start(front, {"message": "about my meter"})
    assert answer.outputs == {"result": "green"}


async def test_every_retry_counts(server: Counting, make: Make) -> None:
    app = make(inference={"backoff": 0.001, "failover": {"enabled": False}})
    server.queue(*[status(503)] * 20)
    ended = await optimize(app, wanted(calls=60, concurrency=1))
    assert ended.calls == server.count <= 60


async def test_a_server_that_fails_all_the_time_costs_no_more_than_the_budget(server: Counting, make: Make) -> None:
    app = make(inference={"backoff": 0.001, "failover": {"enabled": False}})
    server.default = status(503)
    ended = await optimize(app, wanted(calls=25))
    assert server.count == ended.calls == 25
    assert not ended.report.improved


async def test_the_same_search_again_is_answered_by_the_cache(server: Counting, make: Make) -> None:
    app = make()
    start = {Desk.spec.name: Params(temperature=0.0)}
    first = await optimize(app, wanted(start=start))
    second = await optimize(app, wanted(start=start))
    assert first.calls == server.count > 20
    assert second.calls == 0  # all of it has one answer: decoding is greedy, and proposals have a seed
    assert second.report == first.report


async def test_a_budget_in_tokens_or_dollars_is_never_passed(server: Counting, make: Make) -> None:
    app = make()
    for limit in ({"tokens": 5000}, {"usd": 8.0}):
        server.asked.clear()
        ended = await optimize(app, wanted(calls=10_000, **limit))
        models = [one for one in await stored(app, "model") if one.run_id == ended.run_id]
        assert sum(one.tokens_in + one.tokens_out for one in models) <= limit.get("tokens", 1e9)
        assert sum(one.cost_usd or 0.0 for one in models) <= limit.get("usd", 1e9) + 1e-9
        assert 0 < sum(server.asked.values()) < 1000


async def test_a_budget_in_seconds_ends_the_run(server: Counting, make: Make) -> None:
    app = make()
    server.default = slow(0.05)
    begun = time.monotonic()
    ended = await optimize(app, wanted(seconds=0.5, concurrency=1, calls=1000))
    assert time.monotonic() - begun < 5
    assert 0 < ended.calls <= 12
    assert ended.report.stopped


async def test_a_model_without_a_price_is_refused_where_dollars_are_limited(server: Counting, make: Make) -> None:
    app = make(models={})
    with pytest.raises(ConfigError, match="price of mine/m is not known"):
        await optimize(app, wanted(usd=1.0))
    assert server.count == 0


async def test_the_cheapest_model_is_chosen_by_its_price(make: Make) -> None:
    app = make()
    known = {Desk.spec.name: Params(instructions="refund means red. parcel means blue. password means green.")}
    ended = await optimize(
        app, wanted(optimizer="models", models=("mine/small",), start=known, val=rows(40, 100), calls=400)
    )
    assert ended.report.improved
    assert '"model":"mine/small"' in ended.report.params[Desk.spec.name].replace(" ", "")


async def test_held_out_rows_that_were_tested_on_before_are_known_again(make: Make) -> None:
    app = make()
    test = rows(20, 1000)
    reports = [(await optimize(app, wanted(test=test, seed=seed))).report for seed in range(3)]
    assert [report.tested_before for report in reports] == [0, 1, 2]
    assert "tested on 2 times before" in reports[2].reason
    assert reports[2].test.low > 0  # which is asked of it from the second time on
    assert (await optimize(app, wanted(test=rows(20, 2000)))).report.tested_before == 0


async def test_a_run_that_is_over_undoes_no_rollback_when_it_is_asked_for_again(make: Make, server: Counting) -> None:
    app = make()
    what = wanted(release=True, run_id=new_id())
    first = await optimize(app, what)
    asked = server.count
    again = await optimize(app, replace(what, resumed=True))
    assert (again.released, again.versions, again.report) == (True, first.versions, first.report)
    name, moves = Desk.spec.name, await app.registry.history(app.scope, "params", Desk.spec.name, "prod")
    assert len(moves) == 1
    await app.registry.rollback(app.scope, "params", name, "prod", actor="human:ada", reason="worse for us")
    later = await optimize(app, replace(what, resumed=True))
    assert (later.released, later.versions) == (False, first.versions)
    assert await app.registry.arms(app.scope, "params", name, "prod") == (Arm(BASE),)
    assert server.count == asked


async def test_a_crash_before_the_label_moved_is_made_good_for_by_going_on(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = make()
    what = wanted(release=True, run_id=new_id())
    before = await app.registry.put(app.scope, Artifact("params", Desk.spec.name, b"{}"), author="human:ada", reason="")
    moved = [Arm(before.artifact.version)]
    await app.registry.label(app.scope, "params", Desk.spec.name, "prod", moved, actor="human:ada", reason="first")

    async def crash(*_: Any, **__: Any) -> None:
        raise StoreError("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(app.registry, "label", crash)
        with pytest.raises(StoreError):
            await optimize(app, what)
    ended = await optimize(app, replace(what, resumed=True))
    assert (ended.released, ended.versions) == (True, {Desk.spec.name: 2})
    assert (await app.registry.version(app.scope, "params", Desk.spec.name, "prod")).number == 2


async def test_whatever_fails_a_run_is_let_go_of_and_its_candidates_are_kept_when_it_goes_on(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = make()
    what = wanted(run_id=new_id())
    put = app.registry.put

    async def crash(scope: Any, artifact: Artifact, **how: Any) -> Any:
        if artifact.kind == "candidate":
            raise StoreError("the disk is full")
        return await put(scope, artifact, **how)

    with monkeypatch.context() as patch:
        patch.setattr(app.registry, "put", crash)
        with pytest.raises(StoreError):
            await optimize(app, what)
    assert not await app.registry.versions(app.scope, "candidate", Desk.spec.name)
    ended = await optimize(app, replace(what, resumed=True))  # nobody else holds it
    candidates = await app.registry.versions(app.scope, "candidate", Desk.spec.name)
    assert len(candidates) == ended.report.candidates + 1


async def test_a_run_that_is_not_known_leaves_no_database_open(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[FileAllowance] = []
    kept = FileAllowance.known

    async def known(allowance: FileAllowance) -> bool:
        opened.append(allowance)
        return await kept(allowance)

    monkeypatch.setattr(FileAllowance, "known", known)
    with pytest.raises(NotFound, match="no optimizer's run"):
        await optimize(make(), wanted(resumed=True, run_id=new_id()))
    assert [one._db for one in opened] == [None]


async def cut_short(app: App, what: Optimizing, after: int, server: Counting) -> None:
    """Work on a run until the server was asked so often, then cancel it."""
    task = asyncio.ensure_future(optimize(app, what))
    await server.until(lambda: task.done() or sum(server.asked.values()) >= after)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


@pytest.mark.parametrize("search", [Reflective, Instructions, Genetic])
async def test_a_run_that_was_cancelled_ten_times_ends_as_one_that_was_not(
    make: Make, search: Any, server: Counting, tmp_path: Path
) -> None:
    whole = await optimize(
        make(home=str(tmp_path / "whole")), wanted(optimizer=search(), concurrency=1, test=rows(9, 1000))
    )
    total = sum(server.asked.values())
    server.asked.clear()
    server.default = slow(0.002)
    what = wanted(optimizer=search(), concurrency=1, test=rows(9, 1000), run_id=new_id())
    draw = random.Random(3)
    app = make(home=str(tmp_path / "cut"))
    for mark in sorted(draw.randint(1, total - 1) for _ in range(10)):
        await cut_short(app, what, mark, server)
    ended: Optimized = await optimize(app, what)
    assert ended.report == whole.report
    assert sum(count - 1 for count in server.asked.values()) <= 10
    assert sum(server.asked.values()) <= ended.calls <= 200


PROGRAM = '''\
from typing import Literal

from kaizen import Signature, context


class Desk(Signature):
    """Name the team."""

    message: str = context.input("what the customer wrote")
    team: Literal["red", "green", "blue", "none"] = context.output("the team")
'''


@pytest.fixture
def folder(server: Counting, tmp_path: Path) -> Path:
    (tmp_path / "desk.py").write_text(PROGRAM)
    for name, some in (("train", rows(18)), ("val", rows(12, 100))):
        text = "".join(json.dumps({**row.inputs, **row.outputs}) + "\n" for row in some)
        (tmp_path / f"{name}.jsonl").write_text(text)
    (tmp_path / "kaizen.toml").write_text(
        f'model = "mine/m"\n[providers.mine]\nkind = "openai"\nbase_url = "{server.base_url}"\napi_key = "none"\n'
    )
    return tmp_path


def started(folder: Path, *words: str) -> subprocess.Popen[str]:
    files = ["--train", "train.jsonl", "--val", "val.jsonl", "--optimizer", "reflective", "--concurrency", "1"]
    command = [sys.executable, "-m", "kaizen", "optimize", "desk.py:Desk", *files, "--budget", "90", "--json", *words]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, cwd=folder, stdout=pipe, stderr=pipe, text=True)


def test_a_killed_process_is_resumed_and_a_second_one_is_refused(server: Counting, folder: Path) -> None:
    server.default = slow(0.02)
    with started(folder) as process:
        assert process.stderr is not None
        run = process.stderr.readline().split()[1].rstrip(":")
        with started(folder, "--resume", run) as second:
            assert "another process works on run" in second.communicate()[1]
            assert second.returncode == 7
        asyncio.run(server.until(lambda: sum(server.asked.values()) >= 20, within=30))
        process.kill()
    server.default = slow(0.0)
    with started(folder, "--resume", run) as process:
        out, err = process.communicate()
    said = json.loads(out)
    assert said["improved"], err
    assert sum(count - 1 for count in server.asked.values()) <= 1
    assert sum(server.asked.values()) <= said["calls"] <= 90
