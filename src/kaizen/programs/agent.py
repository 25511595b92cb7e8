"""The tool-using loop (ReAct: Yao et al. 2022, arXiv 2210.03629): think, call tools, read, until it can answer."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar, cast, overload

from pydantic_core import from_json

from kaizen.core.answer import Answer
from kaizen.core.context import Context, Program
from kaizen.core.errors import Conflict, DefinitionError, KaizenError, Unsupported
from kaizen.core.message import Message, Part, Text, ToolCall, ToolResult
from kaizen.core.params import NOTHING, Params
from kaizen.core.request import Reply, Request, ToolSpec
from kaizen.core.spec import Spec, dump
from kaizen.programs.function import tool
from kaizen.programs.predict import asked, feed, invalid, shown_back, unfiltered
from kaizen.programs.prompt.nearest import Likeness
from kaizen.programs.prompt.parse import Misfit, parse_reply
from kaizen.programs.prompt.render import Plan, Plans, identifier, render, showing
from kaizen.programs.runnable import Runnable
from kaizen.programs.together import together

A = TypeVar("A", bound=Answer)

_RESULT_LIMIT = 20_000
_CALLS_A_TURN = 64


class React(Runnable[..., A]):
    """See ``react``."""

    def __init__(self, spec: Spec, tools: Sequence[Program], max_steps: int, own: Params) -> None:
        self.spec, self._own, self._max_steps = spec.variant("react"), own, max_steps
        self._plan, self._likeness = Plans(self.spec), Likeness(self.spec)
        self._tools: dict[str, Program] = {}
        mistakes: list[str] = []
        for each in tools:
            name = identifier(each.spec)
            if name in self._tools:
                mistakes.append(f"two tools are called '{name}'")
            self._tools[name] = each
        if not tools:
            mistakes.append("no tools: pass tools=[...], or run the signature itself")
        if max_steps < 1:
            mistakes.append(f"max_steps = {max_steps}: at least one step is needed")
        if mistakes:
            raise DefinitionError(spec.name, mistakes)
        self._offered = tuple(
            ToolSpec(name, each.spec.doc, each.spec.input_schema) for name, each in self._tools.items()
        )

    async def run(self, ctx: Context, inputs: dict[str, Any]) -> Answer:
        """Let the model call tools for up to ``max_steps`` turns, then have it answer in the contract's form."""
        spec = self.spec
        fed = await feed(ctx, spec, inputs)
        params = ctx.params(spec, self._own)
        if params.layout == "plain" or params.scored or (params.votes or 1) > 1:
            rule = f"{spec.name} converses with its tools: layout = 'plain', scored values and votes are not for it"
            raise Unsupported(rule, rules=rule)
        given = inputs | fed
        stable = self._plan(params)
        if params.nearest is not None:
            stable = showing(stable, await self._likeness.nearest(ctx, params.demos, given, params.nearest))
        messages = render(stable, given)
        for _ in range(self._max_steps):
            reply = unfiltered(await asked(ctx, spec, self._request(ctx, params, stable, messages), stable.mode))
            if not reply.tool_calls:
                messages = (*messages, Message.of("assistant", reply.text))
                if (outputs := _fitting(spec, reply, stable)) is not None:
                    return spec.answer_type.of(fed | outputs, inputs=inputs)
                break
            thought: tuple[Part, ...] = (Text(reply.text),) if reply.text else ()
            results = await self._call(ctx, reply.tool_calls)
            messages = (*messages, Message("assistant", (*thought, *reply.tool_calls)), Message("tool", results))
        return spec.answer_type.of(fed | await self._conclude(ctx, params, stable, messages), inputs=inputs)

    def _request(self, ctx: Context, params: Params, stable: Plan, messages: tuple[Message, ...]) -> Request:
        return ctx.request(
            params.model or "",
            messages,
            stable=len(stable.prefix),
            tools=self._offered,
            decoding=stable.decoding,
            options=stable.options,
        )

    async def _call(self, ctx: Context, calls: Sequence[ToolCall]) -> tuple[ToolResult, ...]:
        """The calls of one turn, side by side, results in their order."""
        # the branch is taken here, in the model's order, not when its task starts
        results = await together([self._use(ctx.fork(), call) for call in calls[:_CALLS_A_TURN]])
        # whoever writes the reply must not start thousands of tools with it
        said = f"not called: a turn has {_CALLS_A_TURN} calls at most"
        return (*results, *(ToolResult(call.id, said, is_error=True) for call in calls[_CALLS_A_TURN:]))

    async def _use(self, ctx: Context, call: ToolCall) -> ToolResult:
        """What a tool gave. Its failure is told to the model, which may try otherwise; the record keeps it."""
        wanted = self._tools.get(call.name)
        if wanted is None:
            known = ", ".join(self._tools)
            return ToolResult(call.id, f"there is no tool '{call.name}'; the tools are {known}", is_error=True)
        try:
            arguments = from_json(call.arguments or "{}")
        except ValueError as error:
            return ToolResult(call.id, f"the arguments are not JSON: {error}", is_error=True)
        if not isinstance(arguments, dict):
            return ToolResult(call.id, "the arguments have to be a JSON object", is_error=True)
        try:
            answer = await ctx.call(wanted, **cast("dict[str, Any]", arguments))
        except KaizenError as error:
            if isinstance(error, Conflict) and error.detail.get("run_id") == ctx.run.run_id:
                raise  # the run can't be resumed like this, and the model could not mend it
            return ToolResult(call.id, _cut(str(error)), is_error=True)
        except Exception as error:  # noqa: BLE001 - a tool is foreign code; its record says how it failed
            return ToolResult(call.id, _cut(f"{type(error).__name__}: {error}"), is_error=True)
        return ToolResult(call.id, _shown(answer.outputs))

    async def _conclude(
        self, ctx: Context, params: Params, stable: Plan, messages: tuple[Message, ...]
    ) -> dict[str, Any]:
        """The answer in the contract's form, with the usual repairs; tools are named but may not be called."""
        messages = (*messages, Message.of("user", "Now give the answer, in the form asked for."))
        for repairs_left in range(params.repairs or 0, -1, -1):
            request = ctx.request(
                params.model or "",
                messages,
                stable=len(stable.prefix),
                output=stable.output,
                tools=self._offered,
                decoding=stable.decoding,
                options=stable.options,
            )
            request = replace(request, tool_choice="none")
            reply = unfiltered(await asked(ctx, self.spec, request, stable.mode))
            try:
                return parse_reply(self.spec, reply, stable.mode)
            except Misfit as misfit:
                if not repairs_left:
                    raise invalid(self.spec, reply, misfit) from None
                messages = (*messages, *shown_back(reply, misfit))
        raise AssertionError("the loop above returns or raises")


def _fitting(spec: Spec, reply: Reply, stable: Plan) -> dict[str, Any] | None:
    """The outputs, if a turn without tool calls already is the answer."""
    try:
        return parse_reply(spec, reply, stable.mode)
    except Misfit:
        return None


def _shown(outputs: Mapping[str, Any]) -> str:
    """A tool's outputs as the model reads them: a single text as it is, anything else as JSON; cut when huge."""
    only = next(iter(outputs.values())) if len(outputs) == 1 else None
    text = only if isinstance(only, str) else dump(only if len(outputs) == 1 else outputs).decode()
    return _cut(text)


def _cut(text: str) -> str:
    return text if len(text) <= _RESULT_LIMIT else f"{text[:_RESULT_LIMIT]}… ({len(text)} characters in all)"


@overload
def react(signature: type[A], /, tools: Sequence[Any], *, max_steps: int = 8) -> React[A]: ...
@overload
def react(signature: Program, /, tools: Sequence[Any], *, max_steps: int = 8) -> React[Answer]: ...
def react(signature: Any, /, tools: Sequence[Any], *, max_steps: int = 8) -> React[Any]:
    """A program that answers ``signature`` by calling tools first.

    Args:
        signature: the contract; its docstring are the instructions.
        tools: any programs (signatures, agents, ``@tool`` functions), or plain functions with a docstring.
        max_steps: turns in which tools may be called, before the answer is asked for.
    """
    own = getattr(getattr(signature, "_predict", None), "own", NOTHING)
    programs = [tool(each) if inspect.isroutine(each) else each for each in tools]
    return React[Any](signature.spec, programs, max_steps, own)
