"""What programs that learn need of the process: an embedder, made when it is first asked."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING

from kaizen.core.errors import ConfigError
from kaizen.core.request import Embeddings
from kaizen.core.scope import Scope

if TYPE_CHECKING:
    from kaizen.core.protocols import Embedder


class LocalEmbedder:
    """The embedded embedder, loaded at the first text. Satisfies ``Embedder``."""

    def __init__(self) -> None:
        self._made: Embedder | None = None

    async def embed(self, scope: Scope, texts: Sequence[str], /) -> Embeddings:
        """A point for each text, in order.

        Raises:
            ConfigError: if what it needs is not installed.
        """
        if self._made is None:
            missing = [name for name in ("numpy", "wordllama") if find_spec(name) is None]
            if missing:
                raise ConfigError(
                    f"comparing texts needs {' and '.join(missing)}, not installed: "
                    'pip install "kaizen-engine[semantic]"'
                )
            from kaizen.providers.embed.wordllama import WordLlamaEmbedder

            self._made = WordLlamaEmbedder()
        return await self._made.embed(scope, texts)
