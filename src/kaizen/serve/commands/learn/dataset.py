"""``kaizen dataset``: rows out of the records or a file, kept as versions; and how two of them differ."""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from kaizen.core.artifact import Version
from kaizen.core.context import Program
from kaizen.core.errors import ConfigError, Conflict, Denied
from kaizen.core.protocols import Suspended
from kaizen.learn.data.curate import Counts, Picking, Wish, curated, rows_from_runs
from kaizen.learn.data.dataset import KIND, Changes, Dataset, diff
from kaizen.learn.data.files import RowFile
from kaizen.learn.data.guard import PART
from kaizen.learn.data.rows import Row, line_of, read_rows
from kaizen.learn.data.split import split
from kaizen.learn.data.where import Where
from kaizen.registry.registry import LATEST
from kaizen.serve.arguments import Command, Parser, say, whole_number
from kaizen.serve.commands.select import add_since, chosen
from kaizen.serve.commands.tables import json_text
from kaizen.serve.doors import Doors, Runs, using
from kaizen.serve.errors import OK
from kaizen.serve.load import load_program

_PARTS: Final[Mapping[int, tuple[str, ...]]] = {2: ("train", "test"), 3: ("train", "val", "test")}
_FILES: Final = (".jsonl", ".ndjson", ".csv", ".parquet")
_SHOWN: Final = 20


def _add_keeping(parser: Parser) -> None:
    """The flags that say where rows go."""
    parser.add_argument("--name", metavar="NAME", help="the dataset's (default: the program's, in lower case)")
    parser.add_argument("--split", metavar="SHARES", help="train,test or train,val,test: 0.6,0.2,0.2")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the split (default: 0)")
    parser.add_argument(
        "-o", "--output", type=Path, metavar="DIR", help="write the rows there too, a file for each part"
    )
    parser.add_argument("--consent", default="", metavar="TEXT", help="on what ground the data may be used")
    parser.add_argument("--reason", default="", metavar="TEXT", help="why this version is made")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


# -- from runs ------------------------------------------------------------------------------------


def _from_runs_arguments(parser: Parser) -> None:
    parser.add_argument("program", metavar="PROGRAM", help="triage.Triage, Triage, or FILE.py:Triage")
    parser.add_argument(
        "--where",
        metavar="CONDITION",
        help="such as 'score >= 0.8 and input.lang = \"en\"'; also corrected, score.accuracy, output.NAME, model, "
        "version, subject, latency_ms, cost_usd",
    )
    add_since(parser)
    parser.add_argument("--limit", type=whole_number, metavar="N", help="only the newest N")
    parser.add_argument("--diverse", type=whole_number, metavar="N", help="of those, N that lie far apart")
    parser.add_argument(
        "--group-by", default="subject", metavar="NAME", help="what keeps rows in one part (default: subject)"
    )
    parser.add_argument("--keep-alike", action="store_true", help="keep near duplicates")
    parser.add_argument("--redact", action="store_true", help="take out addresses, cards, accounts, telephone numbers")
    _add_keeping(parser)


def _from_runs(args: argparse.Namespace, doors: Doors) -> int:
    where = None if args.where is None else Where(args.where)
    shares = None if args.split is None else _shares(args.split)
    loaded = load_program(args.program) if ".py" in args.program else None
    made = asyncio.run(using(doors.app(), lambda app: _make(app, args, loaded, where, shares)))
    return _show(args, *made)


async def _make(
    app: Runs, args: argparse.Namespace, loaded: Program | None, where: Where | None, shares: Mapping[str, float] | None
) -> tuple[Dataset, list[Version], dict[str, int]]:
    name = args.program if loaded is None else loaded.spec.name
    query = await chosen(app, argparse.Namespace(program=name, status=None, since=args.since))
    wish = Wish(
        program=query.ref or "",
        contract=None if loaded is None else loaded.spec.contract,
        where=where,
        since=args.since,
        limit=args.limit,
        diverse=args.diverse,
        redact=args.redact,
        consent=args.consent,
        group_by=args.group_by,
        keep_alike=args.keep_alike,
    )
    rows, counts = await rows_from_runs(app.ledger, app.scope, wish)
    if args.diverse is not None and len(rows) > args.diverse:
        rows = await _diverse(app, rows, args.diverse)
    dataset = curated(args.name or wish.program.rpartition(".")[2].lower(), rows, wish, counts)
    return dataset, await _keep(app, args, dataset, shares), _counted(counts)


async def _diverse(app: Runs, rows: Sequence[Row], n: int) -> tuple[Row, ...]:
    answer = await app.start(Picking(rows), {"rows": str(len(rows)), "n": n})
    if isinstance(answer, Suspended):
        raise Denied(f"run {answer.run_id} waits for approval: {answer.question}")
    places: list[int] = answer.outputs["places"]
    return tuple(rows[place] for place in places)


def _counted(counts: Counts) -> dict[str, int]:
    names = ("records", "other", "erased", "unfit", "alike", "corrected")
    return {name: getattr(counts, name) for name in names} | {"redacted": counts.found.total()}


# -- import ---------------------------------------------------------------------------------------


def _import_arguments(parser: Parser) -> None:
    parser.add_argument("file", type=Path, metavar="ROWS", help="a .jsonl, .csv or .parquet file")
    parser.add_argument("--program", required=True, metavar="FILE.py:Name", help="the program that the rows are for")
    parser.add_argument("--rename", action="append", default=[], metavar="OLD=NEW", help="call a column otherwise")
    _add_keeping(parser)


def _import(args: argparse.Namespace, doors: Doors) -> int:
    program = load_program(args.program)
    shares = None if args.split is None else _shares(args.split)
    renames = dict(_pair(each) for each in args.rename)
    rows = read_rows(args.file, program.spec, renames=renames)
    about = {"source": args.file.name, "program": program.spec.name, "consent": args.consent or "not stated"}
    dataset = Dataset.of(args.name or args.file.stem, rows, {**about, "redaction": "none"})

    async def work(app: Runs) -> list[Version]:
        return await _keep(app, args, dataset, shares)

    return _show(args, dataset, asyncio.run(using(doors.app(), work)), {"rows": len(rows)})


def _pair(text: str) -> tuple[str, str]:
    old, equals, new = text.partition("=")
    if not old or not equals or not new:
        raise ConfigError(f"--rename {text!r} should read OLD=NEW")
    return old, new


# -- keeping --------------------------------------------------------------------------------------


def _shares(text: str) -> dict[str, float]:
    try:
        shares = [float(part) for part in text.split(",")]
    except ValueError:
        shares = []
    names = _PARTS.get(len(shares))
    if names is None or abs(sum(shares) - 1) > 1e-6 or min(shares) < 0:
        raise ConfigError(
            f"--split {text!r} should be two or three shares that sum to 1: 0.6,0.2,0.2 is train,val,test"
        )
    return dict(zip(names, shares, strict=True))


async def _keep(
    app: Runs, args: argparse.Namespace, dataset: Dataset, shares: Mapping[str, float] | None
) -> list[Version]:
    """The dataset and its parts as versions, and as files where they are wished for."""
    reason = (
        args.reason or f"made by kaizen dataset {'from runs' if dataset.about.get('source') == 'runs' else 'import'}"
    )
    whole = dataset.artifact()
    kept = [await app.registry.put(app.scope, whole, author="import", reason=reason)]
    parts: dict[str, tuple[Row, ...]] = {}
    if shares is not None:
        parts = split(dataset.rows, seed=args.seed, shares=shares)
        for part, rows in parts.items():
            about = {**dataset.about, PART: part, "seed": args.seed, "shares": shares}
            artifact = Dataset.of(f"{dataset.name}/{part}", rows, about).artifact((whole.ref,))
            kept.append(await app.registry.put(app.scope, artifact, author="import", reason=reason))
    if args.output is not None:
        _write(args.output, parts or {"rows": dataset.rows}, dataset, kept)
    return kept


def _write(folder: Path, parts: Mapping[str, Sequence[Row]], dataset: Dataset, kept: Sequence[Version]) -> None:
    files = {f"{name}.jsonl": "".join(f"{json_text(line_of(row))}\n" for row in rows) for name, rows in parts.items()}
    about = {"versions": [version.artifact.ref for version in kept], **dataset.about}
    files["dataset.json"] = f"{json_text(about, indent=2)}\n"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if there := [name for name in files if (folder / name).exists()]:
            raise Conflict(f"{folder / there[0]} is there already; take another folder")
        for name, text in files.items():
            (folder / name).write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"can't write to {folder}: {error.strerror}") from None


def _show(args: argparse.Namespace, dataset: Dataset, kept: Sequence[Version], counts: Mapping[str, int]) -> int:
    sizes = [len(Dataset.load(version.artifact)) for version in kept]
    if args.json:
        versions = [
            {"ref": one.artifact.ref, "number": one.number, "rows": size} for one, size in zip(kept, sizes, strict=True)
        ]
        shown = {"rows": len(dataset), "versions": versions, "counts": counts, "about": dataset.about}
        sys.stdout.write(f"{json_text(shown)}\n")
        return OK
    for version, size in zip(kept, sizes, strict=True):
        sys.stdout.write(f"{version.artifact.name}@{version.number}: {size} rows\n")
    told = [f"{count} {_TOLD[name]}" for name, count in counts.items() if count and name in _TOLD]
    if told:
        say(", ".join(told))
    if args.output is not None:
        say(f"written to {args.output}")
    return OK


_TOLD: Final = {
    "records": "calls looked at",
    "other": "under another contract",
    "erased": "without contents",
    "unfit": "for which the condition does not hold",
    "alike": "near duplicates left out",
    "corrected": "corrected by people",
    "redacted": "places redacted",
}


# -- diff -----------------------------------------------------------------------------------------


def _diff_arguments(parser: Parser) -> None:
    parser.add_argument("before", metavar="A", help="NAME, NAME@VERSION, or a file of rows")
    parser.add_argument("after", metavar="B", help="likewise")
    parser.add_argument("--program", metavar="FILE.py:Name", help="the program that a file's rows are for")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def _diff(args: argparse.Namespace, doors: Doors) -> int:
    program = None if args.program is None else load_program(args.program)
    files = [_file(text, program) for text in (args.before, args.after)]

    async def work(app: Runs) -> Changes:
        before, after = [
            found or await _opened(app, text) for found, text in zip(files, (args.before, args.after), strict=True)
        ]
        return diff(before, after)

    changes = asyncio.run(using(doors.app(), work))
    if args.json:
        sys.stdout.write(f"{json_text(_changes(changes))}\n")
        return OK
    lines = [f"+ {json_text(line_of(row))}" for row in changes.added]
    lines += [f"- {json_text(line_of(row))}" for row in changes.removed]
    lines += [
        f"~ {json_text(old.inputs)}: {json_text(old.outputs)} -> {json_text(new.outputs)}"
        for old, new in changes.relabelled
    ]
    sys.stdout.writelines(f"{line}\n" for line in lines[:_SHOWN])
    if len(lines) > _SHOWN:
        say(f"and {len(lines) - _SHOWN} more")
    sys.stdout.write(
        f"{len(changes.added)} added, {len(changes.removed)} removed, {len(changes.relabelled)} relabelled, "
        f"{changes.same} the same\n"
    )
    return OK


def _changes(changes: Changes) -> dict[str, Any]:
    return {
        "added": [line_of(row) for row in changes.added],
        "removed": [line_of(row) for row in changes.removed],
        "relabelled": [
            {"inputs": old.inputs, "before": old.outputs, "after": new.outputs} for old, new in changes.relabelled
        ],
        "same": changes.same,
    }


def _file(text: str, program: Program | None) -> Dataset | None:
    """The rows of a file; None where the text names a dataset. Without a program, all columns count as inputs."""
    path = Path(text)
    if path.suffix.lower() not in _FILES:
        return None
    if program is None:
        return Dataset.of(text, (Row(dict(row.values), {}) for row in RowFile(path, {}).rows()))
    return Dataset.of(text, read_rows(path, program.spec, labelled=False))


async def _opened(app: Runs, text: str) -> Dataset:
    name, _, which = text.partition("@")
    return Dataset.load((await app.registry.version(app.scope, KIND, name, which or LATEST)).artifact)


FROM_RUNS: Final = Command(
    _from_runs_arguments,
    _from_runs,
    (
        ("kaizen dataset from-runs Triage --where 'score >= 0.8'", "the answers that were found good, or corrected"),
        (
            "kaizen dataset from-runs Triage --where corrected --split 0.6,0.2,0.2 -o data",
            "what people corrected, in three parts that share no subject",
        ),
        ("kaizen dataset from-runs Triage --diverse 200 --redact --consent 'terms of service, 4.2'", "200 that differ"),
    ),
)

IMPORT: Final = Command(
    _import_arguments,
    _import,
    (("kaizen dataset import mail.csv --program triage.py:Triage --split 0.8,0.2 -o data", "a file, in two parts"),),
)

DIFF: Final = Command(
    _diff_arguments,
    _diff,
    (("kaizen dataset diff triage@1 triage@2", "what was added, taken out and relabelled"),),
)
