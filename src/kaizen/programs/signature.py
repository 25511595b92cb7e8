"""The face of a signature: ``class Triage(Signature)``, and ``@signature`` on a plain class."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Generator
from dataclasses import dataclass, fields, replace
from functools import cache
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Self, TypeVar, cast, dataclass_transform, get_args, overload

from pydantic import TypeAdapter, ValidationError

from kaizen.core.answer import Answer
from kaizen.core.context import Context, Partial
from kaizen.core.errors import DefinitionError, OutputInvalid, Unsupported
from kaizen.core.message import Message
from kaizen.core.params import NOTHING, OutputMode, Params
from kaizen.core.slot import current_app
from kaizen.core.spec import Spec, shorten
from kaizen.programs.declare import input as input_field
from kaizen.programs.declare import intermediate as intermediate_field
from kaizen.programs.declare import output as output_field
from kaizen.programs.define import caller_module, checked, inherited_spec, spec_of, substituted, surrounding_names
from kaizen.programs.predict import Predict
from kaizen.programs.prompt.parse import Misfit, parse
from kaizen.programs.prompt.render import plan, render
from kaizen.programs.runnable import current_call
from kaizen.programs.shorthand import short_name, shorthand

T = TypeVar("T")
_PARAM_NAMES = frozenset(f.name for f in fields(Params))
_MARK = "__kaizen_loop__"


@dataclass_transform(kw_only_default=True, field_specifiers=(input_field, output_field, intermediate_field))
class Signature(Answer):
    """A typed contract that can be run: ``await Triage(message=...)``, ``Triage.execute(message=...)``.

    The class is the Program; ``Triage(message=...)`` is a call not made yet, which ``await`` makes; what
    comes back is an instance with its outputs. Fields are declared with ``context.input``,
    ``context.output`` and ``context.intermediate``; the docstring is the instructions.
    """

    spec: ClassVar[Spec]
    _predict: ClassVar[Predict]
    _compiled: ClassVar[Compiled[Any]]

    def __init_subclass__(cls, *, _spec: Spec | None = None, _own: Params | None = None, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if _spec is None:
            _spec = spec_of(cls, inherited_spec(cls), surrounding_names())
        if _spec.answer_type is Answer:
            _spec.answer_type = cls
        cls.spec = _spec
        cls._predict = Predict(_spec, _own or NOTHING)

    def __init__(self, ctx: Context | None = None, /, **inputs: Any) -> None:
        state = self.__dict__
        state["_inputs"] = inputs
        if ctx is not None:
            if not isinstance(ctx, Context):  # pyright: ignore[reportUnnecessaryIsInstance] - a user's mistake
                raise TypeError(f"{type(self).__name__} takes its inputs by name: {', '.join(self.spec.inputs)}")
            # called as a Program, by the runner
            state["_call"] = self._predict(ctx, **inputs)
        elif (here := current_call()) is not None:
            # inside another program: the step takes its number now, in program order
            state["_call"] = here.call(type(self), **inputs)
        else:
            state["_call"] = None

    def __await__(self) -> Generator[Any, None, Self]:
        state = self.__dict__
        if "_call" not in state:
            raise RuntimeError(f"this {type(self).__name__} was awaited already; call it again for another run")
        call = state.pop("_call") or current_app().run(type(self), state["_inputs"])
        return call.__await__()

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            if "_inputs" in self.__dict__ and not name.startswith("_"):
                raise AttributeError(f"{type(self).__name__} has not run yet: `await` it before reading {name!r}")
            if name == "record":
                raise AttributeError(f"{type(self).__name__} has no record yet: only the whole answer of a run has one")
            raise AttributeError(f"{type(self).__name__} has no field {name!r}")

        # A call not made yet is itself and no other: asyncio.gather makes equal ones once.
        def __eq__(self, other: object) -> bool:
            return self is other if "_inputs" in self.__dict__ else super().__eq__(other)

        def __hash__(self) -> int:
            if "_inputs" not in self.__dict__:
                raise TypeError(f"unhashable type: {type(self).__name__!r}")  # as Answer: its outputs can change
            return id(self)

    @classmethod
    def execute(cls, /, **inputs: Any) -> Self:
        """Run it and wait: for plain code and notebook cells.

        Raises:
            RuntimeError: when this thread runs an event loop; ``await Triage(...)`` there.
            InvalidInput: before any model is asked.
            OutputInvalid, ProviderError, BudgetExceeded, StoreError: see ``kaizen.errors``.
        """
        return current_app().execute(cls, inputs)

    @classmethod
    def stream(cls, /, **inputs: Any) -> AsyncGenerator[Self]:
        """Typed partial answers as they are written, then the validated whole.

        Fields not begun are None in a partial. The last item is the whole answer, with its record; after
        a repair it may differ from the partials before it. Leaving the loop early cancels the call.
        """
        return _partials(cls, current_app().stream(cls, inputs))

    @classmethod
    def using(cls, params: Params | None = None, /, **changes: Any) -> type[Self]:
        """The same program with other params: ``Triage.using(model="openai/...", temperature=0)``.

        Args:
            params: a whole set, such as a loaded artifact's.
            **changes: single fields of ``Params``; a Signature keeps those it had before.
        """
        unknown = sorted(changes.keys() - _PARAM_NAMES)
        if unknown:
            known = ", ".join(sorted(_PARAM_NAMES - {"contract"}))
            raise DefinitionError(cls.spec.name, [f"'{name}' is no param; the params are {known}" for name in unknown])
        try:
            own = cls._predict.own if params is None else params
            own = _params().validate_python({name: getattr(own, name) for name in _PARAM_NAMES} | changes)
        except ValidationError as error:
            wrong = error.errors(include_url=False)
            said = [
                f"{item['loc'][0]} = {shorten(item['input'])}: {item['msg']}"
                if item["loc"]
                else item["msg"].removeprefix("Value error, ")
                for item in wrong
            ]
            raise DefinitionError(cls.spec.name, said) from None
        body = {"__module__": cls.__module__, "__qualname__": cls.__qualname__, "__doc__": cls.__doc__}
        return cast("type[Self]", type(cls.__name__, (cls,), body, _spec=cls.spec, _own=own))

    @classmethod
    def compile(cls) -> Compiled[Self]:
        """Schemas, ``render`` and ``parse`` of this program, without any model. Made once a class."""
        made = cls.__dict__.get("_compiled")
        if made is None:
            made = cls._compiled = Compiled(cls, cls._predict)
        return made

    def __class_getitem__(cls, types: Any) -> Any:
        """A generic signature with its types given: ``Extract[Invoice]``."""
        if not issubclass(cls, Generic):
            raise TypeError(f"{cls.__name__} is not generic")
        # Generic's own, wherever it stands among the bases
        alias = Generic.__dict__["__class_getitem__"].__get__(None, cls)(types)
        if alias.__parameters__:
            return alias
        return specialised(cls, dict(zip(cast("Any", cls).__parameters__, get_args(alias), strict=True)))


A = TypeVar("A", bound=Signature)


@cache
def _params() -> TypeAdapter[Params]:
    return TypeAdapter(Params)


class Compiled(Generic[A]):
    """What a signature is before any model is asked.

    Attributes:
        input_schema, output_schema: JSON schemas.
        params: those that the program brings itself, as ``using`` set them.
    """

    def __init__(self, cls: type[A], predict: Predict) -> None:
        self._cls, self._spec, self.params = cls, predict.spec, predict.own
        self._mode: OutputMode = predict.own.output_mode or "schema"
        self._plan = plan(predict.spec, replace(predict.own, output_mode=self._mode))
        self.input_schema = predict.spec.input_schema
        self.output_schema = predict.spec.output_schema

    def render(self, /, **inputs: Any) -> tuple[Message, ...]:
        """The messages these inputs would be sent as.

        Raises:
            InvalidInput: if they don't fit.
            Unsupported: what is sent is not known before a call: with ``nearest``, or in the plain layout.
        """
        if self.params.layout == "plain" or (self.params.nearest is not None and self.params.demos):
            rule = f"{self._spec.name}: nearest examples and layout = 'plain' are not rendered before a call"
            raise Unsupported(rule, rules=rule)
        return render(self._plan, self._spec.validate_inputs(inputs))

    def parse(self, text: str) -> A:
        """Validated outputs of a model's text, as attributes.

        Raises:
            OutputInvalid: if it does not hold exactly one answer that fits.
        """
        try:
            return self._cls.of(parse(self._spec, text, self._mode))
        except Misfit as misfit:
            raise OutputInvalid(
                f"{self._spec.name}: the text does not fit the contract", reply=text, problem=misfit.problem
            ) from None


async def _partials(cls: type[A], items: AsyncGenerator[Partial | Answer]) -> AsyncGenerator[A]:
    """The partials of ``cls`` itself, not of programs below it, as its instances; then the whole."""
    unwritten = dict.fromkeys(cls.spec.written)
    try:
        async for item in items:
            if isinstance(item, Answer):
                yield cast("A", item)
            elif item.ref == cls.spec.name:
                yield cls.of({**unwritten, **item.outputs})
    finally:
        await items.aclose()


def specialised(cls: type[Signature], types: dict[Any, Any]) -> type[Signature]:
    """The generic signature ``cls`` with its type variables replaced; one class for the same types."""
    key = (cls, *types.values())  # not the name: two types may be called alike
    known = _SPECIALISED.get(key)
    if known is None:
        shown = ", ".join(
            str(each) if get_args(each) else getattr(each, "__name__", str(each)) for each in types.values()
        )
        fields = [replace(f, annotation=substituted(f.annotation, types)) for f in cls.spec.fields.values()]
        spec = checked(Spec(f"{cls.spec.name}[{shown}]", cls.spec.doc, fields))
        body = {"__module__": cls.__module__, "__qualname__": f"{cls.__qualname__}[{shown}]", "__doc__": cls.__doc__}
        known = _SPECIALISED[key] = type(f"{cls.__name__}[{shown}]", (cls,), body, _spec=spec)
    return known


_SPECIALISED: dict[tuple[Any, ...], type[Signature]] = {}


@overload
def signature(cls: type[T], /) -> type[T]: ...
@overload
def signature(short: str, /, *, doc: str = "", name: str | None = None) -> type[Signature]: ...


@dataclass_transform(kw_only_default=True, field_specifiers=(input_field, output_field, intermediate_field))
def signature(declared: Any, /, *, doc: str = "", name: str | None = None) -> Any:
    """Turn a plain class into a signature, or make one from its short form.

    ``@signature class Triage: ...`` is ``class Triage(Signature): ...``; a type checker sees the fields
    either way, and the face (``Triage.execute``) only in the second form.

    ``signature("question, passages: list[str] -> answer: str")`` names inputs, then outputs; a field
    without a type is text.

    Args:
        declared: the class, or the short form.
        doc: instructions, for the short form.
        name: the program's name, for the short form; made from the fields without it.
    """
    if isinstance(declared, str):
        module = caller_module()
        made = name or short_name(declared)
        fields = shorthand(declared, f"{module}.{made}")
        body = {"__module__": module, "__qualname__": made, "__doc__": doc, **fields[1], "__annotations__": fields[0]}
        return type(made, (Signature,), body)
    cls = cast("type[object]", declared)
    if issubclass(cls, Signature):
        return cls
    body = {key: value for key, value in vars(cls).items() if key not in ("__dict__", "__weakref__")}
    bases = tuple(base for base in cls.__bases__ if base is not object)
    return type(cls.__name__, (*bases, Signature), body)


# -- marked for the Kaizen loop -------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """What a program says of its loop.

    Args:
        metric: what candidates are tested with.
        floor: a mean score below this calls for a better version; None for none.
        train: path of labelled rows to learn from and to test on.
    """

    metric: str = "accuracy"
    floor: float | None = None
    train: str | None = None


def optimized(
    *, metric: str = "accuracy", floor: float | None = None, train: str | None = None
) -> Callable[[type[Any]], Any]:
    """Mark a signature for the Kaizen loop: ``kaizen loop start FILE.py:Name`` then needs no more to be said.

    It changes nothing by itself; a class that is no signature yet becomes one. Written
    ``@signature.optimized(metric="accuracy", floor=0.8)``.

    Args:
        metric: what candidates are tested with, as ``--metric`` has it.
        floor: a mean score below this calls for a better version.
        train: path of labelled rows to learn from and to test on.

    Raises:
        DefinitionError: the floor is no score.
    """
    if floor is not None and not 0 <= floor <= 1:
        raise DefinitionError("signature.optimized", [f"the floor should be from 0 to 1, not {floor!r}"])

    def marked(cls: type[Any]) -> Any:
        made = signature(cls)
        setattr(made, _MARK, Mark(metric=metric, floor=floor, train=train))
        return made

    return marked


def mark_of(program: Any) -> Mark | None:
    """What a program says of its loop; None where it says nothing. A program made by ``using`` keeps it."""
    return cast("Mark | None", getattr(program, _MARK, None))


signature.optimized = optimized  # pyright: ignore[reportFunctionMemberAccess] - a form of it
