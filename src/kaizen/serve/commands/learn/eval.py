"""``kaizen eval``: a program on labelled rows, scored."""

from __future__ import annotations

import argparse
import asyncio
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from kaizen.core.context import EVERY, Program
from kaizen.core.errors import BudgetExceeded, ConfigError
from kaizen.core.params import Params
from kaizen.learn.baseline import WithoutModel
from kaizen.learn.data.rows import Row, read_rows
from kaizen.learn.evaluate.gate import may_decide
from kaizen.learn.evaluate.plan import Plan
from kaizen.learn.evaluate.report import report
from kaizen.learn.evaluate.result import Comparison, Evaluation, RowResult, compare
from kaizen.learn.evaluate.views import Slice, confusion, fields_of, mistakes, slices
from kaizen.serve.arguments import Command, Parser, say, whole_number
from kaizen.serve.batch.progress import Counts, Display, cost_text, display
from kaizen.serve.commands.learn.judging import check_judge
from kaizen.serve.commands.tables import json_text, milliseconds, write_table
from kaizen.serve.doors import Doors, Runs, using
from kaizen.serve.errors import FINDINGS, INTERRUPTED, OK
from kaizen.serve.load import load_program
from kaizen.serve.measures import load_metric
from kaizen.serve.versions import add_version

_SHOWN_LABELS: Final = 12


def _arguments(parser: Parser) -> None:
    parser.add_argument("target", metavar="FILE.py:Name", help="the program; FILE.py alone if it has just one")
    parser.add_argument(
        "--data", type=Path, metavar="ROWS", required=True, help="a .jsonl, .csv or .parquet file of labelled rows"
    )
    parser.add_argument(
        "--metric",
        default="accuracy",
        metavar="METRIC",
        help="accuracy, exact, f1, numeric, json_fields, rouge, similarity, calibration, latency, cost, tokens, "
        "judge:MODEL, FILE.py:Name, or several: '0.7*accuracy, 0.3*rouge, p95 < 200' (default: accuracy)",
    )
    add_version(parser)
    parser.add_argument("--compare", metavar="V", help="run this version on the same rows too, and compare by pairs")
    parser.add_argument("--model", metavar="REF", help="the model to ask instead, such as embedded/smollm2-135m")
    parser.add_argument("--limit", type=whole_number, metavar="N", help="only the first N rows")
    parser.add_argument("--rename", action="append", default=[], metavar="OLD=NEW", help="call a column otherwise")
    parser.add_argument("--concurrency", type=whole_number, default=8, metavar="N", help="rows at once (default: 8)")
    parser.add_argument("--budget", type=whole_number, metavar="CALLS", help="the most requests that may reach a model")
    parser.add_argument("--resume", metavar="RUN", help="go on with a run: no answer on record is paid for again")
    parser.add_argument("--slice", metavar="FIELD", help="the score by the values of a column")
    parser.add_argument("--predictions", type=Path, metavar="FILE", help="write each row's answer and score as a line")
    parser.add_argument("--html", type=Path, metavar="FILE", help="write a report that a browser shows")
    parser.add_argument("--at-least", type=float, metavar="SCORE", help="exit with 1 where the score is lower")
    parser.add_argument(
        "--without-model", action="store_true", help="ask no model: learn from the rows of --train alone"
    )
    parser.add_argument("--train", type=Path, metavar="ROWS", help="the rows that --without-model learns from")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of what --without-model draws (default: 0)")
    parser.add_argument(
        "--judge-check", action="store_true", help="measure how a judge agrees with people's scores (--data has them)"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")


@dataclass(frozen=True, slots=True)
class _Found:
    """What there is to show.

    Args:
        evaluation: of the version asked for.
        other: of the version compared with.
        comparison: how they compare.
        parts: the score by the values of a column.
    """

    evaluation: Evaluation
    other: Evaluation | None = None
    comparison: Comparison | None = None
    parts: Sequence[Slice] | None = None


def _eval(args: argparse.Namespace, doors: Doors) -> int:
    program = load_program(args.target)
    judged = load_metric(args.metric, program)
    if args.judge_check:
        return check_judge(args, judged, doors)
    if args.without_model != (args.train is not None):
        raise ConfigError("--without-model and --train ROWS go together")
    rows = read_rows(args.data, program.spec, renames=_renames(args.rename))[: args.limit]
    _check_writable(args)
    plan = _plan(args, program, rows, judged)
    app = doors.app()  # after the user's file is loaded, which may have configured it
    say(f"run {plan.run_id}: {len(rows)} rows of {args.data}")  # whoever is killed can't say it later
    shown = display(sys.stderr)
    counts = Counts(total=len(rows) * len(plan.versions))
    try:
        found = asyncio.run(using(app, lambda app: _work(app, doors, plan, args, (counts, shown))))
    except KeyboardInterrupt:
        shown.close()
        say(f"stopped: {counts.done} of {counts.total} rows are done\ngo on with: {_again(args.words, plan.run_id)}")
        return INTERRUPTED
    except BudgetExceeded:
        shown.close()
        say(f"go on, with a larger --budget: {_again(args.words, plan.run_id)}")
        raise
    finally:
        shown.close()
    return _show(args, program, found)


def _plan(args: argparse.Namespace, program: Program, rows: Sequence[Row], judged: Program) -> Plan:
    versions = (args.version or "",) if args.compare is None else (args.compare, args.version or "")
    if args.without_model:
        if args.version is not None or args.compare is not None:
            raise ConfigError("--without-model has no versions")
        train = read_rows(args.train, program.spec, renames=_renames(args.rename))
        _warn_of_leaks(train, rows)
        program = WithoutModel(program.spec, train, args.seed)
    plan = Plan(
        program=program,
        rows=rows,
        metric=judged,
        versions=versions,
        concurrency=args.concurrency,
        calls=args.budget,
        overrides={EVERY: Params(model=_model(args.model))} if args.model else {},
        source=args.data.name,
    )
    return plan if args.resume is None else replace(plan, run_id=args.resume, resume=True)


def _model(text: str) -> str:
    provider, _, name = text.partition("/")
    if not provider or not name:
        raise ConfigError(f"--model {text!r} should read provider/model, such as embedded/smollm2-135m")
    return text


def _renames(pairs: Sequence[str]) -> dict[str, str]:
    parted = [pair.partition("=") for pair in pairs]
    if wrong := [pair for pair, (old, _, new) in zip(pairs, parted, strict=True) if not old or not new]:
        raise ConfigError(f"--rename {wrong[0]!r} should read OLD=NEW")
    return {old: new for old, _, new in parted}


def _check_writable(args: argparse.Namespace) -> None:
    """Before anything is paid for."""
    for flag, path in (("--predictions", args.predictions), ("--html", args.html)):
        if path is not None and not path.parent.is_dir():
            raise ConfigError(f"{flag}: there is no folder {path.parent}")


def _warn_of_leaks(train: Sequence[Row], rows: Sequence[Row]) -> None:
    known = {row.asked for row in train}
    if leaked := sum(row.asked in known for row in rows):
        say(f"warning: {leaked} of the {len(rows)} rows are among those of --train")


def _again(words: Sequence[str], run_id: str) -> str:
    kept = list(words)
    if "--resume" in kept:
        return shlex.join(["kaizen", "eval", *kept])
    return shlex.join(["kaizen", "eval", *kept, "--resume", run_id])


async def _work(
    app: Runs, doors: Doors, plan: Plan, args: argparse.Namespace, progress: tuple[Counts, Display]
) -> _Found:
    counts, shown = progress
    if args.at_least is not None:
        await may_decide(app.registry, app.scope, plan.metric)

    def told(version: str, result: RowResult) -> None:
        counts.answered += result.error is None
        counts.failed += result.error is not None
        counts.tokens_out += result.tokens
        if result.cost_usd is None:
            counts.unpriced += 1
        else:
            counts.priced += 1
            counts.cost_usd += result.cost_usd
        shown.show(counts)

    found = await doors.evaluate(app, plan, told)
    parts = slices(found[-1], args.slice) if args.slice else None
    if len(found) == 1:
        return _Found(found[0], parts=parts)
    return _Found(found[1], found[0], compare(found[0], found[1]), parts)


# -- showing --------------------------------------------------------------------------------------


def _show(args: argparse.Namespace, program: Program, found: _Found) -> int:
    evaluation = found.evaluation
    if args.predictions is not None:
        _write(args.predictions, "".join(f"{json_text(_line(one))}\n" for one in evaluation.results))
    if args.html is not None:
        compared = None if found.comparison is None else (args.compare, found.comparison)
        parts = None if found.parts is None else (args.slice, found.parts)
        text = report(program.spec, evaluation, source=args.data.name, compared=compared, parts=parts)
        _write(args.html, text)
    if args.json:
        sys.stdout.write(f"{json_text(_as_json(program, found))}\n")
    else:
        _print(args, program, found)
    for why in evaluation.broken:
        say(f"does not hold: {why}")
    short = args.at_least is not None and evaluation.score < args.at_least
    if short:
        say(f"the score is {evaluation.score:.4g}, less than {args.at_least:g}")
    return FINDINGS if short or evaluation.broken else OK


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"can't write {path}: {error.strerror}") from None
    say(f"written: {path}")


def _line(one: RowResult) -> dict[str, Any]:
    line: dict[str, Any] = {
        "input": one.row.inputs,
        "expected": one.row.outputs,
        "prediction": one.prediction,
        "score": one.score,
        "record": one.record,
    }
    if one.error is not None:
        line["error"] = one.comment
    return line


def _as_json(program: Program, found: _Found) -> dict[str, Any]:
    evaluation = found.evaluation
    table = confusion(program.spec, evaluation)
    shown: dict[str, Any] = evaluation.summary() | {
        "seconds": round(evaluation.seconds, 3),
        "fields": [one.summary() for one in fields_of(program.spec, evaluation)],
        "confusion": None if table is None else table.summary(),
    }
    if found.parts is not None:
        shown["slices"] = [one.summary() for one in found.parts]
    if found.comparison is not None and found.other is not None:
        shown["compared"] = found.other.summary() | {"gain": found.comparison.summary()}
    return shown


def _print(args: argparse.Namespace, program: Program, found: _Found) -> None:
    one = found.evaluation
    unpriced = sum(row.cost_usd is None for row in one.results)
    known = sum(row.cost_usd or 0.0 for row in one.results)
    cost = cost_text(one.cost_usd if one.cost_usd is not None else (known or None), unpriced)
    sys.stdout.write(f"{one.metric}: {one.score:.4g}  ({one.low:.4g} to {one.high:.4g}, 95 %)\n")
    said = [f"{one.n} rows", f"{one.calls} calls", cost, f"p50 {milliseconds(one.figures.get('p50'))}"]
    said.append(f"p95 {milliseconds(one.figures.get('p95'))}")
    if one.errors:
        said.append(f"{one.errors} not answered")
    if one.coverage < 1:
        said.append(f"coverage {one.coverage:.3f}")
    sys.stdout.write(f"{', '.join(said)}; run {one.run_id}\n")
    if found.comparison is not None:
        gain = found.comparison
        sys.stdout.write(
            f"against {args.compare}: {gain.before:.4g} then, {gain.after:.4g} now, {gain.gain:+.4g} "
            f"({gain.low:+.4g} to {gain.high:+.4g}), p = {gain.p:.3g}; {gain.better} rows better, {gain.worse} worse\n"
        )
    _print_tables(args, program, found)


def _print_tables(args: argparse.Namespace, program: Program, found: _Found) -> None:
    table = confusion(program.spec, found.evaluation)
    if table is not None and len(table.got) <= _SHOWN_LABELS:
        sys.stdout.write("\n")
        rows = [(label, *map(str, counts)) for label, counts in zip(table.labels, table.counts, strict=True)]
        write_table((f"{table.field}: expected \\ got", *table.got), rows, numbers=table.got)
    elif wrong := mistakes(found.evaluation, 10):
        sys.stdout.write("\n")
        write_table(("what went wrong", "rows"), [(each.what, str(each.rows)) for each in wrong], numbers=("rows",))
    fields = fields_of(program.spec, found.evaluation)
    if len(fields) > 1:
        sys.stdout.write("\n")
        columns = ("output", "rows", "right", "precision", "recall", "F1")
        shown = [
            (each.name, str(each.n), *(f"{x:.3f}" for x in (each.right, each.precision, each.recall, each.f1)))
            for each in fields
        ]
        write_table(columns, shown, numbers=columns[1:])
    if found.parts is not None:
        sys.stdout.write("\n")
        columns = (args.slice, "rows", "score", "low", "high")
        parts = [
            (each.value, str(each.n), *(f"{x:.3f}" for x in (each.score, each.low, each.high))) for each in found.parts
        ]
        write_table(columns, parts, numbers=columns[1:])


EVAL: Final = Command(
    _arguments,
    _eval,
    (
        ("kaizen eval triage.py:Triage --data test.jsonl --metric accuracy", "the score, with its interval"),
        ("kaizen eval triage.py:Triage --data test.jsonl --version latest --compare base", "two versions by pairs"),
        ("kaizen eval triage.py:Triage --data test.jsonl --html report.html", "a report with plots"),
        (
            "kaizen eval triage.py:Triage --data test.jsonl --metric '0.8*accuracy, 0.2*rouge:why, p95 < 500'",
            "several metrics, and a bound; exit code 1 where it does not hold",
        ),
        (
            "kaizen eval triage.py:Triage --data test.jsonl --without-model --train train.jsonl",
            "what the rows alone do",
        ),
        ("kaizen eval triage.py:Triage --data test.jsonl --budget 200 --resume RUN", "go on with a run that stopped"),
    ),
)
