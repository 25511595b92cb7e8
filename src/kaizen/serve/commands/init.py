"""``kaizen init``: a new project that runs."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from kaizen.core.errors import Conflict, StoreError
from kaizen.serve.arguments import Command, Parser
from kaizen.serve.doors import Doors
from kaizen.serve.errors import OK

_SETTINGS: Final = """\
# The settings of this project. Every key is optional; KAIZEN_* variables go before what stands here.
# Keys that are secret belong in the environment: api_key_env names the variable that holds one.

# The model that programs ask if they name none, as provider/model.
model = "embedded/smollm2-135m"

# home = ".kaizen"                     # where records lie, from this file's folder

# [defaults]                           # for programs that don't set their own
# temperature = 0.0
# max_tokens = 500

# [providers.mine]                     # then: model = "mine/large"
# kind = "openai"                      # the wire it speaks: openai | anthropic | embedded
# base_url = "http://127.0.0.1:8099/v1"
# api_key_env = "MINE_API_KEY"

# [models."mine/large"]                # prices of models that no public table lists
# input_usd_per_mtok = 10.0
# output_usd_per_mtok = 30.0
"""

_PROGRAM: Final = '''\
"""A program: name the team that owns a bank customer's message."""

from typing import Literal

from kaizen import Signature, context


class Triage(Signature):
    """Name the team that owns a bank customer's message, and how urgent it is."""

    message: str = context.input("what the customer wrote")
    team: Literal["cards", "transfers", "accounts"] = context.output("the team that owns it")
    urgency: int = context.output("1 can wait .. 5 now", ge=1, le=5)


if __name__ == "__main__":
    answer = Triage.execute(message="Someone stole my card")
    print(answer.team, answer.urgency)
    print(answer.record)
'''

_ROWS: Final = """\
id,message
1,"Someone stole my card on the bus, please block it."
2,"I sent 200 to my landlord on Monday and it has not arrived."
3,"How do I add my wife to our savings account?"
4,"The machine kept my card, and I fly tomorrow morning."
5,"Please change the address on my account."
"""

_README: Final = """\
# {name}

`triage.py` holds a typed program, `rows.csv` a few inputs for it, `kaizen.toml` the settings.

    kaizen run triage.py:Triage --message "Someone stole my card"
    kaizen run triage.py:Triage --input rows.csv --output out.jsonl
    kaizen runs list
    kaizen runs stats --by model

`kaizen validate triage.py` finds mistakes in a definition before anything runs, `kaizen models list` shows which
models are ready, and `kaizen --help` the rest.
"""

_IGNORED: Final = """\
.kaizen/
__pycache__/
out.jsonl
out.errors.jsonl
"""

FILES: Final[Mapping[str, str]] = {
    "kaizen.toml": _SETTINGS,
    "triage.py": _PROGRAM,
    "rows.csv": _ROWS,
    "README.md": _README,
    ".gitignore": _IGNORED,
}


def make_project(folder: Path) -> None:
    """Write a new project's files.

    Raises:
        Conflict: a file of the same name is there; nothing is written then.
        StoreError: the folder can't be written.
    """
    taken = [name for name in FILES if (folder / name).exists()]
    if taken or (folder.exists() and not folder.is_dir()):
        raise Conflict(f"{folder / taken[0] if taken else folder} is there already, and nothing is overwritten")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in FILES.items():
            with (folder / name).open("x", encoding="utf-8") as file:
                file.write(text.replace("{name}", folder.resolve().name))
    except OSError as error:
        raise StoreError(f"can't write to {folder}: {error.strerror}") from None


def _arguments(parser: Parser) -> None:
    parser.add_argument("folder", metavar="my-project", type=Path, help="the new project's folder; . for this one")


def _init(args: argparse.Namespace, _: Doors) -> int:
    folder: Path = args.folder
    make_project(folder)
    enter = "" if folder.resolve() == Path.cwd() else f"  cd {folder}\n"
    sys.stdout.write(
        f"{folder} holds {', '.join(FILES)}\nnext:\n{enter}"
        '  kaizen run triage.py:Triage --message "Someone stole my card"\n'
        "  kaizen run triage.py:Triage --input rows.csv --output out.jsonl\n"
    )
    return OK


INIT: Final = Command(
    _arguments,
    _init,
    (("kaizen init my-project", "a folder with settings, a program, rows to try it on and a README"),),
)
