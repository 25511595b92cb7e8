"""What is thought of a request and its candidates: the type of task, and each candidate's predicted quality."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from kaizen.core.protocols import Embedder
from kaizen.core.request import Request
from kaizen.core.scope import Scope
from kaizen.inference.route.candidates import Worth
from kaizen.inference.route.evidence import SCALE, Book, Evidence

# What a prompt is about shows at its beginning and its end; a document in between says nothing of the task.
_HEAD: Final = 2000


class RouterLike(Protocol):
    """A trained router, as ``kaizen.inference.route.router`` has it; apart from it, since that needs numpy."""

    @property
    def models(self) -> tuple[str, ...]:
        """The refs it knows."""
        ...

    @property
    def rows(self) -> int:
        """How many rows it was trained on."""
        ...

    @property
    def embedder(self) -> str | None:
        """The embedder whose points it reads, if it reads any."""
        ...


class Detector(Protocol):
    """Tells what type of task a prompt is."""

    def __call__(self, text: str, head: bytes, tail: bytes, /) -> tuple[str, float]:
        """The type and its probability, from a text and the points of its beginning and its end."""
        ...

    def ends(self, text: str, /) -> tuple[str, str]:
        """The beginning and the end that it wants points of."""
        ...


@dataclass(frozen=True, slots=True)
class Trained:
    """A router and how to ask it.

    Args:
        router: what it knows.
        right: by model, the probability of a right answer, for a text, its task and its point.
    """

    router: RouterLike
    right: Callable[[str, str | None, bytes | None], Mapping[str, float]]


class Judge:
    """Predicts quality: by the trained router for the models it knows, else by recorded scores.

    Args:
        evidence: what the records show.
        embedder: makes points for router and detector.
        trained: the router, if there is one.
        detector: makes the detector at the first need.
    """

    def __init__(
        self,
        evidence: Evidence,
        *,
        embedder: Embedder | None = None,
        trained: Trained | None = None,
        detector: Callable[[], Detector] | None = None,
    ) -> None:
        self.evidence = evidence
        self._embedder, self._trained, self._make_detector = embedder, trained, detector
        self._detector: Detector | None = None

    async def task(self, request: Request) -> tuple[str, float] | None:
        """The type of task and its probability; None where nothing can tell."""
        if self._make_detector is None or self._embedder is None:
            return None
        detector = self._detector = self._detector or self._make_detector()
        text = whole(request)
        head, tail = await self._points(request.scope, detector.ends(text))
        return detector(text, head, tail)

    async def worths(self, request: Request, book: Book, task: str | None, models: Sequence[str]) -> dict[str, Worth]:
        """The predicted quality of each model."""
        found = {model: self.evidence.worth(book, task, model) for model in models}
        trained = self._trained
        if trained is None or not set(models) & set(trained.router.models):
            return found
        text = question(request)
        point = None
        if trained.router.embedder is not None:
            (point,) = await self._points(request.scope, (text,))
        right = trained.right(text, task, point)
        worths = {model: Worth(SCALE * one, trained.router.rows, "router") for model, one in right.items()}
        return found | {model: worths[model] for model in models if model in worths}

    async def _points(self, scope: Scope, texts: Sequence[str]) -> Sequence[bytes]:
        assert self._embedder is not None  # noqa: S101 - for the type checker: both callers have looked
        found = await self._embedder.embed(scope, texts)
        size = 4 * found.dim
        return [found.data[at : at + size] for at in range(0, size * len(texts), size)]


def question(request: Request) -> str:
    """What the caller asks: the last message of theirs."""
    for message in reversed(request.messages):
        if message.role == "user":
            return message.text
    return request.messages[-1].text if request.messages else ""


def whole(request: Request) -> str:
    """Instructions and question, for the type of task stands in either."""
    told = "\n".join(message.text for message in request.messages if message.role == "system")
    asked = question(request)
    return f"{told[:_HEAD]}\n{asked}" if told else asked
