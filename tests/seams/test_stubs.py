"""Nine stubs try the seams through the real runner: they hold if none of them needs more than ``kaizen.core``."""

from __future__ import annotations

import ast
import asyncio
import io
import math
import sys
import tokenize
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

import pytest

import kaizen.app
from kaizen import Params, Signature, context, program
from kaizen.core.context import Context, Partial
from kaizen.core.errors import OutputInvalid, Timeout
from kaizen.core.params import OutputMode
from kaizen.core.protocols import CacheSize, Suspended
from kaizen.core.request import Reply, Request, TokenLogprob
from kaizen.core.scope import Scope
from kaizen.core.spec import dump
from tests.seams.stubs.approval import Approval
from tests.seams.stubs.cascade import Cascade
from tests.seams.stubs.labels import LabelScorer
from tests.seams.stubs.optimizer import InstructionSearch
from tests.seams.stubs.packing import Packed
from tests.seams.stubs.remote import Remote
from tests.seams.stubs.step_cache import StepCache
from tests.seams.stubs.streaming import Composite, Speak, sse
from tests.seams.stubs.votes import SelfConsistency
from tests.unit.programs.house import House, open_house

STUBS = sorted(path for path in (Path(__file__).parent / "stubs").glob("*.py") if path.name != "__init__.py")
MAX_LINES = 40


class Triage(Signature):
    """Name the team."""

    message: str = context.input()
    team: Literal["cards", "transfers", "accounts"] = context.output()


class Talk(Signature):
    """Talk."""

    message: str = context.input()
    text: str = context.output()


def team(name: str) -> str:
    return f'{{"team": "{name}"}}'


Open = Callable[..., House]


@pytest.fixture
def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Open]:
    def make(replies: Any = (), **how: Any) -> House:
        made = open_house(tmp_path, replies, **how)
        monkeypatch.setattr(kaizen.app, "_current", made.app)
        return made

    return make  # type: ignore[return-value]


class DictCache:
    """A Cache in a dict, scope first."""

    def __init__(self) -> None:
        self.kept: dict[tuple[Scope, str], bytes] = {}

    async def get(self, scope: Scope, key: str, /) -> bytes | None:
        return self.kept.get((scope, key))

    async def epoch(self, scope: Scope, /) -> int:
        return 0

    async def put(
        self,
        scope: Scope,
        key: str,
        value: bytes,
        /,
        *,
        ttl: float | None = None,
        tags: Sequence[str] = (),
        since: int | None = None,
    ) -> None:
        self.kept[scope, key] = value

    async def invalidate(self, scope: Scope, tags: Sequence[str] | None = None, /) -> int:
        raise NotImplementedError

    async def size(self, scope: Scope, /) -> CacheSize:
        return CacheSize(len(self.kept), 0)

    async def close(self) -> None: ...


async def outputs(here: House, what: Any, **inputs: Any) -> dict[str, Any]:
    answer = await here.app.start(what, inputs)
    assert not isinstance(answer, Suspended)
    return dict(answer.outputs)


async def models(here: House) -> list[tuple[str, str, int]]:
    """Step, status and number of model calls of each program call, in program order."""
    records = await here.records(kind="program")
    return sorted((record.step, record.status, record.model_calls) for record in records)


# -- the nine ---------------------------------------------------------------------------------------


async def test_a_streaming_predict_inside_a_composite_goes_out_as_events(house: Open) -> None:
    here = house(["ab cd", "ef"], piece=2)
    composite = Composite(Talk.spec, [Speak(Talk.spec), Speak(Talk.spec)])

    async def run(emit: Callable[[Partial], None]) -> Any:
        return await here.app.start(composite, {"message": "x"}, emit=emit)

    events = [event async for event in sse(run)]
    assert b"".join(events) == (
        b'data: {"step":"0.0","text":"ab"}\n\n'
        b'data: {"step":"0.0","text":"ab c"}\n\n'
        b'data: {"step":"0.0","text":"ab cd"}\n\n'
        b'data: {"step":"0.0","text":"ab cd"}\n\n'
        b'data: {"step":"0.1","text":"ef"}\n\n'
        b'data: {"step":"0.1","text":"ef"}\n\n'
        b'event: done\ndata: {"text":"ef"}\n\n'
    )
    assert await models(here) == [("0", "ok", 2), ("0.0", "ok", 1), ("0.1", "ok", 1)]


async def test_several_inputs_go_in_one_call(house: Open) -> None:
    here = house(['[{"team":"cards"},{"team":"transfers"}]'])
    found = await outputs(here, Packed(Triage.spec), rows=[{"message": "a"}, {"message": "b"}])
    assert found == {"answers": [{"team": "cards"}, {"team": "transfers"}]}
    (request,) = here.model.requests
    assert request.output is not None
    assert (request.output.schema["minItems"], request.output.schema["maxItems"]) == (2, 2)
    assert await models(here) == [("0", "ok", 1)]


async def test_a_cascade_escalates_on_a_misfit_alone(house: Open) -> None:
    cascade = Cascade(Triage.using(model="a/cheap", repairs=0), Triage.using(model="a/strong"))
    here = house([team("loans"), team("cards"), team("accounts")])
    assert await outputs(here, cascade, message="x") == {"team": "cards"}
    assert await models(here) == [("0", "ok", 2), ("0.0", "error", 1), ("0.1", "ok", 1)]
    assert await outputs(here, cascade, message="y") == {"team": "accounts"}
    assert [request.model for request in here.model.requests] == ["a/cheap", "a/strong", "a/cheap"]


async def test_a_step_cache_asks_once_for_contract_version_inputs_and_scope(house: Open) -> None:
    here = house([team("cards"), team("accounts"), team("transfers")])
    cache = DictCache()
    one, other = (StepCache(Triage, cache, version) for version in ("v1", "v2"))
    for _ in range(2):
        assert await outputs(here, one, message="x") == {"team": "cards"}
    assert here.calls == 1
    assert await outputs(here, other, message="x") == {"team": "accounts"}
    assert await outputs(here, one, message="y") == {"team": "transfers"}
    assert here.calls == 3
    assert {scope for scope, _ in cache.kept} == {here.app.scope}
    roots = await here.records(kind="program", root_only=True)
    assert [record.model_calls for record in roots] == [1, 0, 1, 1]


async def test_labels_are_scored_by_one_token(house: Open) -> None:
    top = tuple((token, math.log(share)) for token, share in (("c", 0.3), ("tr", 0.5), ("ac", 0.1), ("acc", 0.1)))
    here = house([Reply(model="m", text="tr", logprobs=(TokenLogprob("tr", top[1][1], top),))])
    assert await outputs(here, LabelScorer(Triage.spec), message="x") == {"team": "transfers"}
    (request,) = here.model.requests
    assert (request.top_logprobs, request.decoding.max_tokens) == (20, 1)


async def test_most_of_several_samples_decide(house: Open) -> None:
    here = house([team(name) for name in ("cards", "accounts", "accounts")])
    assert await outputs(here, SelfConsistency(Triage, 3), message="x") == {"team": "accounts"}
    assert [request.decoding.seed for request in here.model.requests] == [0, 1, 2]
    assert await models(here) == [("0", "ok", 3), ("0.0.0", "ok", 1), ("0.1.0", "ok", 1), ("0.2.0", "ok", 1)]


async def test_an_approval_suspends_and_resumes(house: Open) -> None:
    @program
    async def pay(message: str) -> str:
        first = await Talk(message=message)
        try:
            return first.text + (await Triage(message=message)).team
        except Exception:  # noqa: BLE001 - what users write
            return "swallowed"

    policy = Approval({Triage.spec.name})
    here = house(['{"text": "ok "}', team("cards")], policy=policy)
    wait = await here.app.start(pay, {"message": "x"}, principal="ann")
    assert wait == Suspended(wait.run_id, "0.1", f"may ann run {Triage.spec.name}?")  # type: ignore[union-attr]
    assert here.calls == 1
    policy.approved.add((wait.run_id, wait.step))  # type: ignore[union-attr]
    answer = await here.app.start(pay, {"message": "x"}, principal="ann", run_id=wait.run_id)  # type: ignore[union-attr]
    assert answer.outputs == {"result": "ok cards"}  # type: ignore[union-attr]
    assert here.calls == 2
    assert [step for step, status, _ in await models(here) if status == "suspended"] == ["0", "0.1"]


class Scored(Signature):
    """Score an answer."""

    result: str = context.input()
    score: float = context.output()


@program
async def nested(message: str) -> str:
    return (await Triage(message=message)).team


async def test_an_optimizer_walks_the_params_of_nested_programs(house: Open) -> None:
    def answer(request: Request) -> str:
        system, user = request.messages[0].text, request.messages[-1].text
        if "score" in system:
            return '{"score": 1}' if "accounts" in user else '{"score": 0}'
        return team("accounts") if system.startswith("Better.") else team("cards")

    here = house(answer)
    search = InstructionSearch(here.store, ["Worse.", "Better."])
    from kaizen.core.context import Run
    from kaizen.core.ids import new_id

    ctx = Context(Run(runtime=here.app._runner, scope=here.app.scope, run_id=new_id()))
    found = await search.propose(ctx, nested, [{"message": "a"}, {"message": "b"}], Scored)
    assert [artifact.name for artifact in found] == [Triage.spec.name] * 2
    assert b'"Better."' in found[0].body
    assert here.calls == 1 + 2 * (2 + 2)
    versions = {record.params for record in await here.records(kind="program", ref=Triage.spec.name)}
    assert len(versions) == 3
    assert found[0].ref.startswith(f"params/{Triage.spec.name}@")


async def test_a_remote_program_runs_behind_a_socket(house: Open) -> None:
    here = house([team("cards"), team("cards")])
    bodies: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        size = int.from_bytes(await reader.readexactly(4))
        bodies.append(await reader.readexactly(size))
        reply = bodies[-1]
        if b"fail" not in reply:
            inputs = Triage.spec.validate_inputs({"message": "x"})
            answer = await here.app.start(Triage, inputs)
            reply = dump(answer.outputs)  # type: ignore[union-attr]
        writer.write(reply)
        writer.write_eof()
        await writer.drain()
        writer.close()

    async def post(port: int, data: bytes) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(len(data).to_bytes(4) + data)
        reply = await reader.read()
        writer.close()
        await writer.wait_closed()
        return reply

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        remote = Remote(Triage.spec, partial(post, server.sockets[0].getsockname()[1]))
        assert await outputs(here, remote, message="x") == {"team": "cards"}
        assert bodies == [b'{"message":"x"}']
        with pytest.raises(OutputInvalid, match="misfit from afar"):
            await here.app.start(remote, {"message": "fail"})
        with pytest.raises(Timeout):
            await here.app.start(remote, {"message": "x"}, seconds=-1)
    assert len(bodies) == 2


@pytest.mark.parametrize("mode", ["schema", "json", "text"])
async def test_stubs_nest_in_each_other(house: Open, mode: OutputMode) -> None:
    """N + M, not N x M: wrappers know nothing of each other."""
    good, bad = (f"<team>{name}</team>" if mode == "text" else team(name) for name in ("cards", "loans"))
    here = house([bad, good, good], mode=mode, repairs=0)
    cached = StepCache(SelfConsistency(Cascade(Triage, Triage.using(Params(seed=9))), 2), DictCache(), "v")
    for _ in range(2):
        assert await outputs(here, cached, message="x") == {"team": "cards"}
    assert here.calls == 3


# -- the rule ---------------------------------------------------------------------------------------


def code_lines(source: str) -> int:
    """Lines with code on them: no blanks, comments or docstrings."""
    skipped = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}
    docs = {
        line
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        for line in range(node.lineno, (node.end_lineno or node.lineno) + 1)
    }
    lines = {
        line
        for token in tokenize.generate_tokens(io.StringIO(source).readline)
        if token.type not in skipped
        for line in range(token.start[0], token.end[0] + 1)
    }
    return len(lines - docs)


def imported(tree: ast.AST) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add(node.module or "")
    return names


def is_allowed(module: str) -> bool:
    root = module.split(".")[0]
    return root in sys.stdlib_module_names or root in ("pydantic", "pydantic_core") or module.startswith("kaizen.core.")


def loose_annotations(tree: ast.AST) -> list[str]:
    """Parameters typed ``Any`` but the inputs of a program."""
    return [
        f"{node.name}({arg.arg})"
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        for arg in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs, node.args.vararg, node.args.kwarg)
        if arg is not None and isinstance(arg.annotation, ast.Name) and arg.annotation.id == "Any"
        if not (arg is node.args.kwarg and arg.arg == "inputs" and node.name == "__call__")
    ]


def breaches(source: str) -> list[str]:
    tree = ast.parse(source)
    found = [f"imports {module}" for module in sorted(imported(tree)) if not is_allowed(module)]
    found += [f"types {loose} as Any" for loose in loose_annotations(tree)]
    found += [
        f"uses {node.id}"
        for node in ast.walk(tree)
        if isinstance(node, ast.Name) and node.id in ("hasattr", "getattr", "setattr", "cast")
    ]
    if (size := code_lines(source)) > MAX_LINES:
        found.append(f"has {size} lines of code")
    return found


def test_there_are_nine_stubs() -> None:
    assert len(STUBS) == 9


@pytest.mark.parametrize("stub", STUBS, ids=lambda path: path.stem)
def test_a_stub_needs_nothing_but_core(stub: Path) -> None:
    assert breaches(stub.read_text()) == []


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("from kaizen.programs import runner", "imports kaizen.programs"),
        ("import httpx", "imports httpx"),
        ("x = getattr(1, 'a')", "uses getattr"),
        ("def f(x: Any) -> None: ...", "types f(x) as Any"),
        ("x = 1\n" * 41, "has 41 lines of code"),
    ],
)
def test_the_rule_finds_its_breach(source: str, said: str) -> None:
    assert breaches(source) == [said]
