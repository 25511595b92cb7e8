"""Traces to a collector, where the settings name one."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote

from kaizen.core.errors import ConfigError
from kaizen.settings import Settings, resolve_secret

if TYPE_CHECKING:
    from kaizen.ledger.exporter import Exporter


_HEADER: Final = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")


@dataclass(frozen=True, slots=True)
class _Asked:
    """Who asks, for errors."""

    model: str = "traces"
    deadline: float | None = None


def make_exporter(settings: Settings) -> Exporter | None:
    """What sends records to the collector, or None."""
    endpoint = settings.telemetry.otlp_endpoint
    if endpoint is None:
        return None
    from kaizen.ledger.exporter import Exporter
    from kaizen.providers.errors import Origin
    from kaizen.providers.http import HttpTransport, TransportSettings

    origin = Origin("telemetry")
    limits = TransportSettings(connections=2, connect_timeout=5.0, answer_timeout=10.0)
    http = HttpTransport(endpoint, _headers(settings), origin, limits)

    async def post(body: bytes) -> None:
        async with http.open("/v1/traces", body, _Asked()) as answer:
            data = await answer.read()
        if answer.status != 200:
            raise origin.answered("traces", answer.status, answer.headers, data)

    return Exporter(post, settings.telemetry.service)


def _headers(settings: Settings) -> dict[str, str]:
    """The collector's headers: ``name=value,name=value``, the values percent-encoded.

    As https://opentelemetry.io/docs/specs/otel/protocol/exporter/ has them.
    """
    variable = settings.telemetry.headers_env
    if variable is None:
        return {}
    said = resolve_secret(variable, "telemetry.headers_env").get_secret_value()
    found: dict[str, str] = {}
    for pair in said.split(","):
        name, equals, value = pair.partition("=")
        if not equals or not _HEADER.fullmatch(name.strip()):
            raise ConfigError(
                f"the variable {variable}, which telemetry.headers_env names, reads name=value,name=value"
            )
        found[name.strip().lower()] = unquote(value.strip())
    return found
