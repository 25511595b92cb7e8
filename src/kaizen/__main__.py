"""The command ``kaizen``: hands the command line the App and what else it needs, each loaded when it is asked for."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kaizen.serve import command_line
from kaizen.serve.doors import Calibrating, Doors, ModelInfo, Optimized, Optimizing, Serving, Trained

if TYPE_CHECKING:
    from kaizen.app import App
    from kaizen.core.context import Program
    from kaizen.core.record import RecordQuery
    from kaizen.core.scope import Scope
    from kaizen.govern.keys import Keys
    from kaizen.inference.advise.traffic import Advice
    from kaizen.inference.compress.calibrate import Calibration
    from kaizen.learn.evaluate.plan import Plan, Told
    from kaizen.learn.evaluate.result import Evaluation
    from kaizen.learn.loop.loop import Loop


def main() -> None:
    """Run the command line on this process's arguments, and exit."""
    sys.exit(
        command_line.main(
            sys.argv[1:],
            Doors(
                _app,
                _models,
                _pull,
                serve=_serve,
                keys=_keys,
                editor=_editor,
                train=_train,
                known=_known,
                replay=_replay,
                calibrate=_calibrate,
                evaluate=_evaluate,
                optimize=_optimize,
                loops=_loops,
                watch=_watch,
            ),
        )
    )


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


def _editor() -> Sequence[str]:
    from kaizen.settings import editor_words

    return editor_words()


async def _known(app: App, scope: Scope) -> Mapping[str, Any]:
    from kaizen.app.measured.insight import known

    return await known(app, scope)


async def _replay(app: App, scope: Scope, query: RecordQuery) -> Sequence[Advice]:
    from kaizen.app.measured.replay import replay

    return await replay(app, scope, query)


async def _calibrate(app: App, wanted: Calibrating) -> Calibration:
    from kaizen.app.measured.calibrating import calibrate

    return await calibrate(app, wanted)


async def _optimize(app: App, wanted: Optimizing) -> Optimized:
    from kaizen.app.learn.optimize import optimize

    return await optimize(app, wanted)


def _loops(app: App, programs: Mapping[str, Program]) -> Loop:
    from kaizen.app.learn.loop import make_loop

    return make_loop(app, programs)


async def _watch(loop: Loop, scope: Scope, every: float | None, told: Callable[[str, str], None]) -> None:
    from kaizen.app.learn.loop import watch

    await watch(loop, scope, every=every, told=told)


async def _evaluate(app: App, plan: Plan, told: Told | None = None) -> Sequence[Evaluation]:
    from kaizen.app.learn.evaluations import evaluate_plan

    return await evaluate_plan(app, plan, told)


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
