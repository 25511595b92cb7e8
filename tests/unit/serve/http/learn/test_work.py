"""Jobs: told of in files that every worker reads, stopped by any of them, never another tenant's."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kaizen.core.errors import BudgetExceeded, Conflict, LimitReached, NotFound
from kaizen.core.ids import new_id
from kaizen.core.scope import Scope
from kaizen.serve.http.learn.work import Job, Jobs, Told

ACME, OTHER = Scope("acme", "prod"), Scope("acme", "test")


@pytest.fixture
def jobs(tmp_path: Path) -> Iterator[Jobs]:
    made = Jobs(tmp_path / "jobs")
    yield made
    made.close()


def job(**more: Any) -> Job:
    return Job(id=new_id(), kind="evaluation", program="bank.Triage", **more)


async def quick(tell: Told) -> Mapping[str, Any]:
    tell({"done": 1})
    return {"score": 0.5}


async def endless(tell: Told) -> Mapping[str, Any]:
    await asyncio.sleep(60)
    return {}


def until(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + 10
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.01)


def over(jobs: Jobs, job_id: str, scope: Scope = ACME) -> Job:
    until(lambda: jobs.get(scope, job_id).state != "running")
    return jobs.get(scope, job_id)


def test_a_job_tells_what_it_does_and_ends_with_its_result(jobs: Jobs) -> None:
    begun = jobs.begin(ACME, job(by="key:1"), quick)
    assert (begun.state, begun.by) == ("running", "key:1")
    done = over(jobs, begun.id)
    assert (done.state, done.result, done.error) == ("done", {"score": 0.5}, None)
    assert [(event["n"], event["done"]) for event in done.events] == [(1, 1)]
    assert (len(done.shown()["events"]), done.shown(1)["events"]) == (1, [])
    assert done.ended is not None
    assert done.ended >= done.begun


def test_other_workers_read_the_file_and_another_tenant_finds_nothing(jobs: Jobs, tmp_path: Path) -> None:
    begun = jobs.begin(ACME, job(), quick)
    over(jobs, begun.id)
    jobs.close()
    elsewhere = Jobs(tmp_path / "jobs")
    assert elsewhere.get(ACME, begun.id) == replace(jobs.get(ACME, begun.id))
    assert [one.id for one in elsewhere.list(ACME)] == [begun.id]
    assert elsewhere.list(OTHER) == []
    for scope, job_id in ((OTHER, begun.id), (ACME, new_id()), (ACME, "../../x"), (ACME, "")):
        with pytest.raises(NotFound):
            elsewhere.get(scope, job_id)
        with pytest.raises(NotFound):
            elsewhere.stop(scope, job_id)
    [file] = (tmp_path / "jobs").rglob("*.json")
    assert file.parent.stat().st_mode & 0o77 == 0


async def test_any_worker_stops_a_job(tmp_path: Path) -> None:
    here, elsewhere = Jobs(tmp_path), Jobs(tmp_path)
    watching = asyncio.ensure_future(here.watch())
    begun = here.begin(ACME, job(), endless)
    assert elsewhere.stop(ACME, begun.id).state == "running"
    await asyncio.to_thread(over, here, begun.id)
    await asyncio.to_thread(over, elsewhere, begun.id)
    assert elsewhere.get(ACME, begun.id).state == "stopped"
    assert elsewhere.stop(ACME, begun.id).state == "stopped"  # it stays as it is
    second = here.begin(ACME, job(), endless)
    assert here.stop(ACME, second.id).id == second.id
    await asyncio.to_thread(over, here, second.id)
    third = here.begin(ACME, job(), endless)
    watching.cancel()
    with pytest.raises(asyncio.CancelledError):
        await watching
    assert elsewhere.get(ACME, third.id).state == "stopped"  # the gateway ended


async def test_a_disk_that_is_full_for_a_while_ends_no_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("kaizen.serve.http.learn.work._TICK_S", 0.01)
    here = Jobs(tmp_path / "jobs")
    watching = asyncio.ensure_future(here.watch())
    full = [True]
    write = Path.write_bytes

    def fails(path: Path, data: bytes) -> int:
        if full[0] and path.suffix == ".part":
            raise OSError(28, "No space left on device")
        return write(path, data)

    begun = here.begin(ACME, job(), endless)
    monkeypatch.setattr(Path, "write_bytes", fails)
    here._working[ACME, begun.id].tell({"done": 1})
    await asyncio.sleep(0.1)
    assert not watching.done()
    assert here.get(ACME, begun.id).state == "running"
    assert len([one for one in caplog.records if "can't be written" in one.message]) == 1
    full[0] = False
    await asyncio.sleep(0.1)
    assert Jobs(tmp_path / "jobs").get(ACME, begun.id).events
    watching.cancel()
    await asyncio.gather(watching, return_exceptions=True)


def test_a_job_that_can_not_be_written_holds_up_no_other(
    jobs: Jobs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def odd(tell: Told) -> Mapping[str, Any]:
        return {"score": object()}

    made = [jobs.begin(ACME, job(), work) for work in (odd, quick)]
    for one in made:
        over(jobs, one.id)
    with pytest.raises(ValueError, match="serialize"):
        jobs._tick()
    elsewhere = Jobs(tmp_path / "jobs")
    assert [elsewhere.get(ACME, one.id).state for one in made] == ["running", "done"]
    monkeypatch.setattr("kaizen.serve.http.learn.work.to_json", lambda *_, **__: b"{}")
    jobs._tick()  # what was not written before is written then
    assert jobs._working == {}


async def test_whatever_fails_as_jobs_are_written_the_watch_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("kaizen.serve.http.learn.work._TICK_S", 0.01)
    here = Jobs(tmp_path / "jobs")
    watching = asyncio.ensure_future(here.watch())
    begun = here.begin(ACME, job(), endless)
    here._working[ACME, begun.id].tell({"done": object()})
    await asyncio.sleep(0.1)
    assert not watching.done()
    assert len([one for one in caplog.records if "can't be written" in one.message]) == 1
    assert here.get(ACME, begun.id).state == "running"
    here.stop(ACME, begun.id)
    await asyncio.to_thread(over, here, begun.id)
    watching.cancel()
    await asyncio.gather(watching, return_exceptions=True)


def test_a_job_whose_loop_closes_as_it_is_stopped_is_over(jobs: Jobs, monkeypatch: pytest.MonkeyPatch) -> None:
    begun = jobs.begin(ACME, job(), quick)
    over(jobs, begun.id)
    working = jobs._working[ACME, begun.id]
    assert working.loop is not None
    assert working.thread is not None
    working.thread.join(10)
    monkeypatch.setattr(working.loop, "is_closed", lambda: False)  # as it was a moment ago
    with pytest.raises(RuntimeError, match="closed"):
        working.loop.call_soon_threadsafe(print)
    working.stop()


def test_a_job_that_fails_says_why_and_no_more(jobs: Jobs, caplog: pytest.LogCaptureFixture) -> None:
    async def spent(tell: Told) -> Mapping[str, Any]:
        raise BudgetExceeded("all calls are used")

    async def broken(tell: Told) -> Mapping[str, Any]:
        raise RuntimeError("a path that is nobody else's, secret")

    ends = [over(jobs, jobs.begin(ACME, job(), work).id) for work in (spent, broken)]
    assert [one.state for one in ends] == ["failed", "failed"]
    assert ends[0].error == {"code": "budget_exceeded", "message": "all calls are used"}
    assert ends[1].error == {"code": "internal_error", "message": "the gateway failed; its log says more"}
    assert "secret" in caplog.text


def test_a_job_is_gone_on_with_where_it_was_the_same(jobs: Jobs) -> None:
    first = jobs.begin(ACME, job(), quick)
    over(jobs, first.id)
    again = jobs.begin(ACME, replace(first, result=None), quick, resume=True)
    assert over(jobs, again.id).events[-1]["n"] == 2
    with pytest.raises(Conflict, match="was an evaluation"):
        jobs.begin(ACME, replace(first, kind="optimization"), quick, resume=True)
    with pytest.raises(NotFound):
        jobs.begin(OTHER, first, quick, resume=True)
    running = jobs.begin(ACME, job(), endless)
    with pytest.raises(Conflict, match="runs"):
        jobs.begin(ACME, running, endless, resume=True)


def test_a_tenant_has_so_many_at_once(jobs: Jobs) -> None:
    begun = [jobs.begin(ACME, job(), endless) for _ in range(4)]
    with pytest.raises(LimitReached, match="4 jobs"):
        jobs.begin(ACME, job(), endless)
    jobs.begin(OTHER, job(), quick)
    jobs.stop(ACME, begun[0].id)
    over(jobs, begun[0].id)
    jobs.begin(ACME, job(), quick)


def test_one_that_is_stopped_before_it_runs_does_not_run(jobs: Jobs, monkeypatch: pytest.MonkeyPatch) -> None:
    waits = threading.Event()
    real = asyncio.run

    def late(work: Any) -> Any:
        waits.wait(10)
        return real(work)

    monkeypatch.setattr(asyncio, "run", late)
    begun = jobs.begin(ACME, job(), endless)
    jobs.stop(ACME, begun.id)
    waits.set()
    assert over(jobs, begun.id).state == "stopped"


def test_a_job_whose_process_is_gone_is_lost(jobs: Jobs, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    begun = jobs.begin(ACME, job(), quick)
    over(jobs, begun.id)
    jobs.close()
    [file] = (tmp_path / "jobs").rglob("*.json")
    text = file.read_text().replace('"state":"done"', '"state":"running"')
    file.write_text(text)
    assert jobs.get(ACME, begun.id).state == "running"  # a moment ago it was alive
    seen = jobs.get(ACME, begun.id).seen
    file.write_text(text.replace(f'"seen":{seen!r}', f'"seen":{seen - 60!r}'))
    assert jobs.get(ACME, begun.id).state == "lost"
    jobs.begin(ACME, begun, quick, resume=True)
    over(jobs, begun.id)
    jobs.close()
    file.write_text("{")
    assert jobs.list(ACME) == []
    assert "is no job's file" in caplog.text


def test_of_many_events_the_older_are_thinned_out_and_of_many_jobs_the_oldest_go(
    jobs: Jobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def chatty(tell: Told) -> Mapping[str, Any]:
        for n in range(1000):
            tell({"used": n})
        return {}

    events = over(jobs, jobs.begin(ACME, job(), chatty).id).events
    assert len(events) <= 400
    assert [event["n"] for event in events] == sorted(event["n"] for event in events)
    assert events[-1]["used"] == 999
    monkeypatch.setattr("kaizen.serve.http.learn.work._KEPT", 3)
    made = [over(jobs, jobs.begin(ACME, job(), quick).id) for _ in range(5)]
    jobs.close()
    assert [one.id for one in jobs.list(ACME)] == [one.id for one in made[:-4:-1]]


async def test_a_running_job_is_known_to_be_alive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kaizen.serve.http.learn.work._TICK_S", 0.01)
    monkeypatch.setattr("kaizen.serve.http.learn.work._LOST_S", 0.03)
    here, elsewhere = Jobs(tmp_path), Jobs(tmp_path)
    watching = asyncio.ensure_future(here.watch())
    begun = here.begin(ACME, job(), endless)
    first = elsewhere.get(ACME, begun.id).seen
    await asyncio.to_thread(until, lambda: elsewhere.get(ACME, begun.id).seen > first)
    watching.cancel()
    await asyncio.gather(watching, return_exceptions=True)
