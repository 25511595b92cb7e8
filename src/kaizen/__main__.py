"""The command ``kaizen``: hands the command line the App and what else it needs, each loaded when it is asked for."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from kaizen.serve import command_line
from kaizen.serve.doors import Doors, ModelInfo, Serving, Trained

if TYPE_CHECKING:
    from kaizen.app import App
    from kaizen.core.scope import Scope
    from kaizen.govern.keys import Keys


def main() -> None:
    """Run the command line on this process's arguments, and exit."""
    sys.exit(command_line.main(sys.argv[1:], Doors(_app, _models, _pull, serve=_serve, keys=_keys, train=_train)))


def _app() -> App:
    from kaizen.app import current

    return current()


def _models() -> Sequence[ModelInfo]:
    from kaizen.app.models import known_models
    from kaizen.settings import read

    return known_models(read())


def _keys() -> tuple[Keys, Scope]:
    from kaizen.app.govern import make_keys
    from kaizen.core.scope import Scope
    from kaizen.settings import read

    settings = read()
    return make_keys(settings), Scope(settings.tenant, settings.environment)


async def _train(file: Path, target: Path, text: str | None, models: Sequence[str] | None) -> Trained:
    from kaizen.app.routes import train

    return await train(file, target, text, models)


async def _pull(name: str, on_progress: Callable[[str], None]) -> Path:
    from kaizen.app.models import pull_model

    return await pull_model(name, on_progress)


def _serve(serving: Serving) -> int:
    from kaizen.app.serving import serve

    return serve(serving)


if __name__ == "__main__":
    main()
