"""From a class body to a Spec, with every mistake in it found at once."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from types import FrameType, SimpleNamespace
from typing import Any, ClassVar, Final, TypeVar, cast, get_args, get_origin, get_type_hints

from pydantic import PydanticSchemaGenerationError, PydanticUserError, ValidationError
from pydantic_core import SchemaError

from kaizen.core.answer import Answer
from kaizen.core.errors import DefinitionError
from kaizen.core.spec import Field, Spec
from kaizen.programs.declare import Declared

# pydantic would take a field called `model_config` for the settings of its own model
RESERVED: Final = frozenset(
    {"execute", "stream", "using", "compile", "record", "outputs", "spec", "of", "stamped", "model_config"}
)
_REFUSALS: Final = (PydanticUserError, SchemaError, NameError, TypeError, ValueError, RuntimeError)
_NUMBER: Final = ("integer", "number")
# By constraint, where it shows in the JSON schema of a type that it says something about.
_KEYWORDS: Final[dict[str, dict[str, tuple[str, ...]]]] = {
    "ge": {"minimum": _NUMBER},
    "gt": {"exclusiveMinimum": _NUMBER},
    "le": {"maximum": _NUMBER},
    "lt": {"exclusiveMaximum": _NUMBER},
    "multiple_of": {"multipleOf": _NUMBER},
    "min_length": {"minLength": ("string",), "minItems": ("array",), "minProperties": ("object",)},
    "max_length": {"maxLength": ("string",), "maxItems": ("array",), "maxProperties": ("object",)},
    "pattern": {"pattern": ("string",)},
}
_PLAIN: Final = (str, int, float, bool)
_ADVICE: Final = "write `{name}: {type} = context.input(...)`, `context.output(...)` or `context.intermediate(...)`"


def inherited_spec(cls: type) -> Spec:
    """The fields and the doc that a class inherits from the signatures among its bases, nearer ones first."""
    types = _given_types(cls)
    fields: dict[str, Field] = {}
    doc = ""
    for base in reversed(cls.__mro__[1:]):
        spec = base.__dict__.get("spec")
        if not isinstance(spec, Spec):
            continue
        doc = spec.doc or doc
        # a base's spec holds what it inherited too, which must not undo what a class between overrides
        passed_on = {id(field) for above in base.__mro__[1:] for field in _fields_of(above)}
        fields |= {name: field for name, field in spec.fields.items() if id(field) not in passed_on}
    if types:
        fields = {
            name: replace(field, annotation=substituted(field.annotation, types)) for name, field in fields.items()
        }
    return Spec("", doc, fields.values())


def _fields_of(cls: type) -> Iterable[Field]:
    spec = cls.__dict__.get("spec")
    return spec.fields.values() if isinstance(spec, Spec) else ()


def _given_types(cls: type) -> dict[Any, Any]:
    """What ``class Sub(Extract[U], Generic[U])`` puts for the type variables of the generics it extends."""
    types: dict[Any, Any] = {}
    for alias in cls.__dict__.get("__orig_bases__", ()):
        origin = get_origin(alias)
        if isinstance(origin, type) and issubclass(origin, Answer):
            types |= zip(getattr(origin, "__parameters__", ()), get_args(alias), strict=True)
    return {variable: given for variable, given in types.items() if variable is not given}


def substituted(annotation: Any, types: Mapping[Any, Any]) -> Any:
    """The annotation with type variables replaced."""
    if isinstance(annotation, TypeVar):
        return types.get(annotation, annotation)
    inner = getattr(annotation, "__parameters__", ())
    return annotation[tuple(types.get(each, each) for each in inner)] if inner else annotation


def surrounding_names() -> dict[str, Any]:
    """The local names where a class is being defined, for annotations written as strings in a function."""
    frame = _outside()
    return {} if frame is None or frame.f_locals is frame.f_globals else dict(frame.f_locals)


def caller_module() -> str:
    """The module that calls into this package."""
    frame = _outside()
    return str(frame.f_globals.get("__name__", "__main__")) if frame is not None else "__main__"


def module_ref(module: str) -> str:
    """A module in the names of its programs: the script that runs is called what ``import`` would call it.

    Else all scripts' programs would be ``__main__.Triage``, and none the one whose versions the registry holds.
    """
    main = sys.modules.get("__main__")
    if module != "__main__" or main is None:
        return module
    if main.__spec__ is not None:  # python -m
        return main.__spec__.name.removesuffix(".__main__")
    file = getattr(main, "__file__", None)
    return module if file is None else file_module(Path(file))


def file_module(path: Path) -> str:
    """What a file is called as a module.

    A file of a package (its folder has an ``__init__.py``) is called as the package has it. Any other is called by its
    path from the project's root (the nearest folder above here that has a ``kaizen.toml``, else this one), without a
    leading ``src``; one that lies elsewhere by its name alone.
    """
    path = path.resolve()
    if (path.parent / "__init__.py").is_file():
        top = path.parent
        while (top.parent / "__init__.py").is_file():
            top = top.parent
        parts = path.relative_to(top.parent).with_suffix("").parts
        return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
    here = Path.cwd().resolve()
    root = next((folder for folder in (here, *here.parents) if (folder / "kaizen.toml").is_file()), here)
    if not path.is_relative_to(root):
        return path.stem
    parts = path.relative_to(root).with_suffix("").parts
    return ".".join(parts[1:] if parts[0] == "src" and len(parts) > 1 else parts)


def _outside() -> FrameType | None:
    frame = inspect.currentframe()
    while frame is not None and frame.f_globals.get("__package__") == __package__:
        frame = frame.f_back
    return frame


def checked(spec: Spec) -> Spec:
    """The same spec, if pydantic can serve its types.

    Raises:
        DefinitionError: with all mistakes.
    """
    if mistakes := _type_mistakes(spec):
        raise DefinitionError(spec.name, mistakes)
    return spec


def spec_of(cls: type[Answer], inherited: Spec, names: Mapping[str, Any]) -> Spec:
    """The contract a class body declares, over the fields it inherits.

    Args:
        cls: the class; its ``Declared`` values are taken out of it.
        inherited: what its bases declare.
        names: what string annotations may refer to besides the module's globals.

    Raises:
        DefinitionError: with all mistakes.
    """
    where = f"{module_ref(cls.__module__)}.{cls.__qualname__}"
    mistakes: list[str] = []
    fields = dict(inherited.fields)
    for mixin in _mixins(cls):
        fields |= _body(mixin, names, mistakes)
    own = _body(cls, names, mistakes)
    declared = _declared(cls)
    for name, _ in declared:
        delattr(cls, name)
    fields |= own
    doc = cls.__dict__.get("__doc__")
    spec = Spec(where, inspect.cleandoc(doc) if doc else inherited.doc, fields.values(), cls)
    if not spec.outputs and not any(value.role == "output" for _, value in declared):
        mistakes.append("there is no output: write `answer: str = context.output(...)`")
    mistakes += _feeding_mistakes(fields)
    mistakes += _type_mistakes(spec)
    if mistakes:
        raise DefinitionError(where, mistakes)
    return spec


def _mixins(cls: type) -> list[type]:
    """Plain classes among the bases, which may carry fields for several signatures; those of bases count there."""
    bases = cls.__mro__[:0:-1]
    known = {above for base in bases if "spec" in base.__dict__ for above in base.__mro__}
    return [base for base in bases if base not in known and not issubclass(base, Answer)]


def _body(cls: type, names: Mapping[str, Any], mistakes: list[str]) -> dict[str, Field]:
    """The fields in one class's body."""
    declared = dict(_declared(cls))
    if not declared and not issubclass(cls, Answer):
        return {}  # a mixin without fields, whose annotations are its own affair
    annotations = inspect.get_annotations(cls)
    for name, value in declared.items():
        if name not in annotations:
            mistakes.append(f"field '{name}' has no type: write `{name}: str = context.{value.role}(...)`")
        elif name.startswith("_"):
            mistakes.append(f"field '{name}': write it without the underscore, every field is public")
    fields: dict[str, Field] = {}
    for name, annotation in annotations.items():
        if _is_classvar(annotation) or name.startswith("_"):
            continue
        if name not in declared:
            shown = annotation if isinstance(annotation, str) else getattr(annotation, "__name__", annotation)
            mistakes.append(f"field '{name}' has no role: {_ADVICE.format(name=name, type=shown)}")
        elif (field := _field(cls, name, annotation, declared[name], names, mistakes)) is not None:
            fields[name] = field
    return fields


def _declared(cls: type) -> list[tuple[str, Declared]]:
    return [(name, value) for name, value in vars(cls).items() if isinstance(value, Declared)]


def _is_classvar(annotation: object) -> bool:
    if isinstance(annotation, str):
        return annotation.startswith(("ClassVar", "typing.ClassVar"))
    return annotation is ClassVar or get_origin(annotation) is ClassVar


def _field(
    cls: type,
    name: str,
    annotation: Any,
    declared: Declared,
    names: Mapping[str, Any],
    mistakes: list[str],
) -> Field | None:
    if name in RESERVED:
        mistakes.append(f"field '{name}': this name is taken by the face of a signature; choose another")
        return None
    mistakes += [f"field '{name}' uses {mistake}" for mistake in declared.mistakes]
    try:
        annotation = _resolved(cls, annotation, names)
    except NameError as error:
        mistakes.append(_undefined(name, error))
        return None
    except (TypeError, SyntaxError, AttributeError) as error:
        mistakes.append(f"field '{name}' has no usable type: {error}")
        return None
    if isinstance(annotation, Declared):
        mistakes.append(f"field '{name}' hides the type of the same name: rename the field, or write `module.{name}`")
        return None
    return Field(name, declared.role, declared.typed(annotation), declared.info, declared.feeds)


def _resolved(cls: type, annotation: Any, names: Mapping[str, Any]) -> Any:
    """An annotation with its names looked up: where the class is defined, then in its module."""
    module = vars(sys.modules[cls.__module__]) if cls.__module__ in sys.modules else {}
    # a field may be called as its type is
    inside = {name: value for name, value in vars(cls).items() if not isinstance(value, Declared)}
    holder = SimpleNamespace(__annotations__={"it": annotation})
    return get_type_hints(holder, globalns={**module, **names, **inside}, include_extras=True)["it"]


def _type_mistakes(spec: Spec) -> list[str]:
    """What pydantic has against the fields. All at once when they are fine; one by one to name the culprits."""
    try:
        return _unusable_defaults(spec) + _idle_constraints(spec)
    except _REFUSALS:
        probes = ((field, Spec(spec.name, "", [replace(field, feeds=None)])) for field in spec.fields.values())
        return [mistake for field, probe in probes if (mistake := _refusal(field, probe))]


def _refusal(field: Field, probe: Spec) -> str | None:
    try:
        mistakes = _unusable_defaults(probe) + _idle_constraints(probe)
    except NameError as error:
        return _undefined(field.name, error)
    except PydanticSchemaGenerationError:
        return (
            f"field '{field.name}' has the type {_shown(field.annotation)}, which has no JSON form: "
            "make it a dataclass, a TypedDict or a pydantic model"
        )
    except _REFUSALS as error:
        said = str(error).splitlines()[0] if str(error) else type(error).__name__
        return f"field '{field.name}' has a type or constraint that can't be used: {said}"
    return mistakes[0] if mistakes else None


def _shown(annotation: Any) -> str:
    return annotation.__name__ if isinstance(annotation, type) else str(annotation)


def _undefined(name: str, error: NameError) -> str:
    return f"field '{name}' refers to '{error.name}', which is not defined yet: define it above this class"


def _unusable_defaults(spec: Spec) -> list[str]:
    optional = {name: field for name, field in spec.inputs.items() if not field.required}
    if not optional:
        return []
    values = {name: field.info.get_default(call_default_factory=True) for name, field in optional.items()}
    try:
        spec.input_model.__pydantic_validator__.validate_python(values)
    except ValidationError as error:
        return [
            f"field '{item['loc'][0]}' has a default that breaks its own rule: {item['msg']}"
            for item in error.errors()
            if item["loc"] and item["loc"][0] in optional
        ]
    return []


def _idle_constraints(spec: Spec) -> list[str]:
    """Constraints that pydantic takes but that say nothing about the field's type, such as ``ge`` on text."""
    found: list[str] = []
    # a schema of plain inputs shows no mistake, and is not needed before the first record: it can wait
    plain = all(field.annotation in _PLAIN and not field.info.metadata for field in spec.inputs.values())
    inputs = {} if plain else spec.input_schema
    for fields, schema in (({} if plain else spec.inputs, inputs), (spec.written, spec.output_schema)):
        for name, field in fields.items():
            if any(word in repr(field.annotation) for word in ("date", "time", "~")):
                continue  # dates keep their bounds out of the JSON schema; a type variable has no type yet
            rules = {
                rule for item in field.info.metadata for rule in _KEYWORDS if getattr(item, rule, None) is not None
            }
            own = cast("dict[str, Any]", schema["properties"][name])
            options = [own, *own.get("anyOf", ())]
            found += [
                f"field '{name}': `{rule}` says nothing about its type"
                for rule in sorted(rules)
                if not any(
                    keyword in option and option.get("type") in types
                    for option in options
                    for keyword, types in _KEYWORDS[rule].items()
                )
            ]
    return found


def _feeding_mistakes(fields: Mapping[str, Field]) -> Iterator[str]:
    known: set[str] = {field.name for field in fields.values() if field.role == "input"}
    for field in fields.values():
        if field.feeds is None:
            continue
        spec = getattr(field.feeds, "spec", None)
        if not isinstance(spec, Spec):
            yield f"field '{field.name}': `signature=` takes a signature or another program, not {field.feeds!r}"
            continue
        missing = [name for name, other in spec.inputs.items() if other.required and name not in known]
        if missing:
            yield (
                f"field '{field.name}': {spec.name} needs {', '.join(missing)}, "
                "which is no input or earlier intermediate of this class"
            )
        if field.name not in spec.outputs and len(spec.outputs) != 1:
            yield f"field '{field.name}': {spec.name} has no output of that name, and several others to choose from"
        known.add(field.name)
