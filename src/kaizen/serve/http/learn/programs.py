"""``POST /api/v1/programs/{name}``: the programs that the server was started with, as endpoints."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any, Final, cast
from urllib.parse import parse_qsl

from pydantic_core import from_json, to_json

from kaizen.core.answer import Answer
from kaizen.core.context import Partial
from kaizen.core.errors import Denied, InvalidInput
from kaizen.core.identity import INFER
from kaizen.core.protocols import Suspended
from kaizen.core.spec import Spec
from kaizen.inference.streams import telling
from kaizen.serve.http.call import JSON, Call
from kaizen.serve.http.door import Door
from kaizen.serve.http.learn.described import outputs_schema
from kaizen.serve.http.learn.seams import Learning
from kaizen.serve.http.problem import problem_of
from kaizen.serve.http.wires.openai_chat import error_body

ADMIN: Final = "admin"
PATH: Final = "/api/v1/programs"
_LONGEST: Final = 256
_KNOWN: Final = ("version", "subject", "stream")
_ROOT: Final = "0"


class Programs:
    """Lists the programs and runs them, each as a run of the caller's.

    Args:
        learning: the programs, and what runs them.
        door: lets callers in, those that may ask models.
        max_body: bytes of a request at most.
    """

    def __init__(self, learning: Learning, door: Door, max_body: int) -> None:
        self._learning, self._door, self._max_body = learning, door, max_body

    async def list(self, call: Call) -> None:
        """``GET``: names, words and schemas, for who may run or administer them."""
        try:
            await self._door.enter(call, INFER)
        except Denied:
            await self._door.enter(call, ADMIN)
        found = [
            {
                "name": name,
                "doc": one.program.spec.doc,
                "inputs": one.program.spec.input_schema,
                "outputs": outputs_schema(one.program.spec),
            }
            for name, one in self._learning.programs.items()
        ]
        await call.answer(200, to_json({"programs": found}), (JSON,))

    async def run(self, call: Call) -> None:
        """``POST``: inputs by field name; ``?version=`` and ``?subject=`` as ``kaizen run`` has them.

        With ``?stream=true`` the answer comes as server-sent events, see ``Writing``.
        """
        identity = await self._door.enter(call, INFER)
        program = self._learning.served(call.path.removeprefix(f"{PATH}/")[:_LONGEST]).program
        query = _query(call)
        inputs = _inputs(await call.body(self._max_body))
        start = partial(
            self._learning.start,
            identity,
            program,
            inputs,
            version=query.get("version", ""),
            subject=query.get("subject", ""),
        )
        if query.get("stream") == "true":
            await _stream(call, program.spec, lambda emit: start(emit=emit))
            return
        answer = _whole(await start())
        record = answer.record
        headers = [JSON, (b"x-kaizen-record", record.id.encode()), (b"cache-control", b"no-store")]
        await call.answer(200, to_json(_shown(program.spec, answer), inf_nan_mode="null"), headers)


class Writing:
    """What is sent of a run that is streamed.

    ``partial`` holds the outputs of the program itself as far as they are written; ``step`` tells once that a program
    below it begins to write, whose outputs are not the caller's to read; ``answer`` holds what a whole answer does,
    and ``error`` what one that fails does.

    Args:
        spec: the program's.
    """

    def __init__(self, spec: Spec) -> None:
        self._spec = spec
        self._steps: set[str] = set()

    def partial(self, told: Partial) -> bytes:
        """The event of what is told; empty where there is nothing new to say."""
        if told.step == _ROOT:
            return _event("partial", {"outputs": _named(self._spec, told.outputs)})
        if told.step in self._steps:
            return b""
        self._steps.add(told.step)
        return _event("step", {"program": told.ref, "step": told.step})

    def answer(self, answer: Answer) -> bytes:
        """The last event."""
        return _event("answer", _shown(self._spec, answer))


async def _stream(
    call: Call, spec: Spec, begin: Callable[[Callable[[Partial], None]], Awaitable[Answer | Suspended]]
) -> None:
    """Events as they come. The head waits for the first, so that what fails before it has a status of its own."""
    writing = Writing(spec)
    items = telling(begin, about=lambda told: told.step)
    try:
        async for item in items:
            if isinstance(item, Partial):
                if data := writing.partial(item):
                    await (call.write(data) if call.started else call.open((), data))
                continue
            data = writing.answer(_whole(item))
            if not call.started:
                await call.open(())
            await call.end(data)
    except Exception as error:
        if not call.started:
            raise
        problem = problem_of(error)
        call.error = problem.code
        await call.end(b"event: error\ndata: %b\n\n" % error_body(problem))
    finally:
        await items.aclose()


def _event(name: str, data: Mapping[str, Any]) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (name.encode(), to_json(data, inf_nan_mode="null"))


def _whole(answer: Answer | Suspended) -> Answer:
    if isinstance(answer, Suspended):
        detail = {"run_id": answer.run_id, "step": answer.step}
        raise Denied(f"the call waits for approval: {answer.question}", detail=detail)
    return answer


def _named(spec: Spec, outputs: Mapping[str, Any]) -> dict[str, Any]:
    """The outputs; intermediates lie behind the record."""
    return {name: value for name, value in outputs.items() if name in spec.outputs}


def _shown(spec: Spec, answer: Answer) -> dict[str, Any]:
    record = answer.record
    return {
        "outputs": _named(spec, answer.outputs),
        "record": record.id,
        "version": record.version,
        "experiment": record.experiment,
        "model": record.model,
        "tokens": {"in": record.tokens_in, "out": record.tokens_out},
        "cost_usd": record.cost_usd,
        "saved_usd": record.saved_usd,
        "cache": record.cache_tier,
        "latency_ms": record.latency_ms,
    }


def _query(call: Call) -> Mapping[str, str]:
    try:
        query = dict(parse_qsl(call.query.decode("ascii", "replace"), max_num_fields=8))
    except ValueError:
        raise InvalidInput("the query has too many parameters") from None
    if unknown := sorted(query.keys() - set(_KNOWN)):
        raise InvalidInput(f"{unknown[0][:100]!r} is no parameter here; there are {', '.join(_KNOWN)}")
    if query.get("stream", "true") not in ("true", "false"):
        raise InvalidInput("stream is true or false")
    if long := [name for name, value in query.items() if len(value) > _LONGEST]:
        raise InvalidInput(f"{long[0]} has more than {_LONGEST} characters")
    return query


def _inputs(data: bytes) -> dict[str, Any]:
    try:
        inputs: Any = from_json(data, allow_inf_nan=False)
    except ValueError as error:
        raise InvalidInput(f"the body is no JSON: {error}") from None
    if not isinstance(inputs, dict):
        raise InvalidInput("the body should be a JSON object of inputs by field name")
    return cast("dict[str, Any]", inputs)
