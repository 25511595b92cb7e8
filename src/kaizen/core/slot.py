"""The one upward link: the name of the process's App, resolved at first use.

``Triage.execute(...)`` in a plain script must find the App that ``kaizen.configure`` set up, and core
can't import it. So core holds its name; a house test knows this line.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from importlib import import_module
from typing import Any, Final

CURRENT: Final = "kaizen.app:current"


def current_app() -> Any:
    """The process's App, built from the settings at the first call."""
    return _resolve()()


@cache
def _resolve() -> Callable[[], Any]:
    module, _, name = CURRENT.partition(":")
    return getattr(import_module(module), name)
