"""``kaizen optimize``: better params for a program, searched for within a budget, tested once, kept as a version."""

from __future__ import annotations

import argparse
import asyncio
import shlex
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from kaizen.core.artifact import BASE
from kaizen.core.context import Program
from kaizen.core.errors import ConfigError
from kaizen.learn.data.rows import Row, read_rows
from kaizen.learn.data.split import kept_back
from kaizen.learn.figures import Figures
from kaizen.learn.optimize.compose import SEARCHES
from kaizen.learn.optimize.kept import check_enough, start_at
from kaizen.serve.arguments import Command, Parser, whole_number
from kaizen.serve.commands.learn.searching import watching
from kaizen.serve.commands.select import find
from kaizen.serve.commands.tables import json_text
from kaizen.serve.doors import Doors, Optimized, Optimizing, Runs, using
from kaizen.serve.errors import INTERRUPTED, OK
from kaizen.serve.load import load_program
from kaizen.serve.measures import load_metric
from kaizen.serve.shown.learning import optimized_json, words_changed

_BUDGET: Final = 500
_WHOLE_ID: Final = 36
_WORDS: Final = 40


def _arguments(parser: Parser) -> None:
    parser.add_argument("target", nargs="?", metavar="FILE.py:Name", help="the program")
    parser.add_argument("--signature", metavar="FILE.py:Name", help="the same, by a flag")
    parser.add_argument("--train", type=Path, metavar="ROWS", help="rows to learn from: .jsonl, .csv or .parquet")
    parser.add_argument("--val", type=Path, metavar="ROWS", help="rows to choose by (default: a third of --train)")
    parser.add_argument("--test", type=Path, metavar="ROWS", help="rows to test on, once, at the end")
    parser.add_argument("--metric", default="accuracy", metavar="NAME", help="what judges answers (default: accuracy)")
    parser.add_argument(
        "--budget",
        type=whole_number,
        default=_BUDGET,
        metavar="N",
        help="requests that may reach a model, the test's too",
    )
    parser.add_argument("--budget-tokens", type=whole_number, metavar="N", help="tokens that may be used")
    parser.add_argument("--budget-usd", type=_positive, metavar="USD", help="dollars that may be spent")
    parser.add_argument("--budget-seconds", type=_positive, metavar="S", help="seconds that it may take")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of every draw (default: 0)")
    parser.add_argument("--optimizer", default="compose", choices=tuple(SEARCHES), help="how to search")
    parser.add_argument("--teacher", metavar="REF", help="the model that writes proposals (default: the program's own)")
    parser.add_argument(
        "--models", default="", metavar="REF,REF", help="models that --optimizer models may choose from"
    )
    parser.add_argument("--from", dest="start", default=BASE, metavar="VERSION", help="where to start: base, prod, 3")
    parser.add_argument(
        "--concurrency", type=whole_number, metavar="N", help="rows at once (default: 8; 1 on the embedded model)"
    )
    parser.add_argument("--release", action="store_true", help="move the label prod to the winner")
    parser.add_argument("--resume", metavar="RUN", help="go on with a run that was stopped")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")


def _positive(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError(f"should be a number above 0, not {text!r}")
    return number


def _optimize(args: argparse.Namespace, doors: Doors) -> int:
    target = args.target or args.signature
    if target is None or (args.target and args.signature):
        raise ConfigError("name the program once: kaizen optimize FILE.py:Name, or --signature=FILE.py:Name")
    if args.train is None:
        raise ConfigError("--train ROWS is needed: a .jsonl, .csv or .parquet file of rows with inputs and outputs")
    program = load_program(target)
    train, val, test = _rows(program, args)
    wanted = Optimizing(
        program=program,
        train=train,
        val=val,
        test=test,
        metric=load_metric(args.metric, program),
        optimizer=args.optimizer,
        calls=args.budget,
        tokens=args.budget_tokens,
        usd=args.budget_usd,
        seconds=args.budget_seconds,
        seed=args.seed,
        teacher=None if args.teacher is None else _ref("--teacher", args.teacher),
        models=tuple(_ref("--models", one) for one in args.models.split(",") if one),
        concurrency=args.concurrency,
        run_id=args.resume,
        resumed=args.resume is not None,
        release=args.release,
    )
    again = [word for at, word in enumerate(args.words) if not _resumes(args.words, at)]
    ended: list[Optimized] = []
    run_id: list[str] = []
    with watching(sys.stderr) as watch:

        def begun(run: str, calls: int, rows: int) -> None:
            run_id.append(run)
            fits = "" if calls <= wanted.calls else ", as far as the budget goes"
            watch.say(
                f"run {run}: {args.optimizer} on {len(train) + len(val) - rows} rows to learn from and {rows} to "
                f"choose by; some {calls + rows} calls at one a row{fits}; at most {wanted.calls}"
            )

        async def work(app: Runs) -> None:
            chosen = await _resumed(app, wanted, args.start)
            ended.append(await doors.optimize(app, replace(chosen, begun=begun, told=watch.show)))

        try:
            asyncio.run(using(doors.app(), work))
        except BaseException as error:
            if run_id:
                command = shlex.join(["kaizen", "optimize", *again, "--resume", run_id[0]])
                watch.say(f"stopped; what is on record is not paid again. Go on with: {command}")
            if isinstance(error, KeyboardInterrupt):
                return INTERRUPTED
            raise
    if args.json:
        sys.stdout.write(f"{json_text(optimized_json(ended[0], wanted), indent=2)}\n")
    else:
        sys.stdout.write(_as_text(ended[0], wanted))
    return OK


def _resumes(words: Sequence[str], at: int) -> bool:
    """Whether a word of the command line names a run to resume."""
    return words[at].startswith("--resume") or (at > 0 and words[at - 1] == "--resume")


def _rows(program: Program, args: argparse.Namespace) -> tuple[tuple[Row, ...], tuple[Row, ...], tuple[Row, ...]]:
    spec = program.spec
    train = read_rows(args.train, spec)
    if args.val is not None:
        val = read_rows(args.val, spec)
    else:
        train, val = kept_back(train, args.seed)
    check_enough(train, val)
    test = () if args.test is None else read_rows(args.test, spec)
    return train, val, test


def _ref(flag: str, text: str) -> str:
    provider, _, model = text.partition("/")
    if not provider or not model:
        raise ConfigError(f"{flag} {text!r} should read provider/model, such as embedded/smollm2-135m")
    return text


async def _resumed(app: Runs, wanted: Optimizing, start: str) -> Optimizing:
    """The same, with the run's whole id and the params to start from."""
    if wanted.run_id is not None and len(wanted.run_id) < _WHOLE_ID:  # a killed run may have no record yet
        wanted = replace(wanted, run_id=(await find(app, wanted.run_id)).run_id)
    return replace(wanted, start=await start_at(app.registry, app.scope, wanted.program.spec.name, start))


# -- what came of it --------------------------------------------------------------------------------


def _as_text(ended: Optimized, wanted: Optimizing) -> str:
    report = ended.report
    lines: list[str] = []
    if report.improved:
        lines.append(f"improved by {report.optimizer}: {report.reason}")
    else:
        lines.append(f"no improvement: {report.reason}; nothing was changed")
    if report.test is not None:
        some = (
            "" if report.test.rows == report.test_rows else f" of {report.test_rows}: the budget was enough for those"
        )
        lines += _table(report.test, f"on {report.test.rows} held-out rows{some}")
    elif report.test_rows:
        why = "no budget was left for them" if report.improved else "there was nothing to test, and they stay shut"
        lines.append(f"the {report.test_rows} held-out rows were not tested: {why}")
    if report.chosen_on is not None and report.test is None:
        chosen = "it was chosen by, which flatter it" if report.improved else "to choose by"
        lines += _table(report.chosen_on, f"on the {report.chosen_on.rows} rows {chosen}")
    usd = "price unknown" if ended.usd is None else f"${ended.usd:.4g}"
    lines.append(
        f"{ended.calls} of {wanted.calls} calls, {ended.tokens:,} tokens, {usd}, {ended.seconds:.0f} s; "
        f"{report.candidates} candidates tried, run {ended.run_id}"
    )
    if report.stopped:
        lines.append(f"the search ended early: {report.stopped}")
    if report.improved:
        words = words_changed(report.params, wanted).rstrip().splitlines()
        cut = (
            [f"... and {len(words) - _WORDS} more lines: kaizen registry diff shows them"]
            if len(words) > _WORDS
            else []
        )
        lines += ["", *words[:_WORDS], *cut, ""]
        for name, number in ended.versions.items():
            shown = (
                "released: prod shows it"
                if ended.released
                else f"release it: kaizen registry label {name}@{number} prod"
            )
            lines.append(f"saved as params/{name}@{number}; {shown}")
    return "\n".join(lines) + "\n"


def _table(figures: Figures, where: str) -> list[str]:
    sure = "" if figures.low > 0 else "; the interval holds 0: more rows would tell"
    lines = [
        f"before {figures.before:.3f}, after {figures.after:.3f}, gain {figures.gain:+.3f} "
        f"(95 % {figures.low:+.3f} to {figures.high:+.3f}) {where}{sure if figures.gain > 0 else ''}"
    ]
    before, after = figures.usd_before, figures.usd_after
    tokens = f"{figures.tokens_before:.0f} tokens a row before, {figures.tokens_after:.0f} after"
    money = "" if before is None or after is None else f"; ${before:.6f} a row before, ${after:.6f} after"
    return [*lines, tokens + money]


OPTIMIZE: Final = Command(
    _arguments,
    _optimize,
    (
        (
            "kaizen optimize triage.py:Triage --train train.jsonl --test test.jsonl --metric accuracy --budget 500",
            "search, test the winner once on held-out rows, keep it as a version",
        ),
        (
            "kaizen optimize triage.py:Triage --train train.jsonl --val val.jsonl --optimizer reflective --release",
            "one optimizer by itself; the winner is released at once",
        ),
        ("kaizen optimize triage.py:Triage --train train.jsonl --resume 0193a1f0", "go on with a run that was stopped"),
    ),
)
