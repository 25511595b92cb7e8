"""Which model answers, as the settings want it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from kaizen.app.adapters import DEFAULT_MODEL, capabilities, embedded_models, endpoint_of
from kaizen.core.errors import ConfigError
from kaizen.core.protocols import Provider, Store
from kaizen.core.request import Request
from kaizen.inference.capabilities import Capabilities
from kaizen.inference.onion import Layers
from kaizen.inference.prices import PriceTable
from kaizen.serve.doors import Trained
from kaizen.settings import EmbeddedSettings, ModelSettings, Settings


def with_route(layers: Layers, settings: Settings, prices: PriceTable, store: Store) -> Layers:
    """The layers with the one that chooses, if it is on.

    Raises:
        ConfigError: a candidate is of a provider that is not there, or the router can't be used.
    """
    if not settings.inference.route.enabled:
        return layers
    from kaizen.inference.failover.health import Health
    from kaizen.inference.route.catalogue import Band, Catalogue
    from kaizen.inference.route.layer import Route, Views

    own = settings.inference.route
    bands = {name: tuple(Band(one.model, one.calls) for one in some) for name, some in own.bands.items()}
    catalogue = Catalogue(
        default=settings.model or DEFAULT_MODEL, candidates=own.candidates, groups=own.groups, bands=bands
    )
    _check(catalogue, settings)
    health = layers.health or Health()
    judge, weight = _judge(settings, store)
    views = Views(health, prices, _capability(settings), judge)
    cascade = _cascade(settings, prices)
    route = partial(Route, catalogue=catalogue, views=views, cascade=cascade, **weight)
    return replace(layers, health=health, route=route, candidates=_possible(catalogue, layers.candidates))


def _possible(catalogue: Any, others: Callable[[Request], Sequence[str]] | None) -> Callable[[Request], Sequence[str]]:
    """Every model that may come to answer: those in question, and those that stand in for each of them."""

    def possible(request: Request) -> Sequence[str]:
        refs: dict[str, None] = {}
        for model in catalogue.possible(request):
            some = (model,) if others is None else others(replace(request, model=model))
            refs.update(dict.fromkeys((model, *some)))
        return tuple(refs)

    return possible


def _judge(settings: Settings, store: Store) -> tuple[Any, Mapping[str, float]]:
    """What predicts quality, and the weight of it where the settings say one."""
    from kaizen.inference.route.evidence import Evidence, Judging
    from kaizen.inference.route.judge import Judge

    own = settings.inference.route
    judging = Judging(own.best_score, own.least_scores, frozenset(own.scores), own.refresh)
    evidence = Evidence(store, judging)
    trained, weight = _trained(settings)
    made = embedder()
    detector = None if made is None else _detector
    return Judge(evidence, embedder=made, trained=trained, detector=detector), weight


async def train(file: Path, target: Path, text: str | None, models: Sequence[str] | None) -> Trained:
    """Train a router from a file into another, with features of meaning where the embedder is installed.

    Raises:
        ConfigError: what it needs is not installed.
        InvalidInput: the file does not say which model was right, or is too short.
    """
    try:
        from kaizen.inference.route.rows import train_file
    except ImportError:
        raise ConfigError('training needs numpy: pip install "kaizen-engine[semantic]"') from None
    table, router = await train_file(file, target, text=text, models=models, embedder=embedder())
    curve = tuple((point.dial, point.cost, point.right) for point in router.curve)
    return Trained(len(table.examples), table.left_out, table.text, table.models, table.traits, curve)


def embedder() -> Any:
    """The embedded embedder, where what it needs is installed; it is loaded at the first call."""
    try:
        from kaizen.providers.embed.wordllama import WordLlamaEmbedder
    except ImportError:
        return None
    return WordLlamaEmbedder()


def _detector() -> Any:
    from kaizen.inference.route.tasks import TaskDetector

    return TaskDetector.shipped()


def _trained(settings: Settings) -> tuple[Any, Mapping[str, float]]:
    own = settings.inference.route
    if own.router is None:
        return None, {}
    from kaizen.core.errors import InvalidInput

    try:
        from kaizen.inference.route.judge import Trained
        from kaizen.inference.route.router import Prompt, Router
    except ImportError:
        raise ConfigError('inference.route.router needs numpy: pip install "kaizen-engine[semantic]"') from None
    try:
        router = Router.load(own.router)
    except InvalidInput as error:
        raise ConfigError(f"inference.route.router: {error.message}") from None

    def right(text: str, task: str | None, point: bytes | None) -> Mapping[str, float]:
        return router.right(Prompt(text, {} if task is None else {"task": task}, point))

    return Trained(router, right), {} if own.dial is None else {"dial": router.weight(own.dial)}


def _cascade(settings: Settings, prices: PriceTable) -> Callable[[Provider], Any] | None:
    own = settings.inference.route.cascade
    if own is None:
        return None
    from kaizen.inference.cascade import Cascade, Sureness

    return partial(Cascade, models=own.models, sureness=Sureness(own.confidence, own.measure), prices=prices)


def _capability(settings: Settings) -> Callable[[str], Any]:
    """What is known of each model beforehand."""
    from kaizen.inference.route.candidates import Capability

    endpoints = {name: endpoint_of(one) for name, one in settings.providers.items()}
    modes: Capabilities = capabilities(settings, endpoints)
    contexts = {
        f"{name}/{model}": provider.context
        for name, provider in settings.providers.items()
        if isinstance(provider, EmbeddedSettings)
        for model in embedded_models(provider)
    }

    def capability(ref: str) -> Capability:
        known = settings.models.get(ref, ModelSettings())
        media = frozenset[str]() if known.media is None and ref in contexts else known.media
        return Capability(
            context_tokens=known.context_tokens or contexts.get(ref),
            max_output_tokens=known.max_output_tokens,
            tools=known.tools,
            media=None if media is None else frozenset(media),
            schema=modes.output_mode(ref) == "schema",
        )

    return capability


def _check(catalogue: Any, settings: Settings) -> None:
    own, known = settings.inference.route, {*settings.providers, *settings.custom}
    named = [*own.candidates, *(ref for group in own.groups.values() for ref in group)]
    named += [one.model for bands in own.bands.values() for one in bands]
    named += own.cascade.models if own.cascade is not None else ()
    for ref in named:
        if ref.partition("/")[0] not in known:
            raise ConfigError(f"inference.route: {ref}: the providers are {', '.join(sorted(known))}")
