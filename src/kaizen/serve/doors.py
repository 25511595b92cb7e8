"""What the command line needs of the floors above it, handed in by ``__main__`` so that nothing is loaded unasked."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

if TYPE_CHECKING:  # `kaizen --help` must not load pydantic
    from kaizen.core.answer import Answer
    from kaizen.core.context import Partial, Program, Run
    from kaizen.core.params import Params
    from kaizen.core.protocols import Cache, Suspended
    from kaizen.core.record import RecordQuery
    from kaizen.core.scope import Scope
    from kaizen.govern.keys import Keys
    from kaizen.inference.advise.traffic import Advice
    from kaizen.inference.compress.calibrate import Calibration
    from kaizen.learn.data.rows import Row
    from kaizen.learn.evaluate.plan import Plan, Told
    from kaizen.learn.evaluate.result import Evaluation
    from kaizen.learn.loop.loop import Loop
    from kaizen.learn.optimize.board import Event, Search
    from kaizen.learn.verdict import Report
    from kaizen.ledger.ledger import Ledger
    from kaizen.registry.registry import Registry
    from kaizen.registry.releases import Releases


class Runs(Protocol):
    """The App, as far as the command line uses it."""

    @property
    def scope(self) -> Scope:
        """Whose data it runs on."""
        ...

    @property
    def ledger(self) -> Ledger:
        """The records it keeps."""
        ...

    @property
    def cache(self) -> Cache:
        """Where its answers are kept."""
        ...

    @property
    def registry(self) -> Registry:
        """Versions and labels."""
        ...

    @property
    def releases(self) -> Releases:
        """Which versions run."""
        ...

    async def new_run(self, run_id: str | None = None, *, seconds: float | None = None) -> Run:
        """A run that is to begin."""
        ...

    async def start_run(self, run: Run, program: Program, inputs: Mapping[str, Any]) -> Answer | Suspended:
        """Begin it."""
        ...

    async def start(
        self,
        program: Program,
        inputs: Mapping[str, Any],
        *,
        emit: Callable[[Partial], None] | None = None,
        overrides: Mapping[str, Params] | None = None,
    ) -> Answer | Suspended:
        """Run a program."""
        ...

    async def close(self) -> None:
        """Finish what is in the air and let go."""
        ...


T = TypeVar("T")


async def using(app: Runs, work: Callable[[Runs], Awaitable[T]]) -> T:
    """Use an App on this loop, then have it finish and let go, however the work ended."""
    try:
        return await work(app)
    finally:
        await app.close()


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelInfo:
    """A model, or a provider none of whose models is named in the settings.

    Args:
        ref: ``provider/model``, or ``provider/...`` where any model of it can be named.
        kind: the provider's wire, ``embedded``, or ``custom``.
        default: whether programs that name no model use it.
        ready: whether weights or key are there.
        note: what it lacks, or where its weights lie; never a key.
        output_mode: how it is made to answer: ``schema``, ``json`` or ``text``.
        input_usd_per_mtok, output_usd_per_mtok: US dollars per million tokens; None where not known.
    """

    ref: str
    kind: str
    default: bool
    ready: bool
    note: str
    output_mode: str | None = None
    input_usd_per_mtok: float | None = None
    output_usd_per_mtok: float | None = None


@dataclass(frozen=True, slots=True)
class Serving:
    """How to serve, as the command line has it. None is as the settings have it.

    Args:
        config: the file to read instead of the project's ``kaizen.toml``.
        host, port, workers: see the settings of the server.
        programs: ``FILE.py:Name`` of each program that callers may run, evaluate and improve.
    """

    config: Path | None = None
    host: str | None = None
    port: int | None = None
    workers: int | None = None
    programs: tuple[str, ...] = ()


def _closed(serving: Serving) -> int:
    raise NotImplementedError("this command line has no door to the gateway")


def _no_editor() -> Sequence[str]:
    raise NotImplementedError("this command line knows no editor")


def _no_keys() -> tuple[Keys, Scope]:
    raise NotImplementedError("this command line has no door to the keys")


@dataclass(frozen=True, slots=True)
class Trained:
    """A router that was trained.

    Args:
        rows, left_out: rows of the file that were used, and those without a prompt or an answer of every model.
        text: the column of the prompts.
        models, traits: the columns of right and wrong, and of what else was used.
        curve: dial, mean cost and share of right answers, measured on prompts the router had not seen.
    """

    rows: int
    left_out: int
    text: str
    models: tuple[str, ...]
    traits: tuple[str, ...]
    curve: tuple[tuple[float, float, float], ...]


@dataclass(frozen=True, slots=True)
class Calibrating:
    """Which recorded calls to ask again, and how many calls that may take.

    Args:
        scope: whose.
        model: ask this one; None asks the one that each call asked.
        task: only calls of this type of task.
        calls: model calls at most.
        told: told how many calls were made and how many prompts are done, now and then.
    """

    scope: Scope
    model: str | None = None
    task: str | None = None
    calls: int = 100
    told: Callable[[int, int], None] = lambda calls, prompts: None


async def _no_calibration(app: Runs, wanted: Calibrating) -> Calibration:
    raise NotImplementedError("nothing here calibrates")


async def _no_evaluation(app: Runs, plan: Plan, told: Told | None = None) -> Sequence[Evaluation]:
    raise NotImplementedError("nothing here evaluates")


async def _unknown(app: Runs, scope: Scope) -> Mapping[str, Any]:
    return {}


async def _no_replay(app: Runs, scope: Scope, query: RecordQuery) -> Sequence[Advice]:
    return ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Optimizing:
    """A program to make better; see ``kaizen.learn.optimize``.

    Args:
        program: which.
        train, val, test: rows to learn from, to choose by, and to test on once at the end (none, for no test).
        metric: what judges answers.
        optimizer: by which search, by its name; or a search of the caller's own.
        calls: requests that may reach a model, the test's included.
        tokens, usd, seconds: more limits, None for none.
        seed: of every draw.
        teacher: ref of the model that writes proposals; None is the program's own.
        models: refs that may take the place of the program's model.
        concurrency: rows worked on at once; None is 8, and 1 where the settings' model is an embedded one, whose rows
            would push each other's prompts out of its cache.
        run_id: a run to go on with; a new one by default.
        resumed: whether that run has to be there.
        start: params by program name to start from, instead of those in the code.
        release: whether a winner becomes ``prod`` at once.
        begun: told the run's id, the calls that the search would make if the budget let it, and how many of ``val``
            it chooses by: a small budget leaves the others to learn from.
        told: hears of each step of the search.
    """

    program: Program
    train: tuple[Row, ...]
    val: tuple[Row, ...]
    test: tuple[Row, ...] = ()
    metric: Program
    optimizer: str | Search = "compose"
    calls: int = 500
    tokens: int | None = None
    usd: float | None = None
    seconds: float | None = None
    seed: int = 0
    teacher: str | None = None
    models: tuple[str, ...] = ()
    concurrency: int | None = None
    run_id: str | None = None
    resumed: bool = False
    start: Mapping[str, Params] = field(default_factory=dict[str, "Params"])
    release: bool = False
    begun: Callable[[str, int, int], None] = lambda run_id, calls, rows: None
    told: Callable[[Event], None] = lambda event: None


@dataclass(frozen=True, slots=True, kw_only=True)
class Optimized:
    """What came of it.

    Args:
        run_id: the run.
        report: what was found.
        calls, tokens, seconds: taken by the run, tries that were killed included.
        usd: dollars of its recorded calls; None where a price is not known.
        versions: by program name, the number of the version that the winner became.
        released: whether ``prod`` shows it now.
    """

    run_id: str
    report: Report
    calls: int
    tokens: int
    seconds: float
    usd: float | None
    versions: Mapping[str, int]
    released: bool


async def _no_optimizing(app: Runs, wanted: Optimizing) -> Optimized:
    raise NotImplementedError("nothing here optimizes")


def _no_loops(app: Runs, programs: Mapping[str, Program]) -> Loop:
    raise NotImplementedError("nothing here has loops")


async def _no_watch(loop: Loop, scope: Scope, every: float | None, told: Callable[[str, str], None]) -> None:
    raise NotImplementedError("nothing here watches")


async def _no_training(file: Path, target: Path, text: str | None, models: Sequence[str] | None) -> Trained:
    raise NotImplementedError("nothing here trains")


@dataclass(frozen=True, slots=True)
class Doors:
    """The ways out of this room.

    Args:
        app: the process's App. Called after a user's file is loaded, which may have configured it.
        models: what models there are, by the settings.
        pull: bring a model's weights, telling each step; the path where they lie.
        serve: serve the gateway until told to end; the exit code.
        editor: the words of the user's editor, to which a file's name is added.
        keys: the keys, and whose they are where nothing else is said.
        train: train a router from a file into another; the columns of prompts and of models may be named.
        known: what the caches' own counts and evidence say of a scope, by layer; see ``kaizen.app.measured.insight``.
        replay: what the semantic cache and the token optimisation would have done with recorded calls.
        calibrate: ask recorded calls again, whole and shortened; see ``Calibrating``.
        optimize: make a program better; see ``Optimizing``.
        evaluate: run a program on rows and score its answers; see ``kaizen.app.learn.evaluations``.
        loops: the Kaizen loops of an App, with the programs that are loaded already, by name.
        watch: look after loops and experiments every so many seconds, once for None, telling each step.
    """

    app: Callable[[], Runs]
    models: Callable[[], Sequence[ModelInfo]]
    pull: Callable[[str, Callable[[str], None]], Awaitable[Path]]
    serve: Callable[[Serving], int] = _closed
    keys: Callable[[], tuple[Keys, Scope]] = _no_keys
    editor: Callable[[], Sequence[str]] = _no_editor
    train: Callable[[Path, Path, str | None, Sequence[str] | None], Coroutine[Any, Any, Trained]] = _no_training
    known: Callable[[Any, Scope], Coroutine[Any, Any, Mapping[str, Any]]] = _unknown
    replay: Callable[[Any, Scope, RecordQuery], Coroutine[Any, Any, Sequence[Advice]]] = _no_replay
    calibrate: Callable[[Any, Calibrating], Coroutine[Any, Any, Calibration]] = _no_calibration
    optimize: Callable[[Any, Optimizing], Coroutine[Any, Any, Optimized]] = _no_optimizing
    evaluate: Callable[[Any, Plan, Told | None], Coroutine[Any, Any, Sequence[Evaluation]]] = _no_evaluation
    loops: Callable[[Any, Mapping[str, Program]], Loop] = _no_loops
    watch: Callable[[Loop, Scope, float | None, Callable[[str, str], None]], Coroutine[Any, Any, None]] = _no_watch
