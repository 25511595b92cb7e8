"""Which output mode a model gets: a table, never a trial call."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from kaizen.core.params import OutputMode
from kaizen.inference.endpoint import Endpoint

# OpenAI's models from before structured outputs (August 2024) know JSON mode at best.
# https://platform.openai.com/docs/guides/structured-outputs#supported-models
_OPENAI_BEFORE_SCHEMAS: Final = re.compile(
    r"gpt-3\.5|gpt-4($|-turbo|-32k|-\d{4}|-vision)|gpt-4o-2024-05-13|chatgpt-4o|o1-(mini|preview)|davinci|babbage"
)


class Capabilities:
    """The default output mode of each model ref.

    Args:
        own: modes from the settings by model ref; they go before the table.
        endpoints: providers by name; one that is missing (a Provider object of the user's own) gets "json".
    """

    def __init__(self, own: Mapping[str, OutputMode], endpoints: Mapping[str, Endpoint]) -> None:
        self._modes = dict(own)
        self._endpoints = endpoints

    def output_mode(self, ref: str) -> OutputMode:
        """How to have this model answer when neither the program nor its params say."""
        mode = self._modes.get(ref)
        if mode is None:
            name, _, model = ref.partition("/")
            mode = self._modes[ref] = _default(self._endpoints.get(name), model)
        return mode


def _default(endpoint: Endpoint | None, model: str) -> OutputMode:
    match endpoint:
        case Endpoint(kind="embedded"):
            return "schema"  # by a grammar
        case Endpoint(kind="anthropic"):
            return "schema"  # structured output, or a forced tool for the older models
        case Endpoint(kind="openai", host="api.openai.com"):
            return "json" if _OPENAI_BEFORE_SCHEMAS.match(model) else "schema"
        case Endpoint(kind="openai", local=True):
            return "schema"  # Ollama, vLLM and llama.cpp turn json_schema into a grammar
        case _:
            return "json"  # vendors differ by model; the schema in the prompt works with all of them
