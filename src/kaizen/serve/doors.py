"""What the command line needs of the floors above it, handed in by ``__main__`` so that nothing is loaded unasked."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

if TYPE_CHECKING:  # `kaizen --help` must not load pydantic
    from kaizen.core.answer import Answer
    from kaizen.core.context import Partial, Program
    from kaizen.core.params import Params
    from kaizen.core.protocols import Cache, Suspended
    from kaizen.core.scope import Scope
    from kaizen.govern.keys import Keys
    from kaizen.ledger.ledger import Ledger


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
    """

    config: Path | None = None
    host: str | None = None
    port: int | None = None
    workers: int | None = None


def _closed(serving: Serving) -> int:
    raise NotImplementedError("this command line has no door to the gateway")


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
        keys: the keys, and whose they are where nothing else is said.
        train: train a router from a file into another; the columns of prompts and of models may be named.
    """

    app: Callable[[], Runs]
    models: Callable[[], Sequence[ModelInfo]]
    pull: Callable[[str, Callable[[str], None]], Awaitable[Path]]
    serve: Callable[[Serving], int] = _closed
    keys: Callable[[], tuple[Keys, Scope]] = _no_keys
    train: Callable[[Path, Path, str | None, Sequence[str] | None], Coroutine[Any, Any, Trained]] = _no_training
