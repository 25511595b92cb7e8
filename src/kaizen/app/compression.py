"""Fewer tokens, as the settings want it."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from typing import TYPE_CHECKING

from kaizen.core.errors import ConfigError
from kaizen.inference.onion import Layers
from kaizen.inference.prices import PriceTable
from kaizen.settings import Settings, data_home

if TYPE_CHECKING:
    from kaizen.inference.compress.compressor import Compressor
    from kaizen.inference.compress.evidence import Evidence
    from kaizen.inference.compress.surprisal import Surprisal

_READER = "smollm2-135m"


def with_compress(layers: Layers, settings: Settings, prices: PriceTable) -> Layers:
    """The layers with the one that shortens prompts, if it is on.

    Raises:
        ConfigError: if what it needs is not installed.
    """
    own = settings.inference.compress
    if not own.enabled:
        return layers
    if find_spec("numpy") is None:
        raise ConfigError(
            'inference.compress needs numpy, which is not installed: pip install "kaizen-engine[semantic]"'
        )
    from kaizen.inference.compress.layer import Compress, Risk
    from kaizen.inference.compress.prefix import Prefixes

    layer = partial(
        Compress,
        compressor=make_compressor(settings),
        evidence=make_evidence(settings),
        prices=prices,
        risk=Risk(limit=own.risk, sample=own.sample),
        prefixes=Prefixes() if own.prompt_cache else None,
    )
    return replace(layers, compress=layer)


def make_compressor(settings: Settings) -> Compressor:
    """What shortens prompts."""
    from kaizen.inference.compress.compressor import Compressor
    from kaizen.providers.embed.wordllama import WordLlamaEmbedder

    own = settings.inference.compress
    return Compressor(WordLlamaEmbedder(), _reads(settings), window=own.history, demos=own.demos)


def _reads(settings: Settings) -> Surprisal | None:
    """The embedded model as a reader, where that is wanted.

    Raises:
        ConfigError: if its weights are missing.
    """
    if not settings.inference.compress.surprisal:
        return None
    from kaizen.providers.llama import default_threads
    from kaizen.providers.surprisal.reading import LlamaSurprisal
    from kaizen.providers.weights import find_weights, missing_weights

    path = find_weights(_READER, data_home())
    if path is None:
        raise missing_weights(f"embedded/{_READER}")
    return LlamaSurprisal(path, default_threads())


def make_evidence(settings: Settings) -> Evidence:
    """What is known of the risk; it lies under ``home`` and all processes there share it."""
    from kaizen.inference.compress.evidence import Evidence

    return Evidence(settings.home.absolute() / "compress" / "evidence.jsonl")
