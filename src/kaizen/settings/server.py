"""Settings of the gateway, and of the storage that several processes share."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, SecretStr

from kaizen.settings.values import Address, Positive, Seconds, Table


class ServerSettings(Table):
    """The HTTP gateway."""

    host: Annotated[str, Field(min_length=1)] = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65_535)] = 8000
    workers: Positive = 1
    max_body_bytes: Positive = 16 * 1024 * 1024
    grace: Seconds = 30.0


class StorageSettings(Table):
    """Where shared state lies: files under ``home`` unless an address is given. Addresses may hold passwords."""

    database_url: Annotated[SecretStr, Field(min_length=1)] | None = None
    redis_url: Annotated[SecretStr, Field(min_length=1)] | None = None


class TelemetrySettings(Table):
    """Records as OpenTelemetry traces. Contents are never sent."""

    otlp_endpoint: Address | None = None
    service: Annotated[str, Field(min_length=1)] = "kaizen"
    headers_env: Annotated[str, Field(min_length=1)] | None = None
