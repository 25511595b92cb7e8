"""Runs one page's blocks in this process: steps as JSON on standard input, what each did as JSON to a file."""

from __future__ import annotations

import contextlib
import io
import json
import subprocess
import sys
import traceback
import types
from pathlib import Path
from typing import Any


def run_python(step: dict[str, Any], page: types.ModuleType) -> dict[str, Any]:
    printed = io.StringIO()
    failed = ""
    try:
        # blank lines in front, so that a traceback shows the page's own line numbers
        code = compile("\n" * step["line"] + step["text"], step["page"], "exec", dont_inherit=True)
        with contextlib.redirect_stdout(printed):
            exec(code, vars(page))  # noqa: S102 - running the docs is what this is for
    except Exception as error:  # noqa: BLE001 - whatever a page raises is reported
        if type(error).__name__ == step["raises"]:
            return {"printed": str(error), "failed": ""}
        failed = traceback.format_exc()
    else:
        if step["raises"]:
            failed = f"it did not raise {step['raises']}"
    return {"printed": printed.getvalue(), "failed": failed}


def run_bash(step: dict[str, Any]) -> dict[str, Any]:
    command = ["bash", "-e", "-c", step["text"]]  # without pipefail, as in a reader's shell: `... | head` is fine
    run = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    failed = "" if run.returncode == step["exits"] else f"exit code {run.returncode}\n{run.stderr}"
    # an error's line is what a reader sees where nothing else is printed
    return {"printed": run.stdout or run.stderr, "failed": failed}


def main() -> None:
    steps, out = json.load(sys.stdin), Path(sys.argv[1])
    page = types.ModuleType("__main__")
    sys.modules["__main__"] = page  # classes of the page are `__main__.Triage`, as in a script
    sys.path.insert(0, str(Path.cwd()))
    done: list[dict[str, Any]] = []
    for step in steps:
        match step["action"]:
            case "python":
                done.append(run_python(step, page))
            case "bash":
                done.append(run_bash(step))
            case "holds":
                has = step["text"] in Path(step["file"]).read_text("utf-8")
                done.append({"printed": "", "failed": "" if has else f"{step['file']} holds something else"})
            case _:
                file = Path(step["file"])
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(step["text"] + "\n", "utf-8")
                done.append({"printed": "", "failed": ""})
        out.write_text(json.dumps(done), "utf-8")
        if done[-1]["failed"]:
            break


if __name__ == "__main__":
    main()
