"""The order of the layers round the adapters, innermost first."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from kaizen.core.protocols import Provider
from kaizen.inference.deadline import Deadline
from kaizen.inference.dispatch import Dispatch
from kaizen.inference.meter import Meter
from kaizen.inference.prices import PriceTable
from kaizen.inference.retry import Retries, Retry


def build_onion(adapters: Mapping[str, Callable[[], Provider]], *, prices: PriceTable, retries: Retries) -> Provider:
    """All layers round the adapters.

    Args:
        adapters: by provider name, what makes its adapter; called at the first request that needs it.
        prices: what a model's tokens cost.
        retries: how often and how patiently to ask again.
    """
    onion: Provider = Dispatch(adapters)  # the adapter that the ref names
    onion = Retry(onion, retries)  # asks again; no client below does
    onion = Deadline(onion)  # bounds all attempts together
    return Meter(onion, prices)  # what the answer cost
