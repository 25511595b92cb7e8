"""The embedded embedder: points of length 1, the package's own, without its code and without the network."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from kaizen.core.errors import Unavailable
from kaizen.core.scope import LOCAL
from kaizen.providers.embed import wordllama
from kaizen.providers.embed.wordllama import DIM, MODEL, WordLlamaEmbedder

TEXTS = ["How do I turn on dark mode?", "日本語 text", "", "   ", "a" * 50_000]


async def points(embedder: WordLlamaEmbedder, texts: list[str]) -> np.ndarray:
    made = await embedder.embed(LOCAL, texts)
    assert (made.model, made.dim) == (MODEL, DIM)
    return np.frombuffer(made.data, "<f4").reshape(-1, DIM)


async def test_every_text_has_a_point_of_length_one_and_always_the_same() -> None:
    first, second = await points(WordLlamaEmbedder(), TEXTS), await points(WordLlamaEmbedder(), TEXTS)
    assert first.shape == (len(TEXTS), DIM)
    assert np.linalg.norm(first, axis=1) == pytest.approx(np.ones(len(TEXTS)), abs=1e-5)
    assert (first == second).all()


async def test_a_text_has_the_same_point_alone_and_among_others() -> None:
    embedder = WordLlamaEmbedder()
    assert (await points(embedder, TEXTS[:1]) == (await points(embedder, TEXTS))[:1]).all()


async def test_tokens_are_counted() -> None:
    embedder = WordLlamaEmbedder()
    assert (await embedder.embed(LOCAL, ["one two", "three"])).usage.tokens_in == 3
    assert (await embedder.embed(LOCAL, [])).data == b""


@pytest.fixture(scope="module")
def theirs() -> np.ndarray:
    """The points that the package itself makes."""
    script = f"""
import json
from pathlib import Path
import wordllama
folder = Path(wordllama.__file__).parent
made = wordllama.WordLlama.load(cache_dir=folder, disable_download=True).embed({TEXTS[:2]!r}, norm=True)
print(json.dumps(made.tolist()))
"""
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return np.array(json.loads(ran.stdout))


async def test_points_are_the_packages_own(theirs: np.ndarray) -> None:
    assert await points(WordLlamaEmbedder(), TEXTS[:2]) == pytest.approx(theirs, abs=1e-5)


def test_the_packages_code_is_not_imported() -> None:
    script = """
import asyncio, sys
from kaizen.core.scope import LOCAL
from kaizen.providers.embed.wordllama import WordLlamaEmbedder
asyncio.run(WordLlamaEmbedder().embed(LOCAL, ["a"]))
print([name for name in ("wordllama", "requests", "huggingface_hub") if name in sys.modules])
"""
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"


async def test_without_the_package_it_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wordllama.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(Unavailable, match=r"pip install \"kaizen-engine\[semantic\]\"") as caught:
        await WordLlamaEmbedder().embed(LOCAL, ["a"])
    assert not caught.value.retryable


async def test_files_that_are_not_as_expected_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="can't be read"):
        await WordLlamaEmbedder(tmp_path).embed(LOCAL, ["a"])
    header = json.dumps({"embedding.weight": {"dtype": "F32", "shape": [2, 4], "data_offsets": [0, 32]}}).encode()
    table = tmp_path / "table.safetensors"
    table.write_bytes(len(header).to_bytes(8, "little") + header + bytes(32))
    with pytest.raises(ValueError, match="F32"):
        wordllama._mapped(table)
