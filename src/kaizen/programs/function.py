"""Programs written as plain functions: ``@program async def`` that calls others, and ``@tool``."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Mapping
from functools import cached_property
from types import CodeType
from typing import TYPE_CHECKING, Any, Final, ParamSpec, TypeVar, cast, get_type_hints, overload

import pydantic
from pydantic import ValidationError

from kaizen.core.answer import Answer
from kaizen.core.context import Context
from kaizen.core.errors import DefinitionError, OutputInvalid
from kaizen.core.ids import digest
from kaizen.core.spec import Field, Spec
from kaizen.programs.declare import Declared
from kaizen.programs.define import checked, module_ref, surrounding_names
from kaizen.programs.runnable import Runnable

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo

P = ParamSpec("P")
R = TypeVar("R")

RESULT: Final = "result"
"""The output a function's plain return value is kept under."""


class FunctionProgram(Runnable[P, R]):
    """A function as a Program: its parameters are the inputs, what it returns is the output.

    Called by a user it gives what the function returns; called by the runner, an Answer. A function that
    returns a signature's answer hands its outputs on; any other value is the output ``result``.
    """

    def __init__(self, function: Callable[..., Any], names: Mapping[str, Any]) -> None:
        self.function = function
        self.__doc__, self.__name__ = function.__doc__, function.__name__
        self._takes_context, self.spec = _spec_of(function, names)
        self._hands_on = self.spec.answer_type is not Answer
        self._is_async = inspect.iscoroutinefunction(function)

    @cached_property
    def version(self) -> str:
        """Digest of the function's own code, not of what it calls."""
        return digest(repr(_code(self.function.__code__)).encode())

    async def run(self, ctx: Context, inputs: dict[str, Any]) -> Answer:
        """Call the function; a plain one in a thread, with the context it would have here."""
        given = (ctx,) if self._takes_context else ()
        if self._is_async:
            value = await self.function(*given, **inputs)
        else:
            value = await asyncio.to_thread(self.function, *given, **inputs)
        if isinstance(value, Answer) or self._hands_on:
            if not self._hands_on or not isinstance(value, self.spec.answer_type):
                raise self._undeclared(value, f"write `-> {type(value).__name__}`")
            return value
        try:
            outputs = self.spec.validate_outputs({RESULT: value})
        except ValidationError as error:
            raise self._undeclared(value, error.errors(include_url=False, include_input=False)[0]["msg"]) from None
        return self.spec.answer_type.of(outputs, inputs=inputs)

    def _undeclared(self, value: object, problem: str) -> OutputInvalid:
        said = f"{self.spec.name} returned a {type(value).__name__}, which is not what it declares"
        return OutputInvalid(said, reply="", problem=problem)

    def result_of(self, answer: Answer) -> R:
        """What the function returned."""
        return cast("R", answer if self._hands_on else answer.outputs[RESULT])


def program(function: Callable[P, Awaitable[R]]) -> FunctionProgram[P, R]:
    """Make a Program of an ``async def`` that calls other programs.

    A first parameter annotated ``Context`` gets the call's context and is no input.

    Raises:
        DefinitionError: if it is not async, or a parameter has no usable type.
    """
    if not inspect.iscoroutinefunction(function):
        raise DefinitionError(_where(function), ["@program takes an `async def`; a plain function becomes a @tool"])
    return FunctionProgram(function, surrounding_names())


@overload
def tool(function: Callable[P, Awaitable[R]]) -> FunctionProgram[P, R]: ...
@overload
def tool(function: Callable[P, R]) -> FunctionProgram[P, R]: ...
def tool(function: Callable[..., Any]) -> FunctionProgram[..., Any]:
    """Make a Program of a function that a model may call, async or not; a plain one runs in a thread.

    Its docstring tells the model what it does.

    Raises:
        DefinitionError: if it has no docstring, or a parameter has no usable type.
    """
    if not (function.__doc__ or "").strip():
        raise DefinitionError(_where(function), ["a tool needs a docstring: it tells the model what the tool does"])
    return FunctionProgram(function, surrounding_names())


def _code(code: CodeType) -> tuple[object, ...]:
    """What a function does, without where it stands."""
    constants = tuple(_code(each) if isinstance(each, CodeType) else repr(each) for each in code.co_consts)
    return code.co_code, code.co_names, constants


def _where(function: Callable[..., Any]) -> str:
    return f"{module_ref(function.__module__)}.{function.__qualname__}"


def _spec_of(function: Callable[..., Any], names: Mapping[str, Any]) -> tuple[bool, Spec]:
    where = _where(function)
    mistakes: list[str] = []
    try:
        hints = get_type_hints(function, localns=dict(names), include_extras=True)
    except (NameError, TypeError) as error:
        raise DefinitionError(where, [f"an annotation can't be read: {error}"]) from None
    parameters = list(inspect.signature(function).parameters.values())
    takes_context = bool(parameters) and hints.get(parameters[0].name) is Context
    fields: list[Field] = []
    for parameter in parameters[takes_context:]:
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD, parameter.POSITIONAL_ONLY):
            mistakes.append(f"parameter '{parameter}' has to be a plain named one: inputs are passed by name")
        elif parameter.name not in hints:
            mistakes.append(f"parameter '{parameter.name}' has no type: write `{parameter.name}: str`")
        else:
            fields.append(_input(parameter, hints[parameter.name], mistakes))
    if mistakes:
        raise DefinitionError(where, mistakes)
    answer_type, outputs = _outputs(hints.get("return", Any))
    doc = inspect.cleandoc(function.__doc__ or "")
    return takes_context, checked(Spec(where, doc, [*fields, *outputs], answer_type))


def _input(parameter: inspect.Parameter, annotation: Any, mistakes: list[str]) -> Field:
    name, default = parameter.name, parameter.default
    if isinstance(default, Declared):
        mistakes += [f"parameter '{name}' uses {mistake}" for mistake in default.mistakes]
        if default.role != "input":
            mistakes.append(f"parameter '{name}' is declared as an {default.role}: write `context.input(...)`")
        return Field(name, "input", default.typed(annotation), default.info)
    made: Any = pydantic.Field() if default is parameter.empty else pydantic.Field(default=default)
    return Field(name, "input", annotation, cast("FieldInfo", made))


def _outputs(returned: Any) -> tuple[type[Answer], list[Field]]:
    """A returned signature hands its fields on; anything else is one output."""
    spec = getattr(returned, "spec", None)
    if isinstance(returned, type) and issubclass(returned, Answer) and isinstance(spec, Spec):
        return returned, [field for field in spec.fields.values() if field.role != "input"]
    made: Any = pydantic.Field()
    return Answer, [Field(RESULT, "output", returned, cast("FieldInfo", made))]
