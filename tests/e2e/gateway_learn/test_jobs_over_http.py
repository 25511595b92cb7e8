"""Evaluations, searches, experiments, loops and the queue over HTTP: what reached the model, and what is kept."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from kaizen.core.scope import LOCAL
from kaizen.learn.data.rows import line_of
from kaizen.ledger.ledger import Ledger
from kaizen.serve.http.learn.queue import contents_of
from kaizen.stores.memory import MemoryStore
from kaizen.testing.fault_server import FaultServer, slow
from kaizen.testing.store_suite import make_record
from tests.desk import by_body, rows
from tests.e2e.gateway.conftest import Running
from tests.e2e.gateway_learn.conftest import ADMIN, NAME, PROGRAMS, ask, ended

RULES = "Name it. refund means red. parcel means blue. password means green. crash means red. invoice means blue."


def lines(count: int, start: int = 0) -> list[dict[str, Any]]:
    return [line_of(row) for row in rows(count, start)]


def put(here: Running, key: str, instructions: str = RULES) -> Any:
    return ask(here, "POST", "registry", key, {"name": NAME, "params": {"instructions": instructions}}).json


def begin(here: Running, key: str, what: str, body: Any) -> str:
    begun = ask(here, "POST", what, key, {"program": "Desk", **body})
    assert begun.status == 202, begun.body
    assert begun.json["state"] == "running"
    return begun.json["id"]


def test_an_evaluation_is_a_job_whose_figures_are_those_of_the_command(here: Running, upstream: FaultServer) -> None:
    admin, other = here.key(scopes=ADMIN), here.key("other", scopes=ADMIN)
    put(here, admin)
    plan = {"data": {"rows": lines(12)}, "version": "1", "compare": "base"}
    job_id = begin(here, admin, "evaluations", plan)
    assert ask(here, "GET", f"jobs/{job_id}", other).status == 404
    assert ask(here, "DELETE", f"jobs/{job_id}", other).status == 404
    job = ended(here, admin, job_id)
    assert (job["state"], job["error"], job["kind"], job["program"]) == ("done", None, "evaluation", NAME)
    result = job["result"]
    assert (result["score"], result["n"], result["calls"]) == (pytest.approx(10 / 12), 12, 12)
    assert result["low"] < 10 / 12 < result["high"]
    assert (result["compared"]["score"], result["compared"]["gain"]["better"]) == (0.0, 10)
    assert len(upstream.calls) == 24
    last = job["events"][-1]
    assert (last["done"], last["total"], last["failed"]) == (24, 24, 0)
    assert ask(here, "GET", f"jobs/{job_id}?after={last['n']}", admin).json["events"] == []
    assert [one["id"] for one in ask(here, "GET", "jobs?kind=evaluation", admin).json["jobs"]] == [job_id]
    assert ask(here, "GET", "jobs?kind=optimization", admin).json == {"jobs": []}
    assert ask(here, "GET", "jobs", other).json == {"jobs": []}
    # it is a run like any other, and its report is in the registry beside those of the command line
    assert {record.run_id for record in here.records() if record.ref == NAME} == {job_id}
    listed = ask(here, "GET", "evaluations?program=Desk", admin).json["evaluations"]
    assert [(one["score"], one["run_id"]) for one in listed] == [(pytest.approx(10 / 12), job_id), (0.0, job_id)]
    whole = ask(here, "GET", f"evaluations/Desk/{listed[0]['number']}", admin).json
    assert sorted(row["score"] for row in whole["rows"]) == [0.0] * 2 + [1.0] * 10
    assert whole["of"] == [f"params/{NAME}@{ask(here, 'GET', f'registry/params/{NAME}/1', admin).json['version']}"]
    diff = ask(here, "GET", "registry/diff?name=Desk&old=base&new=1", admin).json
    assert diff["scores"][0]["new"]["score"] == pytest.approx(10 / 12)
    assert ask(here, "GET", "evaluations", other).json == {"evaluations": []}
    assert ask(here, "GET", "evaluations/Desk/1", other).status == 404


def test_a_search_tells_its_best_so_far_and_its_candidates(here: Running, upstream: FaultServer) -> None:
    admin, other = here.key(scopes=ADMIN), here.key("other", scopes=ADMIN)
    plan = {
        "train": {"rows": lines(18)},
        "val": {"rows": lines(12, 100)},
        "test": {"rows": lines(12, 200)},
        "optimizer": "reflective",
        "calls": 150,
        "release": True,
    }
    job = ended(here, admin, begin(here, admin, "optimizations", plan))
    assert (job["state"], job["error"]) == ("done", None)
    result = job["result"]
    assert result["improved"]
    assert result["released"]
    assert result["versions"] == {NAME: 1}
    assert (result["before"], result["on"]) == (0.0, "test")
    assert result["after"] > 0.5
    assert len(upstream.calls) == result["calls"] <= 150
    best = [event["best"] for event in job["events"] if event.get("best") is not None]
    assert best == sorted(best)
    assert best[-1] > best[0]
    assert job["events"][0]["what"] == "begun"
    tried = ask(here, "GET", f"candidates?program=Desk&run={job['id']}", admin).json["candidates"]
    assert len(tried) >= 2
    assert any(one["front"] for one in tried)
    assert {one["run"] for one in tried} == {job["id"]}
    assert ask(here, "GET", "candidates?program=Desk&run=x", admin).json == {"candidates": []}
    assert ask(here, "GET", "candidates?program=Desk", other).json == {"candidates": []}
    answer = ask(here, "POST", f"programs/{NAME}", admin, {"message": "my refund"})
    assert answer.json["outputs"] == {"team": "red"}


def test_a_search_is_stopped_and_gone_on_with_and_pays_nothing_twice(here: Running, upstream: FaultServer) -> None:
    admin, other = here.key(scopes=ADMIN), here.key("other", scopes=ADMIN)
    upstream.default = slow(0.1)
    plan = {"train": {"rows": lines(18)}, "val": {"rows": lines(12, 100)}, "optimizer": "reflective", "calls": 120}
    plan |= {"concurrency": 1}
    job_id = begin(here, admin, "optimizations", plan)
    end = time.monotonic() + 20
    while len(upstream.calls) < 8:
        assert time.monotonic() < end
        time.sleep(0.02)
    again = ask(here, "POST", "optimizations", admin, {"program": "Desk", **plan, "resume": job_id})
    assert again.status == 409  # it runs
    assert ask(here, "DELETE", f"jobs/{job_id}", other).status == 404
    assert ask(here, "DELETE", f"jobs/{job_id}", admin).status == 202
    assert ended(here, admin, job_id)["state"] == "stopped"
    time.sleep(0.3)
    paid = len(upstream.calls)
    time.sleep(0.3)
    assert len(upstream.calls) == paid
    upstream.default = slow(0.0)
    assert ask(here, "POST", "optimizations", other, {"program": "Desk", **plan, "resume": job_id}).status == 404
    assert begin(here, admin, "optimizations", {**plan, "resume": job_id}) == job_id
    job = ended(here, admin, job_id)
    assert (job["state"], job["error"]) == ("done", None)
    # one that was taken from the budget when the stop came may not have left: it stays taken
    assert len(upstream.calls) <= job["result"]["calls"] <= min(120, len(upstream.calls) + 1)
    bodies = [call.body for call in upstream.calls]
    assert len(bodies) - len(set(bodies)) <= 1  # the one that was in the air
    assert (
        ask(here, "POST", "evaluations", admin, {"program": "Desk", "data": plan["val"], "resume": job_id}).status
        == 409
    )


@pytest.mark.parametrize(
    ("what", "body", "status"),
    [
        ("evaluations", {"data": {}}, 400),
        ("evaluations", {"data": {"rows": []}}, 400),
        ("evaluations", {"data": {"rows": [{"message": "x"}]}}, 422),
        ("evaluations", {"data": {"rows": [{"message": "x", "team": "purple"}]}}, 422),
        ("evaluations", {"data": {"dataset": "nobody"}}, 404),
        ("evaluations", {"data": {"rows": [{"message": "x", "team": "red"}]}, "metric": "truth"}, 422),
        ("evaluations", {"data": {"rows": [{"message": "x", "team": "red"}]}, "metric": "x.py:X"}, 422),
        ("evaluations", {"data": {"rows": [{"message": "x", "team": "red"}]}, "version": "7"}, 404),
        ("evaluations", {"data": {"rows": [{"message": "x", "team": "red"}]}, "calls": 0}, 400),
        ("evaluations", {"data": {"rows": [{"message": "x", "team": "red"}]}, "program": "Nobody"}, 404),
        ("evaluations", {"data": {"rows": [{"message": "x", "team": "red"}]}, "resume": "0" * 36}, 404),
        ("optimizations", {"train": {"rows": [{"message": "x", "team": "red"}]}}, 422),
        ("optimizations", {"train": {"rows": [{"message": "x", "team": "red"}]}, "optimizer": "magic"}, 422),
        ("optimizations", {"train": {"rows": [{"message": "x", "team": "red"}]}, "metric": "judge:mine/large"}, 403),
        ("optimizations", {"train": {"rows": [{"message": "x", "team": "red"}]}, "teacher": "large"}, 400),
    ],
)
def test_what_can_t_be_a_job_is_refused_at_once(
    here: Running, upstream: FaultServer, what: str, body: Any, status: int
) -> None:
    admin = here.key(scopes=ADMIN)
    answer = ask(here, "POST", what, admin, {"program": "Desk", **body})
    assert answer.status == status, answer.body
    assert ask(here, "GET", "jobs", admin).json == {"jobs": []}
    assert not upstream.calls


def test_rows_that_were_put_aside_for_a_test_are_not_learned_from(here: Running, upstream: FaultServer) -> None:
    admin = here.key(scopes=ADMIN)
    body = {"rows": [{"inputs": row.inputs, "outputs": row.outputs} for row in rows(4)], "about": {"part": "test"}}
    assert ask(here, "POST", "registry", admin, {"kind": "dataset", "name": "desk/test", "body": body}).status == 201
    plan = {"program": "Desk", "train": {"rows": lines(12)}}
    refused = ask(here, "POST", "optimizations", admin, plan)
    assert (refused.status, "kept for testing" in refused.json["error"]["message"]) == (403, True)
    job = ended(here, admin, begin(here, admin, "evaluations", {"data": {"dataset": "desk/test@1"}}))
    assert (job["result"]["n"], len(upstream.calls)) == (4, 4)


def test_a_job_that_fails_says_why_and_tenants_have_a_limit(here: Running, upstream: FaultServer) -> None:
    admin, other = here.key(scopes=ADMIN), here.key("other", scopes=ADMIN)
    data = {"data": {"rows": lines(6)}, "concurrency": 1}
    failed = ended(here, admin, begin(here, admin, "evaluations", {**data, "calls": 2}))
    assert (failed["state"], failed["error"]["code"]) == ("failed", "budget_exceeded")
    upstream.default = slow(5.0)
    jobs = [begin(here, admin, "evaluations", {"data": {"rows": lines(6, n * 10)}}) for n in range(1, 5)]
    refused = ask(here, "POST", "evaluations", admin, {"program": "Desk", **data})
    assert (refused.status, refused.json["error"]["code"]) == (429, "limit_reached")
    assert int(refused.headers["retry-after"]) >= 1
    assert begin(here, other, "evaluations", data)
    for job_id in jobs:
        assert ask(here, "DELETE", f"jobs/{job_id}", admin).status == 202
    assert {ended(here, admin, job_id)["state"] for job_id in jobs} == {"stopped"}


def test_experiments_split_what_callers_get_and_are_stopped_by_hand(here: Running) -> None:
    admin, other, caller = here.key(scopes=ADMIN), here.key("other", scopes=ADMIN), here.key()
    put(here, admin)
    new = {"program": "Desk", "arms": [{"version": "prod", "weight": 0.5}, {"version": "1", "weight": 0.5}]}
    begun = ask(here, "POST", "experiments", admin, {**new, "rule": {"effect": 0.02}, "reason": "is it better"})
    assert begun.status == 201, begun.body
    assert (begun.json["state"], begun.json["program"], begun.json["number"]) == ("running", NAME, 1)
    assert begun.json["rule"]["effect"] == 0.02
    assert ask(here, "POST", "experiments", admin, new).status == 409
    got: set[str] = set()
    for n in range(12):
        answer = ask(here, "POST", f"programs/{NAME}?subject=s{n}", caller, {"message": "my refund"}).json
        got.add(answer["outputs"]["team"])
        word = {"score": float(answer["outputs"]["team"] == "red")}
        assert ask(here, "POST", f"records/{answer['record']}/score", caller, word).status == 201
    assert got == {"red", "none"}
    judged = ask(here, "POST", "experiments/Desk/judge", admin).json
    assert judged["state"] == "running"  # a dozen subjects say nothing yet
    assert sum(arm["calls"] for arm in judged["arms"]) == 12
    shown = ask(here, "GET", "experiments/Desk", admin).json
    assert [arm["calls"] for arm in shown["arms"]] == [arm["calls"] for arm in judged["arms"]]
    assert ask(here, "GET", "experiments", other).json == {"experiments": []}
    assert ask(here, "GET", f"experiments/{NAME}", other).status == 404
    assert ask(here, "POST", f"experiments/{NAME}/stop", other, {}).status == 404
    ended_by_hand = ask(here, "POST", "experiments/Desk/stop", admin, {"reason": "enough"})
    assert (ended_by_hand.json["state"], "enough" in ended_by_hand.json["reason"]) == ("stopped", True)
    assert ask(here, "POST", "experiments/Desk/judge", admin).json["state"] == "stopped"
    assert ask(here, "POST", "experiments/Desk/stop", admin, {}).status == 404
    assert [one["state"] for one in ask(here, "GET", "experiments", admin).json["experiments"]] == ["stopped"]
    teams = {
        ask(here, "POST", f"programs/{NAME}?subject=s{n}", caller, {"message": "my refund"}).json["outputs"]["team"]
        for n in range(6)
    }
    assert teams == {"none"}  # the control has the label back


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"arms": [{"version": "base", "weight": 0.5}]}, 400),
        ({"arms": [{"version": "base", "weight": 0.5}, {"version": "base", "weight": 0.5}]}, 422),
        ({"arms": [{"version": "base", "weight": 0.5}, {"version": "1", "weight": 0.4}]}, 422),
        ({"arms": [{"version": "base", "weight": 0.5}, {"version": "9", "weight": 0.5}]}, 404),
        ({"arms": [{"version": "base", "weight": 0.5}, {"version": "1", "weight": 0.5}], "rule": {"least": 5}}, 400),
        (
            {
                "arms": [{"version": "base", "weight": 0.5}, {"version": "1", "weight": 0.5}],
                "rule": {"guards": [{"quantity": "latency", "margin": 0.5}]},
            },
            422,
        ),
    ],
)
def test_what_is_no_experiment_is_refused(here: Running, body: Any, status: int) -> None:
    admin = here.key(scopes=ADMIN)
    put(here, admin)
    assert ask(here, "POST", "experiments", admin, {"program": "Desk", **body}).status == status
    assert ask(here, "GET", "experiments", admin).json == {"experiments": []}


def test_a_version_of_another_contract_is_no_arm(gateway: Any) -> None:
    before = gateway()  # serves no program, so it can't tell
    admin = before.key(scopes=ADMIN)
    other = {"name": NAME, "params": {"instructions": "Name it.", "contract": "f" * 32}}
    assert ask(before, "POST", "registry", admin, other).status == 201
    before.stop()
    here = gateway(programs=PROGRAMS)
    arms = [{"version": "base", "weight": 0.5}, {"version": "1", "weight": 0.5}]
    refused = ask(here, "POST", "experiments", admin, {"program": "Desk", "arms": arms})
    assert refused.status == 409
    assert "another contract" in refused.json["error"]["message"]
    assert ask(here, "GET", "experiments", admin).json == {"experiments": []}


def test_loops_are_begun_looked_at_and_told_what_to_do(here: Running) -> None:
    admin, other = here.key(scopes=ADMIN), here.key("other", scopes=ADMIN)
    new = {"program": "Desk", "data": {"rows": lines(20)}, "floor": 0.8, "usd_per_day": 0.5, "asks": "always"}
    begun = ask(here, "POST", "loops", admin, new)
    assert begun.status == 201, begun.body
    assert (begun.json["target"], begun.json["watch"]["floor"]) == ("tests/desk.py:Desk", 0.8)
    status = ask(here, "GET", "loops/Desk", admin).json
    assert (status["state"], status["scores"], status["waiting"]) == ("on", 0, None)
    assert ask(here, "GET", "loops/Desk/history", admin).json == {"steps": []}
    assert ask(here, "POST", "loops/Desk/approve", admin, {}).status == 404  # nothing waits
    assert ask(here, "POST", "loops/Desk/pause", admin, {"reason": "holidays"}).json["state"] == "paused"
    assert [one["state"] for one in ask(here, "GET", "loops", admin).json["loops"]] == ["paused"]
    assert ask(here, "POST", "loops/Desk/resume", admin, {}).json["state"] == "on"
    assert ask(here, "POST", "loops/Desk/forget", admin, {}).status == 400
    assert ask(here, "GET", "loops", other).json == {"loops": []}
    for method, path in (("GET", f"loops/{NAME}"), ("POST", f"loops/{NAME}/stop")):
        assert ask(here, method, path, other, {}).status == 404
    assert ask(here, "GET", "loops/Desk", admin).json["state"] == "on"
    assert ask(here, "POST", "loops/Desk/stop", admin, {}).json["state"] == "stopped"
    for wrong, status in (
        ({"optimizer": "magic"}, 422),
        ({"metric": "truth"}, 422),
        ({"floor": 2}, 400),
        ({"rule": {"guards": [{"quantity": "errors", "margin": 5}]}}, 422),
        ({"metric": "judge:up/judge"}, 403),  # its agreement with people was not measured
        ({"optimizer": "tuning"}, 422),
        ({"optimizer": "tuning", "tunables": [{"name": "warmth", "low": 0, "high": 1}]}, 422),
    ):
        refused = ask(here, "POST", "loops", admin, {**new, **wrong})
        assert refused.status == status, (wrong, refused.body)
    tuned = {"optimizer": "tuning", "tunables": [{"name": "repairs", "low": 0, "high": 3}]}
    begun = ask(here, "POST", "loops", admin, {**new, **tuned})
    assert begun.status == 201, begun.body
    assert begun.json["tunables"] == [{"name": "repairs", "low": 0, "high": 3, "choices": []}]


def test_the_queue_holds_what_nobody_has_scored_oldest_first(here: Running) -> None:
    admin, other, caller = here.key(scopes=ADMIN), here.key("other", scopes=ADMIN), here.key()
    for n in range(4):
        key = caller if n % 2 else admin
        assert ask(here, "POST", f"programs/{NAME}", key, {"message": f"no. {n}"}).status == 200
    job = ended(here, admin, begin(here, admin, "evaluations", {"data": {"rows": lines(3)}}))
    assert job["state"] == "done"  # what a test asked is nobody's to score
    waiting = ask(here, "GET", "queue", admin).json
    assert [one["input"] for one in waiting["records"]] == [{"message": f"no. {n}"} for n in range(4)]
    assert waiting["records"][0]["output"] == {"team": "none"}
    assert waiting["more"] is False
    assert [one["input"]["message"] for one in ask(here, "GET", "queue", caller).json["records"]] == ["no. 1", "no. 3"]
    assert ask(here, "GET", "queue", other).json["records"] == []
    assert ask(here, "GET", "queue", None).status == 401
    first = waiting["records"][0]["id"]
    word = {"correct": {"team": "blue"}, "comment": "about a parcel"}
    assert ask(here, "POST", f"records/{first}/score", admin, word).status == 201
    rest = ask(here, "GET", "queue?limit=2", admin).json
    assert ([one["input"]["message"] for one in rest["records"]], rest["more"]) == (["no. 1", "no. 2"], True)
    rest = ask(here, "GET", f"queue?limit=2&after={rest['after']}", admin).json
    assert ([one["input"]["message"] for one in rest["records"]], rest["more"]) == (["no. 3"], False)
    assert ask(here, "GET", f"queue?program={NAME}", admin).json["records"]
    assert ask(here, "GET", "queue?program=nobody.X", admin).json["records"] == []
    assert ask(here, "GET", "queue?limit=1000", admin).status == 400


def test_the_queue_goes_on_past_what_is_scored_or_others_however_much_that_is(
    here: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kaizen.serve.http.learn.queue._READ", 3)
    admin, caller = here.key(scopes=ADMIN), here.key()
    for n in range(8):
        assert ask(here, "POST", f"programs/{NAME}", caller if n == 6 else admin, {"message": f"no. {n}"}).status == 200
    seen, after, asked = list[str](), "", 0
    while after is not None:
        page = ask(here, "GET", f"queue?after={after}", caller).json
        assert page["more"] is (page["after"] is not None)
        seen += [one["input"]["message"] for one in page["records"]]
        after, asked = page["after"], asked + 1
    assert (seen, asked) == (["no. 6"], 3)


def test_contents_that_are_long_or_no_json_are_shown_as_far_as_they_go(here: Running) -> None:
    admin = here.key(scopes=ADMIN)
    assert ask(here, "POST", f"programs/{NAME}", admin, {"message": "x" * 100_000}).status == 200
    [waiting] = ask(here, "GET", "queue", admin).json["records"]
    assert waiting["input"].endswith(" bytes)")
    assert len(waiting["input"]) < 70_000


async def test_contents_of_other_applications_need_not_be_json() -> None:
    ledger = Ledger(MemoryStore(), bytes(32))
    payload = ledger.seal(LOCAL, b"no JSON \xff")
    record = make_record(scope=LOCAL, input_digest=payload.digest, output_digest=None)
    await ledger.append(LOCAL, [record], [payload])
    assert await contents_of(ledger, record) == {"input": "no JSON \N{REPLACEMENT CHARACTER}", "output": None}


def test_jobs_outlive_their_gateway_as_lost_or_stopped(gateway: Callable[..., Running], upstream: FaultServer) -> None:
    upstream.reply, upstream.default = by_body, slow(0.5)
    here = gateway(programs=PROGRAMS)
    admin = here.key(scopes=ADMIN)
    job_id = begin(here, admin, "evaluations", {"data": {"rows": lines(12)}, "concurrency": 1})
    time.sleep(0.6)
    here.stop()
    upstream.default = slow(0.0)
    again = gateway(programs=PROGRAMS)
    assert ask(again, "GET", f"jobs/{job_id}", admin).json["state"] == "stopped"
    asked = len(upstream.calls)
    assert 0 < asked < 12
    begin(again, admin, "evaluations", {"data": {"rows": lines(12)}, "concurrency": 1, "resume": job_id})
    job = ended(again, admin, job_id)
    assert (job["state"], job["result"]["n"]) == ("done", 12)
    assert len(upstream.calls) <= 12 + 1
