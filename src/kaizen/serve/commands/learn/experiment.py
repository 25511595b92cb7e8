"""``kaizen experiment start``, ``status`` and ``stop``."""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections.abc import Sequence
from typing import Final, cast, get_args

from kaizen.core.artifact import BASE
from kaizen.core.errors import ConfigError, NotFound
from kaizen.learn.experiment.definition import GUARDS, RULE, Definition, Guard, Quantity, Rule, Standing
from kaizen.learn.experiment.experiments import Experiment, Experiments, arms_of
from kaizen.ledger.scores import FEEDBACK
from kaizen.registry.registry import PROD
from kaizen.serve.arguments import Command, Parser, nearest, say, whole_number
from kaizen.serve.commands.registry.named import add_name, add_reason, add_whose, by, opened, subject, whose
from kaizen.serve.commands.tables import json_text, write_table
from kaizen.serve.doors import Doors, Runs, using
from kaizen.serve.errors import OK
from kaizen.serve.shown.learning import experiment_json
from kaizen.serve.shown.versions import arm_of

_COLUMNS: Final = ("version", "share", "subjects", "score", "difference", "95 %, always valid", "calls", "errors")

# -- start ----------------------------------------------------------------------------------------


def add_rule(parser: Parser) -> None:
    """Add the flags of a rule."""
    parser.add_argument("--least", type=whole_number, default=RULE.least, metavar="N", help="subjects an arm needs")
    parser.add_argument(
        "--alpha", type=float, default=RULE.alpha, metavar="P", help="how often a no better arm may win"
    )
    parser.add_argument(
        "--effect", type=float, default=RULE.effect, metavar="D", help="differences too small to matter"
    )
    parser.add_argument("--days", type=float, default=RULE.days, metavar="N", help="after so many it is inconclusive")
    parser.add_argument("--subjects", type=whole_number, default=RULE.subjects, metavar="N", help="or after so many")
    parser.add_argument(
        "--per-subject", type=whole_number, default=RULE.scores, metavar="N", help="scores of a subject that count"
    )
    parser.add_argument(
        "--window", type=float, default=RULE.window_s, metavar="S", help="seconds after which a subject counts as it is"
    )
    parser.add_argument(
        "--guard",
        action="append",
        default=[],
        metavar="WHAT=MARGIN",
        help="what stops it early: errors=0.02, score=0.1 (differences), latency=1.5, cost=1.5 (ratios); none for none",
    )


def rule_of(args: argparse.Namespace) -> Rule:
    """The rule that the flags say.

    Raises:
        ConfigError: a guard is none.
    """
    return Rule(
        least=args.least,
        alpha=args.alpha,
        effect=args.effect,
        guards=_guards(args.guard),
        days=args.days,
        subjects=args.subjects,
        scores=args.per_subject,
        window_s=args.window,
    )


def _guards(words: Sequence[str]) -> tuple[Guard, ...]:
    if not words:
        return GUARDS
    if list(words) == ["none"]:
        return ()
    made: list[Guard] = []
    for word in words:
        name, _, margin = word.partition("=")
        if name not in get_args(Quantity):
            raise ConfigError(f"--guard {word}: there is no guard {name!r}{nearest(name, get_args(Quantity))}")
        try:
            made.append(Guard(cast("Quantity", name), float(margin)))
        except ValueError:
            raise ConfigError(f"--guard {word} should read {name}=MARGIN, such as {name}=0.05") from None
    return tuple(made)


def _start_arguments(parser: Parser) -> None:
    add_name(parser)
    parser.add_argument(
        "--arms", required=True, metavar="V=SHARE,V=SHARE", help="versions and their shares; the first is the control"
    )
    parser.add_argument(
        "--metric", default=FEEDBACK, metavar="NAME", help="name of the scores that decide (default: people's feedback)"
    )
    parser.add_argument("--label", default=PROD, metavar="LABEL", help="whose traffic is split (default: prod)")
    add_rule(parser)
    add_reason(parser)
    add_whose(parser)


def _start(args: argparse.Namespace, doors: Doors) -> int:
    word, rule = opened(args.name), rule_of(args)

    async def work(app: Runs) -> Experiment:
        scope = whose(app, args)
        what = await subject(app.registry, scope, word)
        program = what.name
        meant = await arms_of(app.registry, scope, program, args.arms, args.label)
        arms = tuple([await arm_of(app.registry, scope, what, arm.version, arm.weight) for arm in meant])
        definition = Definition(
            program=program, arms=arms, metric=args.metric, begun=time.time(), label=args.label, rule=rule
        )
        return await Experiments(app.ledger, app.registry).start(scope, definition, actor=by(args), reason=args.reason)

    _show(asyncio.run(using(doors.app(), work)), args)
    return OK


START: Final = Command(
    _start_arguments,
    _start,
    (
        (
            "kaizen experiment start triage.py:Triage --arms prod=0.5,latest=0.5",
            "half of the subjects get the newest version, until people's scores tell which is better",
        ),
        (
            "kaizen experiment start triage.Triage --arms 3=0.9,4=0.1 --effect 0.02 --guard errors=0.01",
            "a tenth gets version 4; gains under two points are not worth it, and one guard watches errors",
        ),
    ),
)

# -- status ---------------------------------------------------------------------------------------


def _status_arguments(parser: Parser) -> None:
    add_name(parser)
    add_whose(parser)


def _status(args: argparse.Namespace, doors: Doors) -> int:
    word = opened(args.name)

    async def work(app: Runs) -> Experiment:
        scope = whose(app, args)
        program = (await subject(app.registry, scope, word)).name
        experiments = Experiments(app.ledger, app.registry)
        found = await experiments.step(scope, program) or await experiments.status(scope, program)
        if found is None:
            raise NotFound(f"there was no experiment on {program} yet: `kaizen experiment start` begins one")
        return found

    _show(asyncio.run(using(doors.app(), work)), args)
    return OK


STATUS: Final = Command(
    _status_arguments,
    _status,
    (
        ("kaizen experiment status triage.py:Triage", "judge what has come; if the rule is met, it ends here and now"),
        ("kaizen experiment status triage.Triage --json", "as JSON"),
    ),
)

# -- stop -----------------------------------------------------------------------------------------


def _stop_arguments(parser: Parser) -> None:
    add_name(parser)
    add_reason(parser)
    add_whose(parser)


def _stop(args: argparse.Namespace, doors: Doors) -> int:
    word = opened(args.name)

    async def work(app: Runs) -> Experiment:
        scope = whose(app, args)
        program = (await subject(app.registry, scope, word)).name
        experiments = Experiments(app.ledger, app.registry)
        return await experiments.stop(scope, program, actor=by(args), reason=args.reason or "by hand")

    _show(asyncio.run(using(doors.app(), work)), args)
    return OK


STOP: Final = Command(
    _stop_arguments,
    _stop,
    (('kaizen experiment stop triage.py:Triage --reason "the season is over"', "the control gets the label back"),),
)

# -- what is shown --------------------------------------------------------------------------------


def _show(experiment: Experiment, args: argparse.Namespace) -> None:
    if args.json:
        sys.stdout.write(f"{json_text(experiment_json(experiment))}\n")
        return
    definition = experiment.definition
    head = f"experiment {experiment.number} on {definition.program}@{definition.label}: {experiment.state}"
    sys.stdout.write(f"{head}\n")
    if experiment.reason:
        sys.stdout.write(f"{experiment.reason}\n")
    rows = [_row(one) for one in experiment.standings]
    write_table(_COLUMNS, rows, numbers=_COLUMNS[1:])
    if experiment.others and not any(one.subjects for one in experiment.standings):
        named = ", ".join(f"{count} named {name}" for name, count in experiment.others.items())
        say(f"no scores named {definition.metric} have come; there are {named}")


def _row(one: Standing) -> tuple[str, ...]:
    return (
        one.version if one.version == BASE else one.version[:12],
        f"{one.weight:.0%}",
        str(one.subjects),
        "-" if one.score is None else f"{one.score:.3f}",
        "-" if one.difference is None else f"{one.difference:+.3f}",
        "-" if one.low is None or one.high is None else f"{one.low:+.3f} to {one.high:+.3f}",
        str(one.calls),
        str(one.errors),
    )
