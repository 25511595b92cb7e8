"""Which version of a program a command runs: ``--version base|latest|prod|N``."""

from __future__ import annotations

from collections.abc import Sequence

from kaizen.core.artifact import BASE
from kaizen.core.context import Program, Releases
from kaizen.core.record import Record
from kaizen.registry.registry import PARAMS
from kaizen.serve.arguments import Parser
from kaizen.serve.doors import Runs


def add_version(parser: Parser) -> None:
    """Add ``--version``; None where it is not given."""
    parser.add_argument(
        "--version",
        metavar="V",
        help="base (the params in the code), latest, a label or a number (default: prod where there is one, else base)",
    )


async def releases_for(app: Runs, program: Program, which: str | None) -> Releases | None:
    """What a run with ``--version`` gets; None without: what is released when the run begins.

    Raises:
        NotFound: there is no such version; says what there is.
    """
    return None if which is None else await app.releases.at(app.scope, program.spec.name, which)


async def version_texts(app: Runs, records: Sequence[Record]) -> dict[str, str]:
    """What the versions of these records' params are called, by content address: ``3``, ``base``."""
    texts: dict[str, str] = {BASE: BASE}
    wanted = {record.version for record in records if record.version not in (None, BASE)}
    for head in await app.registry.heads(app.scope, PARAMS) if wanted else ():
        if head.version in wanted:
            texts[head.version] = f"{head.number}"
    return texts
