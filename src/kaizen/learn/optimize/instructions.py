"""Instructions written by a model and chosen with demos by Bayesian search.

The idea is MIPRO's (Opsahl-Ong et al., Optimizing Instructions and Demonstrations for Multi-Stage Language Model
Programs, arXiv 2406.11695), with past attempts shown beside their scores as in OPRO (Yang et al., arXiv 2309.03409).
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from pydantic_core import to_json

from kaizen.core.context import Context
from kaizen.core.errors import ConfigError
from kaizen.core.params import Demo, Params
from kaizen.learn.data.rows import Row
from kaizen.learn.optimize.board import Board
from kaizen.learn.optimize.task import Candidate, Outcome, Part, Task
from kaizen.programs.declare import input as input_field
from kaizen.programs.declare import output as output_field
from kaizen.programs.signature import Signature

if TYPE_CHECKING:
    from optuna import Study

PROPOSALS: Final = 8
DEMO_SETS: Final = 4
_SHOWN: Final = 12
_SHOWN_CHARS: Final = 400
_LONGEST: Final = 6000
_TIPS: Final = (
    "Name every rule that the examples follow and a reader could not guess.",
    "Say for each possible answer when it is the right one.",
    "Be brief: one short paragraph.",
    "Point out the mistakes that are easy to make, and how to avoid them.",
    "Describe step by step how to come to the answer.",
    "Keep what works in the current instruction and add what it lacks.",
)


class ProposeInstruction(Signature):
    """Write a better instruction for a program that a language model carries out.

    Look at the labelled examples and find out what the program has to do so that its outputs are as labelled. The
    instruction has to stand by itself: whoever follows it sees neither these examples nor the earlier instructions. It
    has to hold for new inputs as well, so state rules, don't list answers. Write only the instruction.
    """

    program: str = input_field("the program: its inputs and outputs")
    current: str = input_field("the instruction it has now")
    examples: str = input_field("labelled examples, some with what the program answered and why that is wrong")
    tried: str = input_field("instructions that were tried, with their scores from 0 to 1")
    tip: str = input_field("what to look to this time")
    instruction: str = output_field("the new instruction")


# -- prompts for those who propose ------------------------------------------------------------------


def described(part: Part) -> str:
    """A program in words: its name, its inputs and outputs."""
    spec = part.spec
    lines = [f"{part.name.rsplit('.', 1)[-1]}"]
    for title, some in (("inputs", {**spec.inputs, **spec.fed}), ("outputs", spec.written)):
        lines.append(f"{title}:")
        properties = (spec.input_schema if title == "inputs" else spec.output_schema).get("properties", {})
        for name, one in some.items():
            values = properties.get(name, {}).get("enum")
            choice = f" (one of {', '.join(map(str, values))})" if values else ""
            lines.append(f"- {name}{choice}: {one.description}".rstrip(": "))
    return "\n".join(lines)


def shown(value: object, limit: int = _SHOWN_CHARS) -> str:
    """A value as JSON, shortened."""
    text = to_json(value, fallback=str).decode()
    return text if len(text) <= limit else f"{text[: limit - 1]}…"


def example(row: Row, outcome: Outcome | None = None) -> str:
    """A labelled row for a prompt, with what was answered where that was wrong."""
    lines = [f"inputs: {shown(row.inputs)}", f"right outputs: {shown(row.outputs)}"]
    if outcome is not None and outcome.score < 1.0:
        answered = "nothing usable" if outcome.prediction is None else shown(outcome.prediction)
        lines.append(f"the program answered: {answered}")
        if outcome.comment:
            lines.append(f"what is wrong: {outcome.comment[:_SHOWN_CHARS]}")
    return "\n".join(lines)


def writer(task: Task, part: Part, seed: int) -> Params:
    """The params to ask for a proposal with: the teacher's model, or the program's own."""
    return Params(model=task.teacher or part.params.model, temperature=1.0, seed=seed, max_tokens=1500)


def usable(text: object, part: Part) -> str | None:
    """A proposed instruction, if it can be one and says something new."""
    if not isinstance(text, str):
        return None
    text = text.strip()
    return text if text and len(text) <= _LONGEST and text != part.instructions.strip() else None


def demo_of(row: Row, part: Part) -> Demo | None:
    """A labelled row as a demo of the task's own program; None where it lacks an output that demos show."""
    inputs = {name: row.inputs[name] for name in part.spec.inputs if name in row.inputs}
    outputs = {name: row.outputs[name] for name in part.spec.written if name in row.outputs}
    return Demo(inputs, outputs) if set(part.spec.outputs) <= outputs.keys() else None


def demos_met(board: Board, part: Part, rows: Sequence[Row], outcome_of: Mapping[str, Outcome]) -> list[Demo]:
    """Demos for a program: calls that led to a right answer; for the task's own program the labelled rows, too.

    Args:
        board: whose.
        part: the program.
        rows: to make them of.
        outcome_of: by row key, how these rows were answered.
    """
    made: list[Demo] = []
    for row in rows:
        outcome = outcome_of.get(row.key)
        right = outcome is not None and outcome.score >= 1.0
        steps = [one for one in outcome.steps if one.name == part.name] if outcome is not None and right else []
        if steps:
            made.append(Demo(steps[0].inputs, steps[0].outputs))
        elif part.name == board.task.name and (demo := demo_of(row, part)) is not None:
            made.append(demo)
    return made


def balanced(demos: Sequence[Demo], count: int, rng: random.Random) -> tuple[Demo, ...]:
    """So many demos, no output with two before every other has one: a set of one label would teach that label."""
    groups: dict[bytes, list[Demo]] = {}
    for demo in rng.sample(list(demos), len(demos)):
        groups.setdefault(to_json(demo.outputs, fallback=str), []).append(demo)
    queues = rng.sample(list(groups.values()), len(groups))
    drawn = [queue[at] for at in range(max(map(len, queues), default=0)) for queue in queues if at < len(queue)]
    return tuple(drawn[:count])


# -- the search -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Choices:
    """What each program may be given: the first of each is what it has."""

    instructions: dict[str, list[str | None]]
    demos: dict[str, list[tuple[Demo, ...]]]

    @property
    def count(self) -> int:
        total = 1
        for some in (*self.instructions.values(), *self.demos.values()):
            total *= len(some)
        return total


class Instructions:
    """Proposals by a model, then a search over which of them to combine with which demos.

    Args:
        proposals: instructions to ask for, for each program.
        demo_sets: sets of demos to try, for each program.
        demos: in each set.
        grounded: whether whoever proposes sees labelled examples and past scores. Without, it is the ablation.
        bayesian: whether the tree-structured Parzen estimator chooses what to try; else it is drawn at random.
    """

    name = "instructions"

    def __init__(
        self,
        *,
        proposals: int = PROPOSALS,
        demo_sets: int = DEMO_SETS,
        demos: int = 4,
        grounded: bool = True,
        bayesian: bool = True,
    ) -> None:
        self._proposals, self._demo_sets, self._demos = proposals, demo_sets, demos
        self._grounded, self._bayesian = grounded, bayesian

    def estimate(self, task: Task, each: float) -> int:
        """Proposals, and a trial for each two of them with each set of demos."""
        trials = max(8, self._proposals * (self._demo_sets + 1) // 2)
        return self._proposals + int(trials * len(task.val) * each)

    async def search(self, ctx: Context, task: Task, board: Board) -> None:
        """Propose, try combinations, the likeliest first; then once more, with what came of the first ones in sight.

        Raises:
            ConfigError: without the ``learn`` extra.
        """
        rng = random.Random(f"instructions {task.seed}")  # noqa: S311 - choices, no secret
        choices = _Choices({}, {})
        known = await self._known(ctx, board, rng)
        for name, part in board.parts.items():
            found = demos_met(board, part, task.train, known)
            sets = [balanced(found, self._demos, rng) for _ in range(self._demo_sets)] if found else []
            choices.instructions[name] = [None]
            choices.demos[name] = [(), *sets]
        scored: dict[str, tuple[dict[str, int], float]] = {}
        half = -(-self._proposals // 2)
        for number, share in ((0, 0.5), (half, 1.0)):
            for name, part in board.parts.items():
                tips = range(number, min(number + half, self._proposals))
                await self._propose(ctx, board, _Asking(part, choices.instructions[name], known, rng), tips, scored)
            await self._try(ctx, board, choices, scored, share * board.left)

    async def _known(self, ctx: Context, board: Board, rng: random.Random) -> dict[str, Outcome]:
        """How the base answered rows to learn from: some are asked now, where that leaves room for the search."""
        task = board.task
        if self._grounded and board.affords(3 * len(task.train)):
            await board.score(ctx, board.base, rng.sample(task.train, min(len(task.train), 2 * _SHOWN)))
        return board.known(board.base, (*task.train, *task.val))

    async def _propose(
        self,
        ctx: Context,
        board: Board,
        asking: _Asking,
        numbers: Sequence[int],
        scored: Mapping[str, tuple[dict[str, int], float]],
    ) -> None:
        task, part, rng = board.task, asking.part, asking.rng
        for number in numbers:
            # proposals must leave room to try them
            if not board.affords(2 * len(task.val) + 1):
                break
            rows = rng.sample(task.train, min(_SHOWN, len(task.train)))
            # failures first: what is right already teaches least
            rows.sort(key=lambda row: asking.known[row.key].score if row.key in asking.known else 0.5)
            examples = "\n\n".join(example(row, asking.known.get(row.key)) for row in rows)
            inputs: dict[str, Any] = {
                "program": described(part),
                "current": part.instructions,
                "examples": examples if self._grounded else "none",
                "tried": _past(asking, scored) if self._grounded else "none",
                "tip": _TIPS[number % len(_TIPS)],
            }
            asked = await board.ask(ctx, ProposeInstruction, writer(task, part, task.seed * 1000 + number), inputs)
            text = None if asked is None else usable(asked["instruction"], part)
            if text is not None and text not in asking.made:
                asking.made.append(text)

    async def _try(
        self,
        ctx: Context,
        board: Board,
        choices: _Choices,
        scored: dict[str, tuple[dict[str, int], float]],
        calls: float,
    ) -> None:
        """Combinations, until so many calls are used or none is left."""
        if choices.count == 1:
            return
        rows = len(board.task.val)
        first = board.standing(board.start)
        start = 0.0 if first is None else first.score
        past = [(dict.fromkeys((name for name, _ in _sizes(choices)), 0), start), *scored.values()]
        study = _study(board.task.seed, choices, past, bayesian=self._bayesian)
        floor = board.left - calls
        for _ in range(4 * choices.count):
            if not board.affords(rows) or board.left - rows * board.each < floor or len(scored) >= choices.count - 1:
                break
            trial = study.ask()
            picked = {name: trial.suggest_categorical(name, list(range(count))) for name, count in _sizes(choices)}
            candidate = _candidate(board.start, choices, picked)
            if candidate.id not in scored and candidate.id != board.start.id:
                outcomes = await board.score(ctx, candidate)
                scored[candidate.id] = (picked, sum(one.score for one in outcomes) / len(outcomes))
            study.tell(trial, scored.get(candidate.id, (picked, start))[1])


@dataclass(frozen=True, slots=True)
class _Asking:
    """One program's proposals: those made so far (the first is what it has), and what they are made from."""

    part: Part
    made: list[str | None]
    known: Mapping[str, Outcome]
    rng: random.Random


def _past(asking: _Asking, scored: Mapping[str, tuple[dict[str, int], float]]) -> str:
    """The instructions tried so far and their mean scores, the best last, where a model looks first."""
    name = f"{asking.part.name} instructions"
    means: dict[int, list[float]] = {}
    for picked, score in scored.values():
        means.setdefault(picked[name], []).append(score)
    ranked = sorted((sum(some) / len(some), at) for at, some in means.items() if asking.made[at] is not None)
    return "\n\n".join(f"score {mean:.2f}: {asking.made[at]}" for mean, at in ranked[-4:]) or "none"


def _candidate(base: Candidate, choices: _Choices, picked: Mapping[str, int]) -> Candidate:
    made = base
    words: list[str] = []
    for name, some in choices.instructions.items():
        at, set_at = picked[f"{name} instructions"], picked[f"{name} demos"]
        params = Params(instructions=some[at], demos=choices.demos[name][set_at])
        if at or set_at:
            said = [f"instruction {at}"] if at else []
            said += [f"demos {set_at}"] if set_at else []
            words.append(f"{name.rsplit('.', 1)[-1]} with {' and '.join(said)}")
            made = made.over(name, params, "; ".join(words))
    return Candidate(made.params, made.how, (base.id,)) if made is not base else base


def _sizes(choices: _Choices) -> list[tuple[str, int]]:
    return [(f"{name} instructions", len(some)) for name, some in choices.instructions.items()] + [
        (f"{name} demos", len(some)) for name, some in choices.demos.items()
    ]


def _study(seed: int, choices: _Choices, past: Sequence[tuple[Mapping[str, int], float]], *, bayesian: bool) -> Study:
    """A study that knows what was tried."""
    try:
        import optuna
    except ImportError as error:
        raise ConfigError("searching over instructions needs optuna: pip install 'kaizen-engine[learn]'") from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    samplers = optuna.samplers
    sampler = samplers.TPESampler(seed=seed, n_startup_trials=6) if bayesian else samplers.RandomSampler(seed=seed)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    spaces = {name: optuna.distributions.CategoricalDistribution(list(range(count))) for name, count in _sizes(choices)}
    for picked, value in past:
        study.add_trial(optuna.create_trial(params=dict(picked), distributions=dict(spaces), value=value))
    return study
