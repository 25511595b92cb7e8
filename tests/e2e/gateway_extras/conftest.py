"""The gateway of the neighbouring tests, with a provider of sound and images beside its others."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from kaizen.testing.media_server import MediaServer
from tests.e2e.gateway.conftest import gateway as gateway
from tests.e2e.gateway.conftest import upstream as upstream


@pytest.fixture
def media() -> Iterator[MediaServer]:
    with MediaServer() as server:
        yield server
