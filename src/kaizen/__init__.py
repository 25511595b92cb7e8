"""Kaizen: typed programs for language models that improve from their own records.

The lazy face: a table from public name to the module that has it. Importing ``kaizen`` loads nothing else.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kaizen.app import configure as configure
    from kaizen.core import errors as errors
    from kaizen.core.answer import Answer as Answer
    from kaizen.core.context import Budget as Budget
    from kaizen.core.context import Context as Context
    from kaizen.core.context import Partial as Partial
    from kaizen.core.message import Media as Media
    from kaizen.core.params import Demo as Demo
    from kaizen.core.params import Params as Params
    from kaizen.core.record import Record as Record
    from kaizen.core.request import Options as Options
    from kaizen.programs import declare
    from kaizen.programs.agent import react as react
    from kaizen.programs.declare import History as History
    from kaizen.programs.declare import SecurityConstraint as SecurityConstraint
    from kaizen.programs.function import program as program
    from kaizen.programs.function import tool as tool
    from kaizen.programs.signature import Signature as Signature
    from kaizen.programs.signature import signature as signature
    from kaizen.programs.wrap.best import best_of as best_of
    from kaizen.programs.wrap.best import refine as refine
    from kaizen.programs.wrap.cached import cached as cached
    from kaizen.programs.wrap.cascade import cascade as cascade
    from kaizen.programs.wrap.packing import packed as packed

    context = declare

_FACE = {
    "Answer": "core.answer",
    "Budget": "core.context",
    "Context": "core.context",
    "Demo": "core.params",
    "History": "programs.declare",
    "Media": "core.message",
    "Options": "core.request",
    "Params": "core.params",
    "Partial": "core.context",
    "Record": "core.record",
    "SecurityConstraint": "programs.declare",
    "Signature": "programs.signature",
    "best_of": "programs.wrap.best",
    "cached": "programs.wrap.cached",
    "cascade": "programs.wrap.cascade",
    "configure": "app",
    "context": "programs.declare:",
    "errors": "core.errors:",
    "packed": "programs.wrap.packing",
    "program": "programs.function",
    "react": "programs.agent",
    "refine": "programs.wrap.best",
    "signature": "programs.signature",
    "tool": "programs.function",
}
"""Where each name lives; a colon at the end says that the name is the module itself."""

__all__ = sorted(_FACE)  # pyright: ignore[reportUnsupportedDunderAll] - the table is the truth; a test compares both


def __getattr__(name: str) -> Any:
    where = _FACE.get(name)
    if where is None:
        raise AttributeError(f"module 'kaizen' has no attribute {name!r}")
    module = import_module(f"kaizen.{where.rstrip(':')}")
    value = module if where.endswith(":") else getattr(module, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
