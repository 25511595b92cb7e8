"""What the routes of what learns need of the floors above them, handed in by the composition root."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Coroutine, Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from kaizen.core.answer import Answer
from kaizen.core.context import Partial, Program
from kaizen.core.errors import ConfigError, Conflict, InvalidInput, NotFound
from kaizen.core.identity import Identity
from kaizen.core.protocols import Suspended
from kaizen.core.scope import Scope
from kaizen.ledger.ledger import Ledger
from kaizen.registry.registry import PARAMS, Registry
from kaizen.registry.releases import Releases
from kaizen.serve.arguments import nearest
from kaizen.serve.doors import Optimized, Optimizing, Runs
from kaizen.serve.http.learn.work import Jobs
from kaizen.serve.shown.versions import Subject, subject

if TYPE_CHECKING:
    # a gateway that nobody asks to learn need not load what does
    from kaizen.learn.evaluate.plan import Plan, Told
    from kaizen.learn.evaluate.result import Evaluation
    from kaizen.learn.loop.loop import Loop


@dataclass(frozen=True, slots=True)
class Served:
    """A program that the server was started with.

    Args:
        program: itself.
        target: how it was named, ``FILE.py:Name``.
    """

    program: Program
    target: str


class Start(Protocol):
    """Runs a program for a caller."""

    async def __call__(
        self,
        identity: Identity,
        program: Program,
        inputs: Mapping[str, Any],
        *,
        version: str = "",
        subject: str = "",
        emit: Callable[[Partial], None] | None = None,
    ) -> Answer | Suspended:
        """A run of this caller's.

        Args:
            identity: whose.
            program: what.
            inputs: by field name.
            version: of its params, see ``Releases.at``.
            subject: whom it is for: an experiment's arm sticks to them.
            emit: where partial outputs go.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Learning:
    """What is behind the routes.

    Args:
        programs: those that are served, by name.
        ledger, registry, releases: of every tenant.
        within: the App over the data of one tenant.
        start: runs a program for a caller.
        evaluate, optimize, loops: as ``Doors`` has them.
        jobs: what takes longer than a request.
    """

    programs: Mapping[str, Served]
    ledger: Ledger
    registry: Registry
    releases: Releases
    within: Callable[[Scope], Runs]
    start: Start
    evaluate: Callable[[Any, Plan, Told | None], Coroutine[Any, Any, Sequence[Evaluation]]]
    optimize: Callable[[Any, Optimizing], Coroutine[Any, Any, Optimized]]
    loops: Callable[[Any, Mapping[str, Program]], Loop]
    jobs: Jobs

    def served(self, name: str) -> Served:
        """A program that is served, by its name or the last part of it.

        Raises:
            NotFound: there is none; says what there is.
            Conflict: several names end so.
        """
        found = self.programs.get(name)
        if found is not None:
            return found
        alike = [known for known in self.programs if known.endswith(f".{name}")]
        if len(alike) == 1:
            return self.programs[alike[0]]
        if alike:
            raise Conflict(f"several names end in {name}: {', '.join(alike)}")
        there = nearest(name, self.programs) or (f"; there is {', '.join(self.programs)}" if self.programs else "")
        raise NotFound(f"this server serves no program {name}{there}; `kaizen serve --program FILE.py:Name` does")

    async def subject(self, scope: Scope, kind: str, name: str) -> Subject:
        """What a kind and a name mean: of params the last part of a program's name is enough.

        Raises:
            NotFound: there is nothing of that name in the tenant's registry, and no such program is served.
            Conflict: several names end so.
        """
        if kind == PARAMS:
            with contextlib.suppress(NotFound):
                program = self.served(name).program
                return Subject(PARAMS, program.spec.name, None, program)
            return await subject(self.registry, scope, (name, None, None))
        return await subject(self.registry, scope, (f"{kind}/{name}", None, None))


@contextlib.contextmanager
def asked() -> Generator[None]:
    """What is wrong with the configuration inside is the caller's own: it came with the request."""
    try:
        yield
    except ConfigError as error:
        raise InvalidInput(error.message) from None
