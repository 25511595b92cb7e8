"""How an answer is taken from the model: its form, what stands before it, and its values weighed by log-probability.

A small model's main fault is that it likes some labels whatever it reads. So the values of fields are weighed: by
log-probability, without each label's usual lead, with the say of the nearest rows. Which of these helps differs from
task to task, and few rows can't tell many candidates apart. So they are compared by the log-loss of weights on rows
they were not fitted to, which says more with twenty rows than the count of right ones, and only the best go on the
board.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from kaizen.core.context import Context
from kaizen.core.errors import ConfigError
from kaizen.core.params import NOTHING, Demo, OutputMode, Params
from kaizen.learn.data.rows import Row, canonical
from kaizen.learn.optimize.board import Board
from kaizen.learn.optimize.fit import Case, Fitted, losses
from kaizen.learn.optimize.instructions import balanced
from kaizen.learn.optimize.task import Candidate, Part, Task
from kaizen.learn.optimize.weighing import Fields, demo_for, fields_of, fitted, weighed, with_weights
from kaizen.programs.predict import DRAWN

NEAREST: Final = 8
_MODES: Final[tuple[OutputMode, ...]] = ("schema", "json", "text")
# What a label may be called where its field's name says little: the model knows these words from its own reading.
_HEADINGS: Final = ("answer", "category", "sentiment", "topic", "intent", "type")
_FIXED_CHARS: Final = 9000
_SHOWN: Final = 40
_VOTES: Final = 5
# From so many fields on, an example with its fields one by one is asked too often to try more than one way.
_SEVERAL: Final = 3
_DESCRIPTION: Final = 60


@dataclass(frozen=True, slots=True)
class _Try:
    """One way to ask, with weights fitted to what it gave."""

    params: Params
    how: str
    cases: dict[str, list[Case]]
    found: dict[str, Fitted]

    @property
    def loss(self) -> float:
        return losses(self.found)


@dataclass(frozen=True, slots=True)
class _Way:
    """One way to ask."""

    params: Params
    how: str
    fields: Fields

    @property
    def calls(self) -> int:
        """Model calls a row."""
        return calls_of(self.params, self.fields)


class Decoding:
    """Values weighed where they can be, else the form of the answer.

    Args:
        headings: whether other words before the answer are tried.
        near: whether nearest rows have a say.
    """

    name = "decoding"

    def __init__(self, *, headings: bool = True, near: bool = True) -> None:
        self._headings, self._near = headings, near

    def estimate(self, task: Task, each: float) -> int:
        """One pass over all rows, and one over those to choose by for each heading."""
        fields = fields_of(task.program.spec, task.train)
        count = len(fields.names)
        if not count:
            return int((len(_MODES) + _VOTES) * len(task.val) * each)
        headings = len(_HEADINGS) // 2 + 3 if self._headings and count == 1 else 0
        return count * (len(task.train) + (3 + headings) * len(task.val))

    async def search(self, ctx: Context, task: Task, board: Board) -> None:
        """Weigh what can be weighed; and try the other forms of an answer where a model can be held to one."""
        places = [ctx.fork() for _ in range(2)]
        part = board.parts.get(task.name)
        if part is not None and not part.way:
            fields = fields_of(part.spec, (*task.train, *task.val))
            if fields.names and await self._weighed(places[0], task, board, part):
                return
        await self._modes(places[1], task, board)

    async def _modes(self, ctx: Context, task: Task, board: Board) -> None:
        """The forms of an answer, and greedy decoding, for the program itself."""
        part = board.parts.get(task.name)
        if part is None or board.start.params.get(task.name, NOTHING).layout == "plain":
            return
        for mode in _MODES:
            if mode == (part.params.output_mode or "json") or not board.affords(len(task.val)):
                continue
            candidate = board.start.over(task.name, Params(output_mode=mode, temperature=0.0), f"answer as {mode}")
            await board.score(ctx, candidate)
        each = _VOTES * board.each
        if not part.way and board.affords(len(task.val), each):
            how = f"what most of {_VOTES} answers say"
            greedy = board.start.params.get(task.name, NOTHING).over(part.params).temperature == 0
            params = Params(votes=_VOTES, temperature=DRAWN if greedy else None)  # at 0 all would say the same
            await board.score(ctx, board.start.over(task.name, params, how), each=each)

    # -- weighing ---------------------------------------------------------------------------------

    async def _weighed(self, ctx: Context, task: Task, board: Board, part: Part) -> bool:
        """Put the best way to have values weighed on the board; whether there is any, and were calls enough."""
        tries = await self._ways(ctx, task, board, part)
        if not tries or math.isinf(tries[0].loss):
            return False
        # one alone: each more that is compared with the base makes it likelier that one wins by luck
        candidate, more = await self._finished(ctx, task, board, part, tries[0])
        each = _again(task, calls_of(tries[0].params, fields_of(part.spec, (*task.train, *task.val))))
        await board.score(ctx, candidate, each=each)
        if more and board.affords(len(more), board.each + each):
            await board.score(ctx, board.base, more)
            await board.score(ctx, candidate, more, each=each)
        return True

    async def _ways(self, ctx: Context, task: Task, board: Board, part: Part) -> list[_Try]:
        """Ways to ask, compared on the rows to choose by; the best first."""
        fields = fields_of(part.spec, (*task.train, *task.val))
        tries: list[_Try] = []
        headings: Mapping[str, str] | None = None
        for way in await self._arranged(ctx, task, board, part, fields):
            here = replace(way, params=replace(way.params, headings=headings))
            alone = len(fields.few) == 1 and not fields.copied and way.params.layout == "plain"
            if self._headings and alone and headings is None:
                found = await self._headed(ctx, board, part, here)
                headings = min(found, key=lambda one: one.loss).params.headings if found else None
            else:
                found = await self._whole(ctx, board, part, [here])
            tries += found
        return sorted(tries, key=lambda one: one.loss)

    async def _arranged(self, ctx: Context, task: Task, board: Board, part: Part, fields: Fields) -> list[_Way]:
        """Which rows are shown, and how: the cheapest to ask first."""
        near = self._near and await likeness(ctx)
        scored = {
            name: replace(one, near=1.0 if near or name in fields.copied else 0.0)
            for name, one in fields.weights().items()
        }
        start = board.start.params.get(task.name, NOTHING).over(part.params)
        # greedy, so that the weights are fitted to the answer there is, not to one draw of several
        asked = replace(start, headings=None, scored=scored, contract=None, temperature=0.0)
        every = tuple(demo_for(row, part) for row in (*task.train, *task.val))
        rng = random.Random(f"decoding {task.seed}")  # noqa: S311 - an order
        # Only some are shown, always the same: a prompt that changes is read anew. The others are asked about with the
        # very prompt that will be in use, since a label's lead is a prompt's own, and have their say by nearness.
        shown = balanced([demo_for(row, part) for row in task.train], min(_SHOWN, len(every) // 2), rng)
        fixed = within(shown, _FIXED_CHARS)
        pool = (*fixed, *(demo for demo in every if demo not in fixed))
        ways: list[_Way] = []
        if fields.few:
            few = {name: scored[name] for name in fields.few}
            chat = replace(asked, layout="chat", scored=few)
            ways.append(_Way(chat, "asked in a conversation", fields))
            if near:
                beside = replace(chat, demos=every, nearest=None, shown=0)
                ways.append(_Way(beside, "asked in a conversation, beside what is near", fields))
        if fixed and set(part.spec.written) == set(part.spec.outputs):
            plain = replace(asked, layout="plain")
            if not near or len(fields.names) < _SEVERAL:
                params = replace(plain, demos=pool, nearest=None, shown=len(fixed))
                ways.append(_Way(params, f"{len(fixed)} examples", fields))
            if near:
                count = min(NEAREST, len(every))
                ways.append(_Way(replace(plain, demos=every, nearest=count), f"the {count} nearest examples", fields))
        return ways

    async def _headed(self, ctx: Context, board: Board, part: Part, way: _Way) -> list[_Try]:
        """Words before the answer, on half of the rows first: most are worse, and are soon known to be."""
        task, name = board.task, way.fields.few[0]
        half = task.val[: -(-len(task.val) // 2)]
        field = part.spec.written[name]
        words = [name.replace("_", " "), *([field.description] if 0 < len(field.description) <= _DESCRIPTION else [])]
        words += [word for word in _HEADINGS if word not in words]
        first: list[tuple[float, int, _Way]] = []
        for number, word in enumerate(words):
            if not board.affords(len(half) + (2 * len(task.val) if number else 0), way.calls):
                break
            here = replace(way, params=replace(way.params, headings={name: word}), how=f"{way.how}, asked for {word!r}")
            made = await self._tried(ctx, board, part, here, half)
            first += [] if made is None else [(made.loss, number, here)]
            if made is None:
                break  # it is not the word that the model can't do
        best = [one for _, _, one in sorted(first, key=lambda one: one[:2])]
        return await self._whole(ctx, board, part, best[: max(1, round(len(words) / 3))])

    async def _whole(self, ctx: Context, board: Board, part: Part, ways: Sequence[_Way]) -> list[_Try]:
        """Ways on all rows to choose by."""
        rows, found = board.task.val, list[_Try]()
        for way in ways:
            if board.affords(len(rows), way.calls + _again(board.task, way.calls)):
                made = await self._tried(ctx, board, part, way, rows)
                found += [] if made is None else [made]
        return found

    async def _tried(self, ctx: Context, board: Board, part: Part, way: _Way, rows: Sequence[Row]) -> _Try | None:
        cases = await weighed(ctx.fork(), board, part, way.params, rows)
        if cases is None:
            return None
        found = fitted(cases, way.fields, board.task.seed)
        if not found:
            return None
        board.tell(f"{way.how}: {losses(found):.3f} nats on {len(rows)} rows")
        return _Try(way.params, way.how, cases, found)

    async def _finished(
        self, ctx: Context, task: Task, board: Board, part: Part, one: _Try
    ) -> tuple[Candidate, list[Row]]:
        """The same way with weights fitted to as many rows as there are calls for; and those of them to learn from."""
        fields = fields_of(part.spec, (*task.train, *task.val))
        cases, calls = one.cases, calls_of(one.params, fields)
        room = _room(task, board) + len(task.val) * _again(task, calls)
        unseen = _unseen(task, part, one.params)
        # each of them is a call for the base too: what was fitted to it may well be compared on it
        count = min(len(unseen), int(max(0.0, board.left - room) / (calls + _again(task, calls) + board.each)))
        drawn = random.Random(f"fit {task.seed}").sample(unseen, count)  # noqa: S311 - a choice of rows
        if drawn:
            more = await weighed(ctx.fork(), board, part, one.params, drawn)
            cases = {name: [*some, *(more or {}).get(name, ())] for name, some in cases.items()}
        params = with_weights(one.params, fitted(cases, fields, task.seed))
        made = {**board.start.params, task.name: _said(params, part.params)}
        count = len(next(iter(cases.values())))
        return Candidate(made, f"{one.how}, weighed on {count} rows", (board.start.id,)), drawn


def _unseen(task: Task, part: Part, params: Params) -> list[Row]:
    """The rows to learn from that are not among the examples that are always shown."""
    seen = params.demos[: params.shown or 0]
    return [row for row in task.train if demo_for(row, part) not in seen]


def calls_of(params: Params, fields: Fields) -> int:
    """Model calls that weighing the values of one row takes."""
    return len(fields.names) + bool(fields.others) if params.layout == "plain" else 1


async def likeness(ctx: Context) -> bool:
    """Whether texts can be compared here."""
    try:
        await ctx.embed(["a text"])
    except ConfigError:
        return False
    return True


def within(demos: Sequence[Demo], chars: int) -> tuple[Demo, ...]:
    """The first demos that are so many characters together: a prompt has room for so many."""
    kept: list[Demo] = []
    for demo in demos:
        chars -= len(canonical([demo.inputs, demo.outputs]))
        if chars < 0:
            break
        kept.append(demo)
    return tuple(kept)


def _again(task: Task, calls: int) -> float:
    """Calls a row for scoring what was compared before: it is greedy, so that a cache, where there is one, has it."""
    return 0.0 if task.cached else float(calls)


def _room(task: Task, board: Board) -> float:
    """Calls to keep: for telling the best apart from the base afterwards."""
    return board.each * len(task.val) / 2


def _said(params: Params, known: Params) -> Params:
    """Only what differs from the params it runs with anyway."""
    kept: dict[str, object] = {}
    for name in Params.__dataclass_fields__:
        value = getattr(params, name)
        if value not in (None, ()) and value != getattr(known, name):
            kept[name] = value
    return Params(**kept)  # type: ignore[arg-type]
