"""What the tests of the command line share: a project in a folder, and the command line on a scripted model."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from kaizen.app import App, build
from kaizen.app.learn.evaluations import evaluate_plan
from kaizen.app.learn.loop import make_loop, watch
from kaizen.app.learn.optimize import optimize
from kaizen.app.measured.calibrating import calibrate
from kaizen.app.measured.insight import known
from kaizen.app.measured.replay import replay
from kaizen.app.routes import train
from kaizen.core.request import Request
from kaizen.serve import command_line
from kaizen.serve.doors import Doors, ModelInfo
from kaizen.settings import load_settings
from kaizen.stores.sqlite import SqliteStore
from kaizen.testing.scripted import Line, ScriptedProvider

TRIAGE = '''\
from typing import Literal

from kaizen import Signature, context


class Triage(Signature):
    """Name the team."""

    message: str = context.input("what the customer wrote")
    team: Literal["cards", "transfers"] = context.output("the team")
    urgency: int = context.output("how urgent", ge=1, le=5)
'''

ANSWER = '{"team": "cards", "urgency": 4}'


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


class Project:
    """A folder with programs in it, and the command line run there in this process.

    Attributes:
        provider: the scripted model, with the requests it got.
    """

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder, self._capsys = folder, capsys
        self.provider = ScriptedProvider(lambda _: ANSWER)
        self.models: Sequence[ModelInfo] = ()
        self.editor: Sequence[str] = ()
        self.stdout = self.stderr = ""

    def answers(self, script: Sequence[Line] | Callable[[Request], Line]) -> None:
        """What the model says from now on."""
        self.provider = ScriptedProvider(script)

    def write(self, name: str, text: str) -> Path:
        path = self.folder / name
        path.write_text(text, "utf-8")
        return path

    def app(self) -> App:
        settings = load_settings(self.folder, {"KAIZEN_MODEL": "scripted/m"}, {})
        return build(settings, provider=self.provider, store=SqliteStore(self.folder / "ledger.db"))

    def kaizen(self, *argv: str) -> int:
        """Run the command line; what it wrote is in ``stdout`` and ``stderr``."""
        forget(self.folder)
        doors = Doors(
            self.app,
            lambda: self.models,
            self.pull,
            editor=lambda: self.editor,
            train=train,
            known=known,
            replay=replay,
            calibrate=calibrate,
            evaluate=evaluate_plan,
            optimize=optimize,
            loops=make_loop,
            watch=lambda loop, scope, every, told: watch(loop, scope, every=every, told=told),
        )
        code = command_line.main(argv, doors)
        self.stdout, self.stderr = self._capsys.readouterr()
        return code

    async def pull(self, name: str, on_progress: Callable[[str], None]) -> Path:
        """Stands for the download, which has tests of its own."""
        on_progress(f"getting {name}")
        return self.folder / f"{name}.gguf"

    @property
    def json(self) -> Any:
        return json.loads(self.stdout)

    def lines(self, name: str) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.folder / name).read_text("utf-8").splitlines()]


def forget(folder: Path) -> None:
    """Forget the modules of a folder, as a new process would."""
    for name, module in list(sys.modules.items()):
        if (getattr(module, "__file__", None) or "").startswith(str(folder)):
            del sys.modules[name]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Project]:
    """A project with ``triage.py`` in the working directory."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    made = Project(tmp_path.resolve(), capsys)
    made.write("triage.py", TRIAGE)
    yield made
    forget(made.folder)
