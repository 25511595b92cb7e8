"""What the batch layer needs from outside: a vendor's batch API, and a book that outlives the process."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Protocol

from kaizen.core.errors import ProviderError
from kaizen.core.request import Reply, Request
from kaizen.core.scope import Scope


class BatchApi(Protocol):
    """A vendor's batch API. Every method raises ProviderError and its kinds."""

    async def submit(self, key: str, calls: Mapping[str, Request], /) -> str:
        """Hand in calls of one model by their ids; the vendor's id of the batch.

        Args:
            key: our own name of the batch, by which ``find`` knows it; each call's id begins with it.
            calls: requests by id.
        """
        ...

    async def find(self, key: str, since: float, known: Collection[str], /) -> tuple[str | None, bool]:
        """The vendor's id of a batch that may have been handed in, and whether that is sure.

        Args:
            key: our own name of it.
            since: Unix seconds before which it can't have been.
            known: ids of other batches.
        """
        ...

    async def ended(self, batch_id: str, /) -> bool:
        """Whether nothing more will be answered."""
        ...

    async def results(self, batch_id: str, wanted: Mapping[str, Request], /) -> Mapping[str, Reply | ProviderError]:
        """What became of these calls, by id; one that is absent was not answered."""
        ...

    async def cancel(self, batch_id: str, /) -> None:
        """Have the vendor stop. What was answered by then is billed."""
        ...


class Book(Protocol):
    """Where it is written down which call went into which batch: no contents, only keys and ids."""

    async def place(self, scope: Scope, key: str, /) -> tuple[str, str] | None:
        """The batch that a call is in, and its id there."""
        ...

    async def intend(self, scope: Scope, batch: str, provider: str, calls: Mapping[str, str], /) -> None:
        """A batch is about to be handed in. When this returns it is known, whatever becomes of the process.

        Args:
            scope: whose calls these are.
            batch: our own name of it.
            provider: whom it goes to.
            calls: by key, each call's id in it.
        """
        ...

    async def touch(self, scope: Scope, batch: str, /) -> None:
        """It is still being handed in."""
        ...

    async def submitted(self, scope: Scope, batch: str, batch_id: str, /) -> None:
        """It is in, under the vendor's id."""
        ...

    async def batch(self, scope: Scope, batch: str, /) -> tuple[str | None, float, float] | None:
        """The vendor's id (None while that is not known), and the Unix seconds of ``intend`` and the last touch."""
        ...

    async def known(self, scope: Scope, provider: str, /) -> Collection[str]:
        """The vendor's ids of all batches."""
        ...

    async def drop(self, scope: Scope, batch: str, touched: float | None = None, /) -> bool:
        """Forget a batch that was not handed in; not if it is in, or was touched since ``touched``."""
        ...

    async def release(self, scope: Scope, key: str, /) -> int:
        """Forget one call, which is asked in another way; how many its batch has left."""
        ...
