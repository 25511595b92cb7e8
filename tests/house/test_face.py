"""`import kaizen` loads one module of ours and nothing of anybody else's."""

from __future__ import annotations

import subprocess
import sys

import pytest


def loaded_after(code: str) -> set[str]:
    """The modules that running this code in a fresh interpreter adds."""
    script = f"import sys; before = set(sys.modules)\n{code}\nprint(*sys.modules.keys() - before)"
    # Isolated from the tests' measuring of subprocesses, which loads modules of its own.
    run = subprocess.run([sys.executable, "-c", script], env={}, capture_output=True, text=True, check=True)
    return set(run.stdout.split())


@pytest.mark.parametrize("code", ["import kaizen", "import kaizen; dir(kaizen)"])
def test_the_face_is_lazy(code: str) -> None:
    loaded = loaded_after(code)
    assert {name for name in loaded if name.split(".")[0] == "kaizen"} == {"kaizen"}
    assert {name for name in loaded if name.split(".")[0] not in sys.stdlib_module_names} == {"kaizen"}


def test_every_name_of_the_face_is_there_and_loads_no_adapter() -> None:
    loaded = loaded_after(
        "import kaizen\nfor name in kaizen.__all__: getattr(kaizen, name); assert name in dir(kaizen)"
    )
    assert {"kaizen.providers", "kaizen.stores", "httptools", "xllamacpp"} & loaded == set()


def test_an_unknown_name_is_an_attribute_error() -> None:
    loaded_after("import kaizen\ntry: kaizen.nothing_of_the_kind\nexcept AttributeError: pass\nelse: sys.exit(1)")
