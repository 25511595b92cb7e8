"""Triage the example's test messages on the embedded language model, say how well it went, and make it better.

    make run
    make run ARGS="--limit 20"
    make run ARGS="--no-improve"
    make run ARGS="--likelihood"
    make run ARGS="--model openai/gpt-4.1-mini"

``triage.Triage`` has the model name the team. With ``--likelihood`` a second program of the same contract takes part,
which suits a model this small better and takes some two minutes more: ``likelihood.triage_by_likelihood`` asks which
team's messages make this one most likely. Every answer is a record in the ledger. The nearest-neighbour baseline
beside them looks for the most similar labelled message (by shared character 5-grams) and takes its team: what can be
had without any language model.

Then the program is improved (``improve.py``): a search within a budget, a test on messages it has not seen, a release,
and the way back. That is left out with ``--no-improve``; and with another model, ``--limit`` or ``--likelihood``,
unless ``--improve`` asks for it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from check_data import DATA, Message, load
from improve import BUDGET, Stopped, improve
from likelihood import SLOTS, learned, triage_by_likelihood
from report import NO_ANSWER, Outcome, Result, report, show
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from triage import Triage

from kaizen import configure
from kaizen.app import current
from kaizen.app.adapters import DEFAULT_MODEL
from kaizen.core.errors import KaizenError, OutputInvalid


@dataclass(frozen=True, slots=True)
class Entry:
    """A program that takes part: what to call it, how to ask it, and how many messages at once."""

    name: str
    ask: Callable[..., Awaitable[Triage]]
    concurrency: int


def main() -> int:
    """Run it; 0 when all messages were answered."""
    options = _options()
    console = Console()
    messages, problems = load()
    if problems:
        print(f"error: {DATA}: {problems[0]}", file=sys.stderr)
        return 1
    train = [message for message in messages if message.split == "train"]
    test = [message for message in messages if message.split == "test"][: options.limit]
    try:
        if options.model:
            configure(model=options.model)
        model = current().settings.model or DEFAULT_MODEL
        entries = [Entry("Triage", Triage, options.concurrency)]
        console.print(f"Triaging {len(test)} bank messages with [bold]{model}[/bold] ...")
        if options.likelihood and model != learned().model:
            console.print(f"The likelihood program is left out: it was fitted to {learned().model} (see fit.py).")
        elif options.likelihood:
            configure(providers=SLOTS)
            # One message at a time: a second one's calls would take whichever slot is free, and push a prompt out.
            entries.append(Entry("triage_by_likelihood", triage_by_likelihood, 1))
        outcomes = asyncio.run(_answer(entries, test, console))
    except KaizenError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped; what was answered is in the ledger: .venv/bin/kaizen runs list", file=sys.stderr)
        return 130
    main_one, *others = outcomes
    figures = report(main_one, others, train, test)
    _write(figures)
    show(console, outcomes[-1], figures)
    if model == learned().model and not options.likelihood:
        console.print("A model this small reads little. Another way to ask suits it better, and takes two minutes:")
        console.print('  make run ARGS="--likelihood"\n', highlight=False)
    if _improves(options, model):
        try:
            figures["improved"] = improve(console, model=model, budget=options.budget, test=_file(test))
        except Stopped as stopped:
            return stopped.code
        except KeyboardInterrupt:
            return 130  # the command that was stopped has said how to go on
        _write(figures)
    _close(console, main_one)
    return 0


def _improves(options: argparse.Namespace, model: str) -> bool:
    whole = model == DEFAULT_MODEL and options.limit is None and not options.likelihood
    return whole if options.improve is None else options.improve


def _write(figures: dict[str, Any]) -> None:
    Path("run.json").write_text(json.dumps(figures, indent=2) + "\n")


def _file(test: Sequence[Message]) -> Path:
    """The test messages as a file; a shorter one where only some take part."""
    whole = DATA / "test.jsonl"
    lines = whole.read_text("utf-8").splitlines(keepends=True)
    if len(test) == len(lines):
        return whole
    some = current().settings.home / "test.jsonl"
    some.write_text("".join(lines[: len(test)]), "utf-8")
    return some


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--limit", type=int, default=None, metavar="N", help="only the first N messages")
    parser.add_argument("--likelihood", action="store_true", help="triage by likelihood too: better here, and slower")
    parser.add_argument("--model", help="a model ref, such as openai/gpt-4.1-mini; the embedded model without it")
    parser.add_argument(
        "--concurrency", type=int, default=2, metavar="N", help="messages in the air at once, of Triage (2)"
    )
    parser.add_argument(
        "--improve", action=argparse.BooleanOptionalAction, help="search for better params (on the embedded model)"
    )
    parser.add_argument(
        "--budget", type=int, default=BUDGET, metavar="N", help=f"requests that the search may make ({BUDGET})"
    )
    options = parser.parse_args()
    if min(options.concurrency, options.budget, 1 if options.limit is None else options.limit) < 1:
        parser.error("--limit, --budget and --concurrency have to be at least 1")
    return options


async def _answer(entries: Sequence[Entry], rows: Sequence[Message], console: Console) -> list[Outcome]:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=console) as progress:
        task = progress.add_task("messages", total=len(rows) * len(entries))
        outcomes: list[Outcome] = []
        for entry in entries:
            progress.update(task, description=entry.name)
            started = time.monotonic()
            results = await _results(entry, rows, lambda: progress.advance(task))
            outcomes.append(Outcome(entry.name, results, time.monotonic() - started))
    return outcomes


async def _results(entry: Entry, rows: Sequence[Message], advance: Callable[[], Any]) -> list[Result]:
    gate = asyncio.Semaphore(entry.concurrency)

    async def one(row: Message) -> Result:
        async with gate:
            try:
                answer = await entry.ask(message=row.message)
                result = Result(row.team, answer.team, answer.record)
            except OutputInvalid as error:
                result = Result(row.team, NO_ANSWER, error.record)
        advance()
        return result

    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one(row)) for row in rows]
    except ExceptionGroup as failures:
        raise failures.exceptions[0] from None  # whatever ended one call would have ended the others
    return [task.result() for task in tasks]


def _close(console: Console, best: Outcome) -> None:
    """Where the records lie, and what to try next."""
    console.print(f"records  {current().settings.home} (and these figures in run.json)\n")
    record = random.Random(0).choice(best.records)
    console.print("[bold]Try next[/bold]")
    for command in (
        "kaizen runs stats --by program",
        f"kaizen runs show {record.id}",
        'kaizen run examples/triage/triage.py:Triage --message "Someone stole my card"',
    ):
        console.print(f"  .venv/bin/{command}", soft_wrap=True, highlight=False)


if __name__ == "__main__":
    sys.exit(main())
