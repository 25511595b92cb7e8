"""What takes longer than a request: evaluations and searches, each in a thread of its own, told of in a file.

A thread with a loop of its own, since a search computes for a while between its calls, and other callers wait for the
gateway's loop. A file, so that every worker can say how a job stands and stop it; what it paid for is in the ledger.
"""

from __future__ import annotations

import asyncio
import logging
import re
import threading
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

from pydantic import TypeAdapter, ValidationError
from pydantic_core import to_json

from kaizen.core.errors import Conflict, LimitReached, NotFound
from kaizen.core.ids import digest
from kaizen.core.scope import Scope
from kaizen.serve.http.problem import problem_of

_logger = logging.getLogger(__name__)

Kind: TypeAlias = Literal["evaluation", "optimization"]
State: TypeAlias = Literal["running", "done", "failed", "stopped", "lost"]
Told: TypeAlias = Callable[[Mapping[str, Any]], None]
Work: TypeAlias = Callable[[Told], Coroutine[Any, Any, Mapping[str, Any]]]

_ID: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_TICK_S: Final = 0.5
_LOST_S: Final = 30.0
_EVENTS: Final = 400
_KEPT: Final = 200
_RUNNING: Final = 4
_ENDING_S: Final = 8.0
_BUSY_S: Final = 15.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A job as it stands. Times are Unix seconds.

    Args:
        id: of it, and of the run that it is.
        kind: what it does.
        program: the name of the program that it is about.
        state: ``lost`` where its process is gone: it can be gone on with.
        by: who asked for it.
        begun, ended: when.
        seen: when its process was last alive.
        events: what it told, each with its number ``n`` and ``at``. Of many the older are thinned out.
        result: what came of it.
        error: code and message, where it failed.
    """

    id: str
    kind: Kind
    program: str
    state: State = "running"
    by: str = ""
    begun: float = 0.0
    ended: float | None = None
    seen: float = 0.0
    events: tuple[dict[str, Any], ...] = ()
    result: dict[str, Any] | None = None
    error: dict[str, Any] | None = None

    def shown(self, after: int = -1) -> dict[str, Any]:
        """As JSON-able values, with the events that came after the one of a number."""
        made = asdict(self)
        return {**made, "events": [event for event in made["events"] if event["n"] > after]}


@dataclass(slots=True)
class _Working:
    """A job of this process."""

    job: Job
    scope: Scope
    work: Work
    lock: threading.Lock = field(default_factory=threading.Lock)
    changed: bool = True
    count: int = 0
    thread: threading.Thread | None = None
    loop: asyncio.AbstractEventLoop | None = None
    task: asyncio.Task[Mapping[str, Any]] | None = None
    stopping: bool = False

    def tell(self, event: Mapping[str, Any]) -> None:
        """Add an event; from the job's own thread."""
        with self.lock:
            self.count += 1
            events = (*self.job.events, {"n": self.count, "at": time.time(), **event})
            if len(events) > _EVENTS:
                old, new = events[: _EVENTS // 2], events[_EVENTS // 2 :]
                events = (*old[::2], *new)
            self.job = replace(self.job, events=events)
            self.changed = True

    def end(self, state: State, **what: Any) -> None:
        """Say how it ended."""
        with self.lock:
            self.job = replace(self.job, state=state, ended=time.time(), **what)
            self.changed = True

    def stop(self) -> None:
        """Cancel it; from any thread."""
        with self.lock:
            self.stopping = True
            loop, task = self.loop, self.task
        if loop is not None and task is not None:
            with suppress(RuntimeError):  # it has just ended by itself, and its loop is closed
                loop.call_soon_threadsafe(task.cancel)


class Jobs:
    """The jobs of all workers of a gateway.

    Args:
        folder: where their files lie, a folder for each scope.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._working: dict[tuple[Scope, str], _Working] = {}
        self._beginning = threading.Lock()

    def begin(self, scope: Scope, job: Job, work: Work, *, resume: bool = False) -> Job:
        """Begin a job.

        Args:
            scope: whose.
            job: what it is: id, kind, program and by.
            work: does it, given where to tell of its steps; what it returns is the job's result.
            resume: whether it goes on with one that was there.

        Raises:
            Conflict: it runs already, or it was another kind of job, or about another program.
            LimitReached: so many of the tenant's run already.
            NotFound: there is none to go on with.
        """
        with self._beginning:
            return self._begin(scope, job, work, resume=resume)

    def _begin(self, scope: Scope, job: Job, work: Work, *, resume: bool) -> Job:
        known = self.list(scope)
        before = next((one for one in known if one.id == job.id), None)
        if resume:
            if before is None:
                raise NotFound(f"there is no job {job.id[:100]} to go on with")
            if before.state == "running":
                raise Conflict(f"job {job.id} runs")
            if (before.kind, before.program) != (job.kind, job.program):
                raise Conflict(f"job {job.id} was an {before.kind} of {before.program}")
        if sum(one.state == "running" for one in known) >= _RUNNING:
            said = f"{_RUNNING} jobs of this tenant run already: wait for one, or stop one"
            raise LimitReached(said, retry_after=_BUSY_S)
        self._prune(scope, known)
        now = time.time()
        events = () if before is None else before.events
        made = replace(job, state="running", begun=now, seen=now, events=events)
        working = _Working(made, scope, work, count=events[-1]["n"] if events else 0)
        self._place(scope, job.id, ".stop").unlink(missing_ok=True)
        self._write(working)
        self._working[scope, job.id] = working
        working.thread = threading.Thread(target=self._run, args=(working,), name=f"kaizen-{job.kind}", daemon=True)
        working.thread.start()
        return made

    def list(self, scope: Scope) -> Sequence[Job]:
        """A tenant's jobs, newest first."""
        read = (self._read(path) for path in self._home(scope).glob("*.json"))
        found = {one.id: one for one in read if one is not None}
        # a file may be half a second behind
        found |= {job_id: one.job for (whose, job_id), one in list(self._working.items()) if whose == scope}
        return sorted(found.values(), key=lambda one: one.id, reverse=True)

    def get(self, scope: Scope, job_id: str) -> Job:
        """One of them.

        Raises:
            NotFound: there is no such job.
        """
        working = self._working.get((scope, job_id))
        if working is not None:
            return working.job
        found = self._read(self._place(scope, job_id, ".json")) if _ID.fullmatch(job_id) else None
        if found is None:
            raise NotFound(f"there is no job {job_id[:100]!r}")
        return found

    def stop(self, scope: Scope, job_id: str) -> Job:
        """Have a job stop, whichever worker has it; one that is over stays as it is.

        Raises:
            NotFound: there is no such job.
        """
        job = self.get(scope, job_id)
        if job.state == "running":
            working = self._working.get((scope, job_id))
            if working is not None:
                working.stop()
            else:
                self._place(scope, job_id, ".stop").touch()
        return job

    async def watch(self) -> None:
        """Keep the files up to date and stop what is to be stopped; once cancelled, end all jobs.

        Where the files can't be written for a while, on a full disk, the jobs go on.
        """
        told = False
        try:
            while True:
                await asyncio.sleep(_TICK_S)
                if not self._working:
                    continue
                try:
                    await asyncio.to_thread(self._tick)
                    told = False
                except Exception as error:
                    if not told:
                        _logger.warning("what jobs are doing can't be written down: %s", error, exc_info=True)
                    told = True
        finally:
            await asyncio.to_thread(self.close)

    def close(self) -> None:
        """End this process's jobs; each can be gone on with."""
        working = list(self._working.values())
        for one in working:
            one.stop()
        end = time.monotonic() + _ENDING_S
        for one in working:
            if one.thread is not None:
                one.thread.join(max(0.0, end - time.monotonic()))
        self._tick()

    # -- inside -----------------------------------------------------------------------------------

    def _run(self, working: _Working) -> None:
        """A job's thread."""
        try:
            result = asyncio.run(self._done(working))
        except asyncio.CancelledError:
            working.end("stopped")
        except Exception as error:  # noqa: BLE001 - what a job ends with is told, never swallowed
            problem = problem_of(error)
            working.end("failed", error={"code": problem.code, "message": problem.message})
        else:
            working.end("done", result=dict(result))

    async def _done(self, working: _Working) -> Mapping[str, Any]:
        task = asyncio.ensure_future(working.work(working.tell))
        with working.lock:
            working.loop, working.task = asyncio.get_running_loop(), task
            stopping = working.stopping
        if stopping:
            task.cancel()
        return await task

    def _tick(self) -> None:
        """Look at each job; one that can't be looked at holds up no other, and its error is raised after them."""
        failed: Exception | None = None
        for key, working in list(self._working.items()):
            try:
                self._look(key, working)
            except Exception as error:  # noqa: BLE001 - raised below
                failed = error
        if failed is not None:
            raise failed

    def _look(self, key: tuple[Scope, str], working: _Working) -> None:
        """Stop a job if it is to be stopped, and write down what is new of it."""
        if self._place(*key, ".stop").exists():
            working.stop()
            self._place(*key, ".stop").unlink(missing_ok=True)
        if working.changed or time.time() - working.job.seen > _LOST_S / 3:
            self._write(working)
        if working.job.state != "running" and not working.changed:
            self._working.pop(key, None)

    def _write(self, working: _Working) -> None:
        with working.lock:
            job = working.job = replace(working.job, seen=time.time())
            working.changed = False
        path = self._place(working.scope, job.id, ".json")
        part = path.with_suffix(".part")
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            part.write_bytes(to_json(job, inf_nan_mode="null"))
            part.replace(path)
        except BaseException:
            working.changed = True  # the next look tries again
            raise

    def _read(self, path: Path) -> Job | None:
        try:
            job = _jobs.validate_json(path.read_bytes())
        except FileNotFoundError:
            return None
        except ValidationError:
            _logger.warning("%s is no job's file", path)
            return None
        lost = job.state == "running" and time.time() - job.seen > _LOST_S
        return replace(job, state="lost") if lost else job

    def _prune(self, scope: Scope, known: Sequence[Job]) -> None:
        for job in [one for one in known if one.state != "running"][_KEPT - 1 :]:
            self._working.pop((scope, job.id), None)
            self._place(scope, job.id, ".json").unlink(missing_ok=True)

    def _home(self, scope: Scope) -> Path:
        return self._folder / digest(to_json([scope.tenant, scope.environment]))

    def _place(self, scope: Scope, job_id: str, suffix: str) -> Path:
        return self._home(scope) / f"{job_id}{suffix}"


_jobs: Final = TypeAdapter(Job)
