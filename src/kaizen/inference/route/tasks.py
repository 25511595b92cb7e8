"""What type of task a prompt is: a linear classifier on its features and on the meaning of its two ends."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, Final, Self

import numpy as np

from kaizen.core.errors import InvalidInput
from kaizen.inference.route.features import NAMES, surface
from kaizen.inference.route.forest import Floats

TASKS: Final = (
    "chat",
    "classification",
    "code",
    "extraction",
    "question answering",
    "reasoning",
    "summarisation",
    "translation",
    "writing",
)
"""The types there are. ``reasoning`` is arithmetic and logic; ``question answering`` asks for facts."""

# The instruction is the first sentence or the last, mostly; what is between is the material.
_SENTENCE: Final = re.compile(r"(?<=[.?!:。？！])\s+|\n+")
_END: Final = 160
_FILE: Final = "tasks.json"

# So that the two points together weigh about as much as the features.
_POINT: Final = 8.0
# Words that name the work, by the work they name. Whether one is in the first or last sentence is a feature each.
_CUES: Final[Mapping[str, re.Pattern[str]]] = {
    name: re.compile(words, re.IGNORECASE)
    for name, words in {
        "chat": r"^(hi|hello|hey|thanks?|thank you|good (morning|night|evening)|bye|ok(ay)?|ha(ha)?)\b"
        r"|\b(i'm|my|you're|lol)\b",
        "classification": r"\b(classif\w+|categor\w+|label|sentiment|intent|topic|positive|negative|spam|toxic|"
        r"priority|(is|was) (this|it|the \w+) \w+ or \w+|which (team|department|queue|section|category)|route|"
        r"assign|tone)\b",
        "code": r"\b(code|functions?|python|javascript|java|typescript|rust|golang|c\+\+|sql|bash|regex|bug|"
        r"compile\w*|script|class|method|api|endpoint|html|css|git|docker\w*|unit tests?|stack trace|exception|"
        r"algorithm|program)\b|```",
        "extraction": r"\b(extract\w*|list (all|the|every)|find (all|the|every)|pull out|json|fields?|slots?|"
        r"entit\w+|mention(ed|s)|fill in|parse|collect|copy|names? and)\b",
        "question": r"^(who|what|when|where|which|why|how|is|are|was|were|did|does|do|can|in what|in which|to whom)\b"
        r".*\?\s*$",
        "context": r"\b(context|passage|according to|from the text|based on)\b",
        "reasoning": r"\b(how (many|much|old|long|far)|calculate|compute|solve|simplify|step by step|percent|average|"
        r"total|altogether|times as|twice)\b|\d\s*[-+*/=%]\s*\d|\d%",
        "summarisation": r"\b(summar\w+|tl;?dr|gist|recap|overview|abstract|key (points|takeaways)|main points|"
        r"condense|digest|shorten|in a nutshell|essentials|boil|minutes|highlights|bullets?)\b",
        "translation": r"\btranslat\w+|\b(in|into|to|from) (french|german|spanish|italian|polish|japanese|dutch|"
        r"portuguese|swahili|english|chinese|mandarin|korean|arabic|russian|greek|turkish|hindi|swedish|finnish|"
        r"latin)\b",
        "writing": r"\b(write|compose|draft|rewrite|rephrase|improve|polish|story|poem|essay|e-?mail|letter|blog|post|"
        r"slogan|tweet|speech|song|tale|novel|titles?|brainstorm|ideas|invitation|formal|polite\w*|grammar|style)\b",
    }.items()
}
_FEATURES: Final = (*NAMES, *(f"{end} sentence: {name}" for name in _CUES for end in ("first", "last")))


@dataclass(frozen=True, slots=True)
class TaskDetector:
    """A multinomial logistic regression.

    Args:
        labels: in the order of the columns below.
        mean, scale: of the features, and of the points.
        weights: a row for each feature and each number of the two points, a column a label.
        bias: a number a label.
    """

    labels: tuple[str, ...]
    mean: Floats
    scale: Floats
    weights: Floats
    bias: Floats

    def __call__(self, text: str, head: bytes, tail: bytes, /) -> tuple[str, float]:
        """The likeliest type and its probability.

        Args:
            text: the instructions and the question.
            head: the point of its beginning, float32, little endian, by the embedded embedder.
            tail: the point of its end.
        """
        row = (_row(text, head, tail) - self.mean) / self.scale
        odds = row @ self.weights + self.bias
        shares = np.exp(odds - odds.max())
        best = int(shares.argmax())
        return self.labels[best], float(shares[best] / shares.sum())

    def ends(self, text: str, /) -> tuple[str, str]:
        """The beginning and the end that points are made of."""
        return ends(text)

    @classmethod
    def shipped(cls) -> Self:
        """The one that comes with the package; ``benchmarks/task_types.py`` trains and measures it."""
        return cls.from_json(json.loads(files("kaizen.inference.route").joinpath(_FILE).read_text("utf-8")))

    @classmethod
    def from_json(cls, tree: Mapping[str, Any]) -> Self:
        """As it was written.

        Raises:
            InvalidInput: it was trained on other features than there are now.
        """
        if tuple(tree["features"]) != _FEATURES:
            raise InvalidInput("this detector was trained on other features: train it anew")
        numbers = (np.array(tree[name], np.float64) for name in ("mean", "scale", "weights", "bias"))
        return cls(tuple(tree["labels"]), *numbers)

    def as_json(self) -> dict[str, Any]:
        """JSON-able values, four digits each."""
        numbers = {name: getattr(self, name) for name in ("mean", "scale", "weights", "bias")}
        rounded = {name: _rounded(value.tolist()) for name, value in numbers.items()}
        return {"labels": list(self.labels), "features": list(_FEATURES), **rounded}

    @classmethod
    def fitted(cls, rows: Sequence[tuple[str, bytes, bytes]], labels: Sequence[str], penalty: float = 0.003) -> Self:
        """Fitted to labelled texts with the points of their ends.

        Args:
            rows: text, point of its beginning, point of its end.
            labels: what each is.
            penalty: on the squared weights, against reading too much into few texts.
        """
        seen = np.array([_row(*row) for row in rows])
        spread = seen.std(0)
        mean, scale = seen.mean(0), np.where(spread > 1e-9, spread, 1.0)
        scale[len(NAMES) + 2 * len(_CUES) :] = 1 / _POINT
        names = tuple(sorted(set(labels)))
        wanted = np.array([[float(label == name) for name in names] for label in labels])
        weights, bias = _descended((seen - mean) / scale, wanted, penalty)
        return cls(names, mean, scale, weights, bias)


def ends(text: str) -> tuple[str, str]:
    """The first and the last sentence of a text, or as much of them as says what they are."""
    sentences = [one for one in _SENTENCE.split(text.strip()) if one] or [""]
    return sentences[0][:_END], sentences[-1][-_END:]


def _row(text: str, head: bytes, tail: bytes) -> Floats:
    points = [np.frombuffer(point, "<f4").astype(np.float64) for point in (head, tail)]
    first, last = ends(text)
    cues = [float(bool(cue.search(end))) for cue in _CUES.values() for end in (first, last)]
    return np.concatenate([np.array(list(surface(text).values())), np.array(cues), *points])


def _descended(rows: Floats, wanted: Floats, penalty: float, rounds: int = 600) -> tuple[Floats, Floats]:
    """Weights and bias by gradient descent with momentum (Nesterov's), from zero: the same every time."""
    n = len(rows)
    weights, bias = np.zeros((rows.shape[1], wanted.shape[1])), np.zeros(wanted.shape[1])
    ahead, before = weights, weights
    # the curvature of the loss is at most half the largest eigenvalue of the rows' covariance
    step = 1.0 / (0.5 * float(np.linalg.norm(rows, 2)) ** 2 / n + penalty)
    for turn in range(rounds):
        odds = rows @ ahead + bias
        shares = np.exp(odds - odds.max(1, keepdims=True))
        error = shares / shares.sum(1, keepdims=True) - wanted
        weights = ahead - step * (rows.T @ error / n + penalty * ahead)
        bias = bias - error.mean(0)
        ahead = weights + turn / (turn + 3) * (weights - before)
        before = weights
    return weights, bias


def _rounded(values: Any) -> Any:
    return [_rounded(one) for one in values] if isinstance(values, list) else float(f"{values:.4g}")  # pyright: ignore[reportUnknownVariableType] - nested lists of numbers
