"""The command line: finds the command, loads what it needs and nothing else, and turns errors into exit codes."""

from __future__ import annotations

import os
import sys
import traceback
from argparse import Namespace
from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Final, cast

from kaizen.core.errors import KaizenError
from kaizen.serve.arguments import Command, Parser, nearest, say
from kaizen.serve.doors import Doors
from kaizen.serve.errors import CLOSED_PIPE, INTERRUPTED, OK, UNEXPECTED, USAGE, one_line, outcome

# Name -> where it is, and what it does. A table, so that the overview loads no command.
COMMANDS: Final[Mapping[str, tuple[str, str]]] = {
    "init": ("commands.init:INIT", "make a new project that runs"),
    "validate": ("commands.validate:VALIDATE", "find every mistake in the definitions of a file"),
    "run": ("commands.run:RUN", "run a program on one input, or on each row of a file"),
    "runs list": ("commands.runs:LIST", "list what was run, newest first"),
    "runs show": ("commands.runs:SHOW", "show a run: its calls, what they cost, what went in and came out"),
    "runs stats": ("commands.stats:STATS", "count calls, errors, latency, tokens, cost and score by group"),
    "runs export": ("commands.runs:EXPORT", "write records as JSON lines"),
    "models list": ("commands.models:LIST", "list the models and providers, and whether they are ready"),
    "models test": ("commands.models:TEST", "ask a model something small, and say what it took"),
    "compress calibrate": (
        "commands.layers.compress:CALIBRATE",
        "measure how often shortened prompts are answered alike",
    ),
    "route train": ("commands.route:TRAIN", "train a router from a file that says which model was right"),
    "eval": ("commands.learn.eval:EVAL", "run a program on labelled rows and score its answers"),
    "score": ("commands.learn.score:SCORE", "say how good an answer was, or what it should have been"),
    "dataset from-runs": ("commands.learn.dataset:FROM_RUNS", "make a dataset of a program's records"),
    "dataset import": ("commands.learn.dataset:IMPORT", "make a dataset of a file"),
    "dataset diff": ("commands.learn.dataset:DIFF", "show which rows differ between two datasets"),
    "optimize": ("commands.learn.optimize:OPTIMIZE", "search for better params of a program, within a budget"),
    "experiment start": (
        "commands.learn.experiment:START",
        "split a label's traffic between versions, until one is better",
    ),
    "experiment status": ("commands.learn.experiment:STATUS", "judge what has come, and end it where the rule is met"),
    "experiment stop": ("commands.learn.experiment:STOP", "end it by hand; the control gets the label back"),
    "loop start": ("commands.learn.loop:START", "have a program watched, improved within limits, and taken back"),
    "loop run": ("commands.learn.loop:RUN", "look after loops and experiments here, as a gateway does"),
    "loop status": ("commands.learn.loop:STATUS", "show what a loop sees, and what it waits for"),
    "loop history": ("commands.learn.loop:HISTORY", "list what a loop did, and why"),
    "loop approve": ("commands.learn.loop:APPROVE", "have a change that waits tried on live traffic"),
    "loop decline": ("commands.learn.loop:DECLINE", "leave things as they are"),
    "loop pause": ("commands.learn.loop:PAUSE", "have a loop do nothing for a while"),
    "loop resume": ("commands.learn.loop:RESUME", "have it go on"),
    "loop stop": ("commands.learn.loop:STOP", "have a program watched no longer"),
    "registry list": ("commands.registry.look:LIST", "list what has versions, and what its labels show"),
    "registry show": ("commands.registry.look:SHOW", "show a version: what it says, where it comes from, its scores"),
    "registry diff": ("commands.registry.diff:DIFF", "show what differs between two versions, and their scores"),
    "registry label": ("commands.registry.move:LABEL", "have a label show a version: prod is what runs"),
    "registry rollback": ("commands.registry.move:ROLLBACK", "have a label show what it showed before"),
    "registry history": ("commands.registry.look:HISTORY", "list who moved which label, when and why"),
    "registry put": ("commands.registry.write:PUT", "make a version of a file"),
    "registry edit": ("commands.registry.write:EDIT", "make a version in your editor"),
    "registry pull": ("commands.registry.write:PULL", "write a version to a file"),
    "import litellm": ("commands.migrate:LITELLM", "make settings of a LiteLLM proxy's configuration"),
    "costs": ("commands.costs:COSTS", "what calls cost, and what the layers saved"),
    "costs advise": ("commands.costs:ADVISE", "what other settings would have saved on the recorded calls"),
    "cache stats": ("commands.cache:STATS", "count what is kept, and what it has answered and saved"),
    "cache invalidate": ("commands.cache:INVALIDATE", "drop kept answers, by what they depend on"),
    "keys create": ("commands.keys:CREATE", "make a key, and print it this once"),
    "keys list": ("commands.keys:LIST", "list the keys, and what each may use"),
    "keys revoke": ("commands.keys:REVOKE", "make a key worthless"),
    "keys rotate": ("commands.keys:ROTATE", "give a key a new secret, with an overlap if need be"),
    "serve": ("commands.serve:SERVE", "serve models to OpenAI and Anthropic clients, with keys and limits"),
    "models pull": ("commands.models:PULL", "bring the weights of an embedded model"),
}


def main(argv: Sequence[str], doors: Doors) -> int:
    """Run one command.

    Args:
        argv: the words after ``kaizen``.
        doors: the App and the rest, each loaded when it is asked for.

    Returns:
        The exit code; see ``serve.errors``.
    """
    debug = "--debug" in argv
    try:
        code = _dispatch(argv, doors)
        sys.stdout.flush()  # here, where a closed pipe is still ours to handle
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else UNEXPECTED
    except KeyboardInterrupt:
        say("interrupted")
        return INTERRUPTED
    except BrokenPipeError:
        # who read our output has enough; the interpreter would complain when it flushes at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return CLOSED_PIPE
    except KaizenError as error:
        return _failed(error, debug)
    except Exception as error:  # noqa: BLE001 - the last line of defence: shown, never swallowed
        return _failed(error, debug)
    return code


def _failed(error: Exception, debug: bool) -> int:
    if debug:
        traceback.print_exception(error)
    hint = "" if debug or isinstance(error, KaizenError) else " (--debug shows the traceback)"
    say(f"error: {one_line(error)}{hint}")
    return outcome(error).exit_code


def _dispatch(argv: Sequence[str], doors: Doors) -> int:
    rest = list(argv)
    while rest[:1] == ["--debug"]:
        del rest[0]
    match rest:
        case []:
            sys.stderr.write(overview())
            return USAGE
        case ["-h" | "--help" | "help", *_]:
            sys.stdout.write(overview())
            return OK
        case ["--version", *_]:
            sys.stdout.write(f"{import_module('kaizen.serve.version').text()}\n")
            return OK
        case _:
            name = next((name for name in (" ".join(rest[:2]), rest[0]) if name in COMMANDS), None)
            if name is None:
                return _unknown(rest)
            return _run(name, rest[len(name.split()) :], doors)


def _unknown(rest: Sequence[str]) -> int:
    """A group without its command, or a word that is none."""
    group = {name: COMMANDS[name] for name in COMMANDS if name.startswith(f"{rest[0]} ")}
    if group and (len(rest) == 1 or rest[1] in ("-h", "--help")):
        (sys.stdout if len(rest) > 1 else sys.stderr).write(overview(group))
        return OK if len(rest) > 1 else USAGE
    word = f"{rest[0]} {rest[1]}" if group else rest[0]
    known = group or [*COMMANDS, *(name.split()[0] for name in COMMANDS), "--help", "--version", "--debug"]
    what = "flag" if word.startswith("-") else "command"
    say(f"error: {word!r} is no {what} of kaizen{nearest(word, known)}; see kaizen --help")
    return USAGE


def _run(name: str, argv: Sequence[str], doors: Doors) -> int:
    where, about = COMMANDS[name]
    module, _, attribute = where.partition(":")
    command = cast("Command", getattr(import_module(f"kaizen.serve.{module}"), attribute))
    parser = Parser(name, about, command.examples)
    command.arguments(parser)
    split = parser.split(argv)
    if {"-h", "--help"} & set(split.own):
        sys.stdout.write(parser.format_help())
        if command.more_help is not None:
            sys.stdout.write(command.more_help(split.words))
        return OK
    if split.others and not command.takes_inputs:
        flag = split.others[0][0]
        parser.error(f"{flag} is no flag of {parser.prog}{nearest(flag, parser.flags)}")
    args = parser.parse_args(split.own, Namespace(inputs=split.others, flags=parser.flags, words=list(argv)))
    return command.work(args, doors)


def overview(commands: Mapping[str, tuple[str, str]] = COMMANDS) -> str:
    """The help of ``kaizen`` itself, or of a group of commands."""
    width = max(map(len, commands))
    lines = [f"  {name:<{width}}  {about}" for name, (_, about) in commands.items()]
    return "\n".join(
        [
            "usage: kaizen COMMAND ...",
            "",
            "Typed programs for language models, every call on record.",
            "",
            "commands:",
            *lines,
            "",
            "  kaizen COMMAND --help shows a command's arguments, with examples.",
            "  --version shows the version; --debug, with any command, the traceback of an error.",
            "",
            "examples:",
            "  kaizen init my-project && cd my-project",
            '  kaizen run triage.py:Triage --message "Someone stole my card"',
            "  kaizen runs list",
            "",
        ]
    )
