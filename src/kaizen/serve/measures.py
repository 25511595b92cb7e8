"""What judges answers, by what a command or a loop's plan says."""

from __future__ import annotations

from kaizen.core.context import Program
from kaizen.learn.metrics.metric import metric
from kaizen.serve.load import load_program


def load_metric(text: str, program: Program) -> Program:
    """A metric by its name, or a program of the user's own, ``FILE.py:Name``.

    Raises:
        ConfigError: there is none of that name, or it can't judge answers of the program.
        NotFound, DefinitionError: see ``load_program``.
    """
    return load_program(text) if ".py" in text and "," not in text else metric(text, program.spec)
