"""Calls that wait for others, as the settings want it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Final, assert_never

from kaizen.app.adapters import endpoint_of, make_adapter, transport_of
from kaizen.core.protocols import Embedder
from kaizen.inference.batch.api import BatchApi
from kaizen.inference.batch.desk import Timing
from kaizen.inference.batch.embeddings import GatheredEmbedder
from kaizen.inference.batch.layer import Batch
from kaizen.inference.onion import Layers
from kaizen.inference.prices import PriceTable
from kaizen.settings import AnthropicSettings, OpenAISettings, RemoteSettings, Settings

if TYPE_CHECKING:
    from kaizen.providers.http import HttpTransport

# What these publish for their batch APIs.
_DISCOUNT: Final = 0.5
_HOSTS: Final = frozenset({"api.openai.com", "api.anthropic.com"})


def with_batch(layers: Layers, settings: Settings, prices: PriceTable) -> Layers:
    """The layers with the one that batches, if it is on."""
    own = settings.inference.batch
    if not own.enabled:
        return layers
    from kaizen.stores.batches import BatchFile

    layer = partial(
        Batch,
        apis=_apis(settings),
        book=BatchFile(settings.home.absolute() / "batch.db"),
        prices=prices,
        discount=_discounts(settings),
        timing=Timing(own.least_wait, own.window, own.max_calls, own.poll, own.reserve, min(30.0, 10 * own.poll)),
    )
    return replace(layers, batch=layer)


def _apis(settings: Settings) -> Mapping[str, Callable[[], BatchApi]]:
    return {
        name: partial(_make_api, settings, name, provider)
        for name, provider in settings.providers.items()
        if isinstance(provider, OpenAISettings | AnthropicSettings)
    }


def _make_api(settings: Settings, name: str, provider: RemoteSettings) -> BatchApi:
    """The batch API of a provider, with connections of its own."""
    from kaizen.providers.wire import WireProvider

    adapter = make_adapter(settings, name, provider)
    assert isinstance(adapter, WireProvider)  # noqa: S101 - for the type checker: both kinds are
    match provider:
        case OpenAISettings():
            from kaizen.providers.batches.openai import OpenAIBatches

            return OpenAIBatches(adapter)
        case AnthropicSettings():
            from kaizen.providers.batches.anthropic import AnthropicBatches

            return AnthropicBatches(adapter)
        case _:
            assert_never(provider)


def _discounts(settings: Settings) -> Callable[[str], float]:
    """What a batch saves of a model's price."""
    vendors = {name: endpoint_of(one).host in _HOSTS for name, one in settings.providers.items()}

    def discount(ref: str) -> float:
        model = settings.models.get(ref)
        if model is not None and model.batch_discount is not None:
            return model.batch_discount
        return _DISCOUNT if vendors.get(ref.partition("/")[0]) else 0.0

    return discount


class Embedders(Mapping[str, Callable[[], Embedder]]):
    """By ref, what makes an embedder: those of this process, and any model of a provider on OpenAI's wire.

    Calls to others than this process's are gathered where batching is on; those are over before the next begins.

    Args:
        settings: the providers.
        local: what makes the embedders of this process; only these are listed.
    """

    def __init__(self, settings: Settings, local: Mapping[str, Callable[[], Embedder]]) -> None:
        self._settings, self._local = settings, local
        self._lines: dict[str, HttpTransport] = {}

    def __getitem__(self, ref: str) -> Callable[[], Embedder]:
        if ref in self._local:
            return self._local[ref]
        name, _, model = ref.partition("/")
        provider = self._settings.providers.get(name)
        if not model or not isinstance(provider, OpenAISettings):
            raise KeyError(ref)
        return partial(self._remote, ref, name, provider)

    def __iter__(self) -> Iterator[str]:
        return iter(self._local)

    def __len__(self) -> int:
        return len(self._local)

    def _remote(self, ref: str, name: str, provider: OpenAISettings) -> Embedder:
        from kaizen.providers.embed.openai import OpenAIEmbedder

        if name not in self._lines:  # one for all its models, which callers may name as they like
            self._lines[name] = transport_of(name, provider)
        made = OpenAIEmbedder(ref, self._lines[name])
        own = self._settings.inference.batch
        if not own.enabled:
            return made
        return GatheredEmbedder(made, wait=own.embed_wait_ms / 1000, texts=own.embed_texts)
