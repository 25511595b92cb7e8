"""The index in memory keeps what a VectorIndex promises."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from kaizen.core.protocols import VectorIndex
from kaizen.stores.vectors import MemoryVectors
from kaizen.testing.vector_suite import VectorSuite


class TestMemoryVectors(VectorSuite):
    @pytest.fixture
    async def index(self) -> AsyncIterator[VectorIndex]:
        index = MemoryVectors()
        yield index
        await index.close()
