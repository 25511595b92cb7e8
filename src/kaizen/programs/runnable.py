"""The face that programs other than signatures share: call, ``execute``, ``stream``."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextvars import ContextVar
from typing import Any, Final, Generic, ParamSpec, TypeVar, cast, overload

from kaizen.core.answer import Answer
from kaizen.core.context import Context, Partial
from kaizen.core.slot import current_app
from kaizen.core.spec import Spec

running: Final[ContextVar[Callable[[], Context] | None]] = ContextVar("kaizen_running", default=None)
"""The one context variable, set by the runner: it gives the call whose code runs here."""


def current_call() -> Context | None:
    """The call whose code runs here, so that user code can write ``await other(x=1)``; None outside any."""
    here = running.get()
    return None if here is None else here()


P = ParamSpec("P")
R = TypeVar("R")


class Runnable(ABC, Generic[P, R]):
    """A Program with the face users know; a subclass gives ``spec`` and ``run``."""

    spec: Spec

    @abstractmethod
    async def run(self, ctx: Context, inputs: dict[str, Any]) -> Answer:
        """Do the work on inputs that fit the contract."""

    @overload
    def __call__(self, ctx: Context, /, **inputs: Any) -> Awaitable[Answer]: ...
    @overload
    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Awaitable[R]: ...
    def __call__(self, *args: Any, **kwargs: Any) -> Awaitable[Any]:
        """Run it. With a Context first this is the Program's own call, made by the runner."""
        if args and isinstance(args[0], Context):
            return self.run(args[0], kwargs)
        inputs = self._bound(args, kwargs)
        here = current_call()
        return self._awaited(here.call(self, **inputs) if here is not None else current_app().run(self, inputs))

    def execute(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Run it and wait: for plain code and notebook cells. Raises as ``Signature.execute`` does."""
        return self.result_of(current_app().execute(self, self._bound(args, kwargs)))

    async def stream(self, *args: P.args, **kwargs: P.kwargs) -> AsyncGenerator[Partial | R]:
        """Partial outputs of the programs below, as they are written; then the result."""
        items = current_app().stream(self, self._bound(args, kwargs))
        try:
            async for item in items:
                yield self.result_of(item) if isinstance(item, Answer) else item
        finally:
            await items.aclose()

    def __repr__(self) -> str:
        return f"<program {self.spec.name}>"

    def result_of(self, answer: Answer) -> R:
        """What a user gets for an Answer."""
        return cast("R", answer)

    async def _awaited(self, answer: Awaitable[Answer]) -> R:
        return self.result_of(await answer)

    def _bound(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        """Inputs by name; what is missing or unknown is left for the contract to say."""
        names = list(self.spec.inputs)
        if len(args) > len(names):
            raise TypeError(f"{self.spec.name} takes {len(names)} inputs, {len(args)} were given")
        if twice := kwargs.keys() & names[: len(args)]:
            raise TypeError(f"{self.spec.name} was given {', '.join(sorted(twice))} twice")
        return dict(zip(names, args, strict=False)) | kwargs
