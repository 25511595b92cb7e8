"""``kaizen loop start``, ``run``, ``status``, ``history``, and a person's word: ``approve``, ``pause`` and the like."""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar, get_args

from kaizen.core.context import Program
from kaizen.core.errors import ConfigError
from kaizen.core.scope import Scope
from kaizen.learn.data.dataset import Dataset
from kaizen.learn.data.rows import read_rows
from kaizen.learn.loop.loop import Loop, State
from kaizen.learn.loop.plan import WATCH, Asks, Plan, Watch
from kaizen.learn.loop.rows import may_begin
from kaizen.learn.loop.steps import Step
from kaizen.learn.loop.tunable import TUNING, Tunable, Value
from kaizen.learn.optimize.compose import SEARCHES
from kaizen.ledger.scores import FEEDBACK
from kaizen.programs.signature import mark_of
from kaizen.serve.arguments import Command, Parser, say, whole_number
from kaizen.serve.commands.learn.experiment import add_rule, rule_of
from kaizen.serve.commands.registry.named import add_reason, by, opened
from kaizen.serve.commands.tables import json_text, write_table
from kaizen.serve.doors import Doors, Runs, using
from kaizen.serve.errors import OK
from kaizen.serve.load import load_program
from kaizen.serve.measures import load_metric
from kaizen.serve.shown.learning import status_json

T = TypeVar("T")

_EVERY_S: Final = 10.0

# -- start ----------------------------------------------------------------------------------------


def _start_arguments(parser: Parser) -> None:
    parser.add_argument("target", metavar="FILE.py:Name", help="the program")
    parser.add_argument("--metric", metavar="NAME", help="what candidates are tested with (default: accuracy)")
    parser.add_argument("--floor", type=float, metavar="X", help="a mean score below this calls for a better version")
    parser.add_argument("--train", type=Path, metavar="ROWS", help="labelled rows: .jsonl, .csv or .parquet")
    parser.add_argument(
        "--scores", default=FEEDBACK, metavar="NAME", help="name of the scores that are watched (default: feedback)"
    )
    parser.add_argument("--optimizer", choices=tuple(SEARCHES), help="what proposes (default: compose)")
    parser.add_argument(
        "--tune",
        action="append",
        default=[],
        metavar="NAME=LOW:HIGH",
        help="instead: move this parameter between its bounds, or among values, as in model=up/small,up/large",
    )
    parser.add_argument("--calls", type=whole_number, default=200, metavar="N", help="model calls of one proposal")
    parser.add_argument("--per-day", type=int, default=2, metavar="N", help="proposals a day (default: 2)")
    parser.add_argument("--usd-per-day", type=float, default=1.0, metavar="X", help="dollars a day (default: 1)")
    parser.add_argument("--ask", choices=get_args(Asks), default="large", help="when a person is asked first")
    parser.add_argument("--share", type=float, default=0.5, metavar="X", help="of the subjects, for a candidate")
    parser.add_argument("--harm", type=float, default=WATCH.harm, metavar="X", help="how much worse is to be found")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of every draw (default: 0)")
    add_rule(parser)
    add_reason(parser)
    parser.add_argument("--json", action="store_true", help="print JSON")


def _start(args: argparse.Namespace, doors: Doors) -> int:
    program = load_program(args.target)
    marked = mark_of(program)
    name = program.spec.name
    train = args.train or (None if marked is None or marked.train is None else Path(marked.train))
    if train is None:
        raise ConfigError(f"the loop of {name} needs rows to learn from and to test on: --train rows.jsonl")
    rows = read_rows(train, program.spec)
    metric = args.metric or ("accuracy" if marked is None else marked.metric)
    judged = load_metric(metric, program)
    floor = args.floor if args.floor is not None or marked is None else marked.floor
    rule = rule_of(args)
    tunables = tuple(_tunable(word) for word in args.tune)
    if tunables and args.optimizer:
        raise ConfigError("--tune is what proposes: leave out --optimizer")

    async def work(app: Runs) -> Plan:
        await may_begin(app.registry, app.scope, judged, rows, args.seed)
        artifact = Dataset.of(f"{name}/loop", rows, {"from": train.name}).artifact()
        data = await app.registry.put(app.scope, artifact, author=by(args), reason="rows of the loop")
        plan = Plan(
            program=name,
            target=args.target,
            metric=metric,
            rows=data.artifact.ref,
            scores=args.scores,
            watch=Watch(floor=floor, harm=args.harm),
            rule=rule,
            share=args.share,
            optimizer=TUNING if tunables else args.optimizer or "compose",
            tunables=tunables,
            calls=args.calls,
            per_day=args.per_day,
            usd_per_day=args.usd_per_day,
            asks=args.ask,
            seed=args.seed,
        )
        await doors.loops(app, {name: program}).begin(app.scope, plan, actor=by(args), reason=args.reason)
        return plan

    plan = asyncio.run(using(doors.app(), work))
    if args.json:
        sys.stdout.write(f"{json_text(asdict(plan))}\n")
    else:
        say(f"the loop watches {name}: a gateway, or `kaizen loop run {args.target}`, looks every {_EVERY_S:g} seconds")
    return OK


def _tunable(word: str) -> Tunable:
    """A parameter that may be moved, as ``--tune`` has it.

    Raises:
        ConfigError: it is none, or can't have these values.
    """
    name, _, text = word.partition("=")
    low, colon, high = text.partition(":")
    if colon and "/" not in low:
        bounds = [_value(one) for one in (low, high)]
        if any(isinstance(one, str | bool) for one in bounds):
            raise ConfigError(f"--tune {word} should read {name}=LOW:HIGH, such as temperature=0:0.7")
        return Tunable(name, *bounds)  # pyright: ignore[reportArgumentType] - numbers, as just seen
    return Tunable(name, choices=tuple(_value(one) for one in text.split(",") if one))


def _value(text: str) -> Value:
    """A number or a truth where the text reads as one."""
    if text in ("true", "false"):
        return text == "true"
    for kind in (int, float):
        with suppress(ValueError):
            return kind(text)
    return text


START: Final = Command(
    _start_arguments,
    _start,
    (
        (
            "kaizen loop start triage.py:Triage --metric accuracy --floor 0.8 --train rows.jsonl --usd-per-day 2",
            "watch people's scores; propose, test and release better versions; take back bad ones",
        ),
        ("kaizen loop start triage.py:Triage", "as `@signature.optimized` above the program says"),
        (
            "kaizen loop start triage.py:Triage --train rows.jsonl --tune temperature=0:0.7 --tune repairs=0:3",
            "let it move these parameters, and nothing else",
        ),
    ),
)

# -- run ------------------------------------------------------------------------------------------


def _run_arguments(parser: Parser) -> None:
    parser.add_argument(
        "targets", nargs="*", metavar="FILE.py:Name", help="programs to load now (default: when needed)"
    )
    parser.add_argument("--once", action="store_true", help="look once, do what is called for, and end")
    parser.add_argument(
        "--every", type=float, default=_EVERY_S, metavar="S", help="seconds between looks (default: 10)"
    )


def _run(args: argparse.Namespace, doors: Doors) -> int:
    loaded: dict[str, Program] = {}
    for target in args.targets:
        program = load_program(target)
        loaded[program.spec.name] = program

    async def work(app: Runs) -> None:
        loop = doors.loops(app, loaded)
        await doors.watch(loop, app.scope, None if args.once else args.every, _told)

    asyncio.run(using(doors.app(), work))
    return OK


def _told(program: str, said: str) -> None:
    sys.stdout.write(f"{program}: {said}\n")
    sys.stdout.flush()


RUN: Final = Command(
    _run_arguments,
    _run,
    (
        ("kaizen loop run", "look at every program with a loop, until interrupted"),
        ("kaizen loop run triage.py:Triage --once", "look once: for a timer"),
    ),
)

# -- status and history ---------------------------------------------------------------------------


def _named_arguments(parser: Parser) -> None:
    parser.add_argument("name", metavar="NAME", help="a program's name or its last part, or FILE.py:Name")
    parser.add_argument("--json", action="store_true", help="print JSON")


def _status(args: argparse.Namespace, doors: Doors) -> int:
    found = _with_loop(args, doors, lambda loop, scope, name: loop.status(scope, name))
    if args.json:
        sys.stdout.write(f"{json_text(status_json(found))}\n")
        return OK
    n, mean = found.recent
    sys.stdout.write(
        f"the loop over {found.plan.program} is {found.state}; {found.plan.label} shows {found.version[:12]}\n"
    )
    sys.stdout.write("no scores yet\n" if mean is None else f"{mean:.3f} over the last {n} scores\n")
    sys.stdout.write(
        f"{found.proposals} of {found.plan.per_day} proposals and ${found.usd:.4f} of ${found.plan.usd_per_day:g} "
        "in 24 hours\n"
    )
    if found.waiting is not None:
        sys.stdout.write(f"waits for a person: {found.waiting.said}\n")
    if found.experiment is not None:
        sys.stdout.write(f"experiment {found.experiment.number}: {found.experiment.state}\n")
    if found.last is not None:
        sys.stdout.write(f"last: {found.last.action}: {found.last.said}\n")
    return OK


STATUS: Final = Command(
    _named_arguments, _status, (("kaizen loop status triage.py:Triage", "what it sees, and what it waits for"),)
)


def _history(args: argparse.Namespace, doors: Doors) -> int:
    steps = _with_loop(args, doors, lambda loop, scope, name: loop.history(scope, name))
    if args.json:
        sys.stdout.writelines(f"{json_text(asdict(step))}\n" for step in steps)
        return OK
    write_table(("step", "version", "why"), [(step.action, step.version[:12], step.said) for step in steps])
    return OK


HISTORY: Final = Command(
    _named_arguments, _history, (("kaizen loop history triage.py:Triage", "every step, oldest first"),)
)

# -- a person's word ------------------------------------------------------------------------------


def _word_arguments(parser: Parser) -> None:
    _named_arguments(parser)
    add_reason(parser)


def _answer(yes: bool, args: argparse.Namespace, doors: Doors) -> int:
    def work(loop: Loop, scope: Scope, name: str) -> Coroutine[Any, Any, Step]:
        return loop.answer(scope, name, yes=yes, actor=by(args), comment=args.reason)

    asked = _with_loop(args, doors, work)
    if args.json:
        sys.stdout.write(f"{json_text({**asdict(asked), 'approved': yes})}\n")
    else:
        sys.stdout.write(f"{'approved' if yes else 'declined'}: {asked.said}\n")
    return OK


def _turn(state: State, args: argparse.Namespace, doors: Doors) -> int:
    def work(loop: Loop, scope: Scope, name: str) -> Coroutine[Any, Any, None]:
        return loop.turn(scope, name, state, actor=by(args), reason=args.reason or "by hand")

    _with_loop(args, doors, work)
    if args.json:
        sys.stdout.write(f"{json_text({'name': args.name, 'state': state})}\n")
    else:
        sys.stdout.write(f"the loop over {args.name} is {state}\n")
    return OK


def _word(work: Callable[[argparse.Namespace, Doors], int], line: str, what: str) -> Command:
    return Command(_word_arguments, work, ((line, what),))


APPROVE: Final = _word(
    partial(_answer, True), "kaizen loop approve triage.py:Triage", "have the change that waits tried on live traffic"
)
DECLINE: Final = _word(
    partial(_answer, False), 'kaizen loop decline triage.py:Triage --reason "too long"', "leave things as they are"
)
PAUSE: Final = _word(partial(_turn, "paused"), "kaizen loop pause triage.py:Triage", "its experiment stops, too")
RESUME: Final = _word(partial(_turn, "on"), "kaizen loop resume triage.py:Triage", "go on")
STOP: Final = _word(
    partial(_turn, "stopped"), "kaizen loop stop triage.py:Triage", "for good, until it is started again"
)

# -- inside ---------------------------------------------------------------------------------------


def _with_loop(args: argparse.Namespace, doors: Doors, work: Callable[[Loop, Scope, str], Coroutine[Any, Any, T]]) -> T:
    name, _, program = opened(args.name)

    async def inside(app: Runs) -> T:
        loop = doors.loops(app, {} if program is None else {program.spec.name: program})
        names = await loop.programs(app.scope)
        alike = [one for one in names if one == name or one.endswith(f".{name}")]
        return await work(loop, app.scope, alike[0] if len(alike) == 1 else name)

    return asyncio.run(using(doors.app(), inside))
