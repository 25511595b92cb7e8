"""The step cache: a program's answer kept by contract, params and inputs, and given again to the same call."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, TypeVar, cast, overload

from pydantic import ValidationError
from pydantic_core import from_json, to_json

from kaizen.core.answer import Answer
from kaizen.core.artifact import BASE
from kaizen.core.context import Context, Program
from kaizen.core.ids import digest
from kaizen.core.params import NOTHING
from kaizen.core.spec import dump
from kaizen.programs.function import FunctionProgram
from kaizen.programs.runnable import Runnable
from kaizen.programs.signature import Signature

A = TypeVar("A", bound=Answer)

# The form of an entry: one of another form is a miss.
_FORM: Final = 2


class Cached(Runnable[..., A]):
    """See ``cached``."""

    def __init__(self, program: Program, tags: Sequence[str], ttl: float | None, version: str) -> None:
        self.spec = program.spec.variant("cached")
        self._program, self._tags, self._ttl = program, tuple(tags), ttl
        code = program.version if isinstance(program, FunctionProgram) else ""
        brings = isinstance(program, type) and issubclass(program, Signature)
        self._own = cast("type[Signature]", program).compile().params if brings else NOTHING
        self._step = [_FORM, program.spec.name, program.spec.contract, version, code]

    async def run(self, ctx: Context, inputs: dict[str, Any]) -> Answer:
        """The kept answer, or a new one, which is kept."""
        key = self._key(ctx, inputs)
        kept = await ctx.recall(key)
        if kept.value is not None and (answer := self._load(ctx, kept.value, inputs)) is not None:
            return answer
        answer = await ctx.call(self._program, **inputs)
        ctx.depends_on(f"program:{self._program.spec.name}", *self._tags)
        record = answer.record
        depends = sorted(ctx.tally.tags)
        outputs = from_json(dump(answer.outputs))
        entry = {
            "outputs": outputs,
            "tags": depends,
            "versions": ctx.tally.versions,
            "model": record.model,
            "cost_usd": record.cost_usd,
        }
        await ctx.keep(key, to_json(entry), tags=depends, ttl=self._ttl, since=kept.since)
        return answer

    def result_of(self, answer: Answer) -> A:
        """What the program itself gives."""
        program = cast("Runnable[..., A]", self._program) if isinstance(self._program, Runnable) else None
        return cast("A", answer) if program is None else program.result_of(answer)

    def _key(self, ctx: Context, inputs: dict[str, Any]) -> str:
        # What the program runs with: its own params over the run's and the defaults. Programs below it bring their
        # own, which their code names; an override for one of them counts as well.
        params = ctx.params(self._program.spec, self._own).version
        overrides = {name: one.version for name, one in sorted((ctx.run.overrides or {}).items()) if one != NOTHING}
        return digest(dump([*self._step, params, overrides, inputs]))

    def _load(self, ctx: Context, kept: bytes, inputs: dict[str, Any]) -> Answer | None:
        """The answer of an entry; None if it can't be read, as when it was kept under other types.

        Nor is it given where another version of a program below was released since: which programs those are is known
        only once they ran, so that can't be part of the key.
        """
        try:
            entry = from_json(kept)
            if any(_version(ctx, name) != version for name, version in entry["versions"].items()):
                return None
            answer = self._program.spec.load_answer(to_json(entry["outputs"]), inputs)
            ctx.depends_on(*entry["tags"])
            ctx.tally.versions |= entry["versions"]
            ctx.tally.add_kept(entry["model"], entry["cost_usd"])
        except (ValueError, KeyError, TypeError, ValidationError):
            return None
        return answer


def _version(ctx: Context, name: str) -> str:
    released = ctx.run.released(name)
    return BASE if released is None else released.version


@overload
def cached(
    program: type[A], /, *, tags: Sequence[str] = (), ttl: float | None = None, version: str = ""
) -> Cached[A]: ...
@overload
def cached(
    program: Program, /, *, tags: Sequence[str] = (), ttl: float | None = None, version: str = ""
) -> Cached[Answer]: ...
def cached(program: Any, /, *, tags: Sequence[str] = (), ttl: float | None = None, version: str = "") -> Cached[Any]:
    """The same program, whose answers are kept: the same inputs under the same contract and params run once.

    An answer is kept for its tenant alone. It goes when one of its tags is invalidated: ``program:<name>``, those
    given here, and whatever the program or one below it named with ``ctx.depends_on("document:7f")``. What the
    programs below take from elsewhere (a clock, a search) is not seen: don't cache those, or tag them.

    Args:
        program: a signature or any other program.
        tags: what its answers depend on besides.
        ttl: seconds that an answer is kept; None keeps it until it is invalidated or room is needed.
        version: another one makes all earlier answers unknown. A ``@program``'s own code counts by itself, the code
            of functions it calls does not.
    """
    return Cached[Any](cast("Program", program), tags, ttl, version)
