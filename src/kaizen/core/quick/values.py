"""What makes the values of every call: frozen dataclasses whose making costs half, and a cheaper ``replace``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import MISSING, Field, fields
from typing import Any, Final, TypeVar, cast

T = TypeVar("T")

_FACTORY: Final = object()
_set_class: Final = cast("Callable[[object, type], None]", object.__dict__["__class__"].__set__)
_copiers: dict[type[Any], Callable[[Any, dict[str, Any]], Any]] = {}


def quick(cls: type[T]) -> type[T]:
    """A frozen, slotted dataclass with another ``__init__``: the same parameters, in half the time.

    The one that ``dataclass`` makes calls ``object.__setattr__`` for each field. This one turns the new instance into
    one of a class that has the same slots and is not frozen, assigns, and turns it back. Nobody else ever holds it
    meanwhile.

    It can have no subclasses: their instances would be turned into ones of this class.

    Raises:
        TypeError: for what is no frozen, slotted dataclass right below ``object``, or does more at its making.
    """
    given: tuple[Field[Any], ...] = fields(cast("Any", cls))
    names = [field.name for field in given]
    slots = tuple(cls.__dict__.get("__slots__", ()))
    assigned = all(field.init for field in given)
    if cls.__bases__ != (object,) or list(slots) != names or not assigned or hasattr(cls, "__post_init__"):
        raise TypeError(f"{cls.__name__} is no plain frozen dataclass with slots")
    open_cls = type(f"_Open{cls.__name__}", (), {"__slots__": slots})
    space: dict[str, Any] = {
        "_new": object.__new__,
        "_set": _set_class,
        "_Open": open_cls,
        "_Shut": cls,
        "_FACTORY": _FACTORY,
    }
    plain: list[str] = []
    named: list[str] = []
    lines: list[str] = []
    for field in given:
        value = field.name
        if field.default is not MISSING:
            space[f"_d_{value}"] = field.default
            parameter = f"{value}=_d_{value}"
        elif field.default_factory is not MISSING:
            space[f"_f_{value}"] = field.default_factory
            parameter = f"{value}=_FACTORY"
            lines.append(f" if {value} is _FACTORY: {value} = _f_{value}()")
        else:
            parameter = value
        (named if field.kw_only else plain).append(parameter)
        lines.append(f" self.{value} = {value}")
    parameters = ", ".join(["self", *plain, *(["*", *named] if named else [])])
    text = "\n".join([f"def __init__({parameters}):", " _set(self, _Open)", *lines, " self.__class__ = _Shut"])
    exec(text, space)  # noqa: S102 - of our own fields' names, as dataclasses does it
    made = space["__init__"]
    made.__qualname__, made.__module__ = f"{cls.__qualname__}.__init__", cls.__module__
    made.__annotations__ = cast("Any", cls).__init__.__annotations__
    cast("Any", cls).__init__ = made
    copying = [" new = _new(_Open)", *[f" new.{name} = value.{name}" for name in names]]
    changing = [" for name, one in changes.items(): setattr(new, name, one)", " new.__class__ = _Shut", " return new"]
    exec("\n".join(["def copied(value, changes):", *copying, *changing]), space)  # noqa: S102 - as above
    _copiers[cls] = space["copied"]
    cast("Any", cls).__init_subclass__ = classmethod(_refused)
    return cls


def _refused(cls: type[Any], **_: object) -> None:
    raise TypeError(f"{cls.__name__} would be a subclass of {cls.__bases__[0].__name__}, whose making is its own")


def changed(value: T, /, **changes: Any) -> T:
    """``dataclasses.replace`` for what ``quick`` has made: a third of its time.

    Raises:
        AttributeError: there is no such field.
        TypeError: ``quick`` did not make its class.
    """
    try:
        copier = _copiers[type(value)]
    except KeyError:
        raise TypeError(f"{type(value).__name__} is not quick: use dataclasses.replace") from None
    return cast("T", copier(value, changes))
