"""``kaizen registry``: versions that people look at, release, roll back and write."""

from __future__ import annotations

import asyncio
import json
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kaizen.app import App
from kaizen.core.artifact import Artifact
from kaizen.core.params import Demo, Params
from kaizen.core.scope import Scope
from kaizen.registry.params import load, save, to_toml
from kaizen.serve.load import load_program
from tests.unit.serve.conftest import Project, Terminal

NAME = "triage.Triage"
ONE = Params(instructions="Name the one team that owns it.", temperature=0.5)
TWO = Params(instructions="Name the team now.", demos=(Demo({"message": "hi"}, {"team": "cards", "urgency": 1}),))


def work(project: Project, act: Callable[[App], Any]) -> Any:
    """Something with the project's App."""

    async def done() -> Any:
        app = project.app()
        try:
            return await act(app)
        finally:
            await app.close()

    return asyncio.run(done())


def put(project: Project, params: Params, name: str = NAME, scope: Scope | None = None) -> str:
    """A version, made elsewhere; its content address."""
    artifact = Artifact("params", name, save(params))

    async def act(app: App) -> str:
        kept = await app.registry.put(scope or app.scope, artifact, author="optimizer:x", reason="trial")
        return kept.artifact.version

    return work(project, act)


def score(project: Project, version: str, value: float, metric: str = "accuracy") -> None:
    body = {"metric": metric, "score": value, "low": value - 0.1, "high": value + 0.1, "n": 50, "rows": [1, 2]}
    artifact = Artifact("evaluation", NAME, json.dumps(body).encode(), (f"params/{NAME}@{version}",))
    work(project, lambda app: app.registry.put(app.scope, artifact, author="evaluate", reason=""))


@pytest.fixture
def two(project: Project) -> Project:
    """A project with two versions, the first of them released, both scored."""
    one, other = put(project, ONE), put(project, TWO)
    score(project, one, 0.5)
    score(project, other, 0.75)
    score(project, other, 0.25, "f1")
    assert project.kaizen("registry", "label", NAME, "prod", "1", "--reason", "better") == 0
    return project


# -- looking --------------------------------------------------------------------------------------


def test_an_empty_registry_says_what_runs(project: Project) -> None:
    assert project.kaizen("registry", "list") == 0
    assert (project.stdout, project.stderr) == (
        "",
        "the registry is empty: every program runs the params in its code\n",
    )
    assert project.kaizen("registry", "list", "--json") == 0
    assert project.json == []
    assert not (project.folder / ".kaizen" / "registry.db").exists()  # to look makes nothing


def test_list_shows_what_has_versions_and_what_labels_show(two: Project) -> None:
    assert two.kaizen("registry", "list") == 0
    head, first, second = (line.split() for line in two.stdout.splitlines())
    assert head[:4] == ["name", "kind", "versions", "labels"]
    assert first[:4] == [NAME, "evaluation", "3", "-"]
    assert second[:6] == [NAME, "params", "2", "prod:", "1", "optimizer:x"]
    assert two.kaizen("registry", "list", "--kind", "params", "--json") == 0
    (row,) = two.json
    assert (row["name"], row["versions"], row["latest"]["number"], row["latest"]["reason"]) == (NAME, 2, 2, "trial")
    assert [(arm["number"], arm["weight"]) for arm in row["labels"]["prod"]] == [(1, 1.0)]


def test_list_of_one_shows_its_versions(two: Project) -> None:
    assert two.kaizen("registry", "list", "Triage") == 0
    rows = [line.split() for line in two.stdout.splitlines()]
    assert [row[0] for row in rows] == ["version", "base", "1", "2"]
    assert rows[2][2:4] == ["prod", "optimizer:x"]
    assert two.kaizen("registry", "list", "triage.py:Triage", "--json") == 0
    assert [(one["number"], one["labels"]) for one in two.json] == [(1, ["prod"]), (2, [])]
    assert two.kaizen("registry", "list", f"evaluation/{NAME}") == 0
    assert [line.split()[0] for line in two.stdout.splitlines()] == ["version", "1", "2", "3"]  # there is no base of it


def test_show_says_what_a_version_says_and_how_it_scored(two: Project) -> None:
    assert two.kaizen("registry", "show", f"{NAME}@prod") == 0
    lines = two.stdout.splitlines()
    assert lines[0] == f"params/{NAME} version 1, prod"
    assert lines[1].split()[1:3] == ["by", "optimizer:x,"]
    assert lines[2:4] == ["  because trial", f"  accuracy 0.5 [0.4, 0.6], n = 50 ({NAME}@1)"]
    assert 'instructions = "Name the one team that owns it."' in lines
    assert two.kaizen("registry", "show", "Triage", "--json") == 0
    assert (two.json["number"], two.json["labels"], two.json["body"]["instructions"]) == (2, [], TWO.instructions)
    assert [(one["metric"], one["score"]) for one in two.json["scores"]] == [("accuracy", 0.75), ("f1", 0.25)]


def test_show_passes_no_control_sequence_on(project: Project) -> None:
    artifact = Artifact("params", NAME, save(Params(instructions="a \x9b2J\x1b[2J b")))
    work(project, lambda app: app.registry.put(app.scope, artifact, author="a", reason="\x1b[2J\nwhy"))
    for words in (("show", NAME), ("list",), ("list", NAME), ("pull", NAME)):
        assert project.kaizen("registry", *words) == 0
        assert not {"\x1b", "\x9b"} & set(project.stdout)
    assert load(project.stdout).instructions == "a \x9b2J\x1b[2J b"


def test_show_of_base_is_the_code_as_far_as_it_is_known(two: Project) -> None:
    assert two.kaizen("registry", "show", "triage.py:Triage", "--version", "base", "--json") == 0
    assert (two.json["number"], two.json["version"], two.json["body"]["instructions"]) == (0, "base", "Name the team.")
    assert two.kaizen("registry", "show", f"{NAME}@base") == 0
    assert two.stdout.splitlines() == [f"params/{NAME} version base", "", "it says nothing: the code's own hold"]
    two.write("warm.py", "from triage import Triage as Cold\nWarm = Cold.using(temperature=0.9)\n")
    assert two.kaizen("registry", "show", "warm.py:Warm", "--version", "base", "--json") == 0
    assert two.json["body"]["temperature"] == 0.9


def test_anything_else_is_shown_too(two: Project) -> None:
    assert two.kaizen("registry", "show", f"evaluation/{NAME}@1") == 0
    assert '"rows": [\n    1,' in two.stdout
    long = Artifact("dataset", "mail", json.dumps({"rows": ["x" * 100] * 1000}).encode())
    work(two, lambda app: app.registry.put(app.scope, long, author="import", reason=""))
    assert two.kaizen("registry", "show", "dataset/mail") == 0
    assert "more characters, see --json" in two.stdout.splitlines()[-1]


def test_diff_shows_words_demos_params_and_scores(two: Project) -> None:
    assert two.kaizen("registry", "diff", NAME) == 0
    lines = [line.rstrip() for line in two.stdout.splitlines()]
    assert lines[0] == f"params/{NAME}  1 -> 2"
    assert "  Name the[- one-] team[- that owns it-]{+ now+}." in lines
    assert '  + {"inputs":{"message":"hi"},"outputs":{"team":"cards","urgency":1}}' in lines
    assert lines[lines.index("temperature") + 1] == "  0.5 -> not stated"
    scores = [line.split() for line in lines[-3:]]
    assert scores == [
        ["metric", "1", "2"],
        ["accuracy", "0.5", "[0.4,", "0.6]", "0.75", "[0.65,", "0.85]"],
        ["f1", "?", "0.25", "[0.15,", "0.35]"],
    ]


def test_diff_for_a_script_and_against_the_code(two: Project) -> None:
    assert two.kaizen("registry", "diff", "triage.py:Triage", "base", "2", "--json") == 0
    assert (two.json["old"], two.json["new"]) == ("base", "2")
    assert two.json["changes"]["instructions"]["words"][0] == ["=", "Name the team"]
    assert len(two.json["changes"]["demos"]["added"]) == 1
    assert [(one["metric"], one["old"]) for one in two.json["scores"]] == [("accuracy", None), ("f1", None)]
    assert two.kaizen("registry", "diff", NAME, "1", "1") == 0
    assert "no difference" in two.stdout
    assert two.kaizen("registry", "diff", NAME, "2", "1", "--json") == 0
    assert len(two.json["changes"]["demos"]["removed"]) == 1


def test_diff_of_many_demos_shows_the_first_unless_all_are_wanted(two: Project) -> None:
    put(two, Params(demos=tuple(Demo({"message": f"m{at}"}, {"team": "cards", "urgency": 1}) for at in range(9))))
    assert two.kaizen("registry", "diff", NAME, "1", "latest") == 0
    assert (two.stdout.count(':"m'), "and 3 more; --all shows them" in two.stdout) == (6, True)
    assert two.kaizen("registry", "diff", NAME, "1", "latest", "--all") == 0
    assert two.stdout.count(':"m') == 9


def test_diff_has_colours_on_a_terminal_only_and_no_control_sequences(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(project, Params(instructions="one \x1b[2J two", stop=("a", "b")))
    put(project, Params(instructions="one \x1b[2J three", stop=("b", "a")))
    monkeypatch.setattr("kaizen.serve.commands.registry.diff.takes_colour", lambda: True)
    monkeypatch.setattr(sys, "stdout", screen := Terminal())
    project.kaizen("registry", "diff", NAME, "1", "2")
    assert "\x1b[31m[- two-]\x1b[0m" in screen.getvalue()
    assert "\x1b[2J" not in screen.getvalue()
    assert "those that both have stand in another order" in screen.getvalue()


def test_a_user_without_a_name_is_a_human(two: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody() -> str:
        raise KeyError("uid not found")

    monkeypatch.setattr("getpass.getuser", nobody)
    assert two.kaizen("registry", "rollback", NAME, "--json") == 0
    assert two.json["actor"] == "human"


def test_history_says_who_moved_what_and_why(two: Project) -> None:
    two.kaizen("registry", "rollback", NAME, "--by", "loop", "--reason", "10 points worse")
    assert two.kaizen("registry", "history", NAME) == 0
    rows = [line.split() for line in two.stdout.splitlines()]
    assert [row[2:] for row in rows[1:]] == [
        ["prod", "1", rows[1][4], "better"],
        ["prod", "base", "loop", "(rollback)", "10", "points", "worse"],
    ]
    assert rows[1][4].startswith("human")
    assert two.kaizen("registry", "history", NAME, "--label", "prod", "--json") == 0
    first, second = two.json
    assert (first["undoes"], second["undoes"]) == (None, first["id"])
    assert [arm["number"] for move in two.json for arm in move["arms"]] == [1, 0]
    assert two.kaizen("registry", "history", NAME, "--label", "canary") == 0
    assert two.stderr == "no label of it was ever moved\n"


# -- moving ---------------------------------------------------------------------------------------


def test_a_label_moves_and_rolls_back(two: Project) -> None:
    for words, shown in (
        (("label", NAME, "prod", "latest"), "2"),
        (("label", f"{NAME}@1", "prod"), "1"),
        (("label", "triage.py:Triage", "prod", "base"), "base"),
        (("rollback", "Triage"), "1"),
        (("label", NAME, "prod", "1=0.9", "base=0.1"), "0.9 1 + 0.1 base"),
        (("label", NAME, "canary"), "2"),
    ):
        assert two.kaizen("registry", *words) == 0, two.stderr
        label = "canary" if "canary" in words else "prod"
        assert two.stdout == f"params/{NAME}@{label} shows {shown}\n"
    assert two.kaizen("registry", "rollback", NAME, "--label", "canary", "--json") == 0
    assert [arm["version"] for arm in two.json["arms"]] == ["base"]


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("label", NAME, "prod", "9"), 6, "params/triage.Triage has no version 9: its versions are 1 to 2"),
        (("label", NAME, "prod", "1=x"), 3, "'1=x' should read V=WEIGHT"),
        (("label", NAME, "prod", "1", "2"), 3, "'1': of several versions each needs its weight, such as 1=0.5"),
        (("label", NAME, "prod", "1=0.5", "2=0.1"), 3, "the weights of arms should sum to 1, not to 0.6"),
        (("label", NAME, "latest", "1"), 3, "'latest' can't be a label"),
        (("label", "Triagg", "prod", "1"), 6, "the registry has no params/Triagg; there is triage.Triage"),
        (("rollback", NAME, "--label", "none"), 6, "has no label none"),
        (("show", f"{NAME}@9"), 6, "has no version 9"),
        (("pull", "dataset/x"), 6, "the registry has no params/dataset/x"),
    ],
)
def test_what_can_not_be_moved_says_why(two: Project, words: tuple[str, ...], code: int, said: str) -> None:
    assert two.kaizen("registry", *words) == code
    assert said in two.stderr
    assert two.stderr.count("\n") == 1


def test_a_name_that_several_end_in_has_to_be_whole(project: Project) -> None:
    for name in ("a.Triage", "b.Triage"):
        put(project, ONE, name)
    assert project.kaizen("registry", "show", "Triage") == 7
    assert project.stderr == "error: several names end in Triage: a.Triage, b.Triage\n"


def test_a_version_of_another_contract_is_not_released_for_a_program_at_hand(project: Project) -> None:
    put(project, Params(contract="x" * 32))
    assert project.kaizen("registry", "label", "triage.py:Triage", "prod", "1") == 7
    assert "version 1 was made for another contract than triage.Triage has now" in project.stderr
    assert project.kaizen("registry", "history", "triage.py:Triage") == 0
    assert project.stdout == ""


def test_tenants_have_their_own(two: Project) -> None:
    assert two.kaizen("registry", "list", "--tenant", "acme", "--json") == 0
    assert two.json == []
    assert two.kaizen("registry", "label", NAME, "prod", "1", "--tenant", "acme") == 6
    put(two, TWO, scope=Scope("acme", "dev"))
    assert two.kaizen("registry", "label", NAME, "prod", "1", "--tenant", "acme") == 0
    assert two.kaizen("registry", "show", f"{NAME}@prod", "--json", "--tenant", "acme") == 0
    assert two.json["body"]["instructions"] == TWO.instructions
    assert two.kaizen("registry", "history", NAME, "--json") == 0
    assert len(two.json) == 1


# -- writing --------------------------------------------------------------------------------------


def test_pull_and_put_bring_a_version_round(two: Project) -> None:
    for number, name in enumerate(("one.toml", "one.json")):
        assert two.kaizen("registry", "pull", f"{NAME}@prod", "-o", name) == 0
        assert two.stderr == f"params/{NAME} version 1 is in {name}\n"
        assert load((two.folder / name).read_bytes()) == ONE
        assert two.kaizen("registry", "put", name) == 0
        assert two.stdout == f"params/{NAME} version 1, which was there already\n", number
    assert (two.folder / "one.toml").read_text().startswith(f"# params/{NAME} version 1, by optimizer:x, ")
    assert two.kaizen("registry", "pull", NAME, "-o", "one.toml") == 10
    assert "one.toml is there already; --force overwrites it" in two.stderr
    assert two.kaizen("registry", "pull", NAME, "-o", "one.toml", "--force") == 0
    assert load((two.folder / "one.toml").read_bytes()) == TWO
    assert two.kaizen("registry", "pull", NAME, "--version", "1") == 0
    assert load(two.stdout) == ONE
    assert two.kaizen("registry", "pull", NAME, "-o", "none/one.toml") == 10


def test_put_makes_a_version_and_moves_no_label(two: Project) -> None:
    two.write("new.toml", to_toml(Params(instructions="New."), program=NAME))
    assert two.kaizen("registry", "put", "new.toml", "--reason", "clearer", "--by", "human:ada", "--json") == 0
    assert (two.json["number"], two.json["author"], two.json["reason"], two.json["known"]) == (
        3, "human:ada", "clearer", False,
    )  # fmt: skip
    assert two.kaizen("registry", "show", f"{NAME}@prod", "--json") == 0
    assert two.json["number"] == 1


def test_put_stamps_the_contract_of_the_program_or_of_the_newest_version(project: Project) -> None:
    contract = load_program("triage.py:Triage").spec.contract
    project.write("new.toml", 'instructions = "New."')
    assert project.kaizen("registry", "put", "new.toml") == 2
    assert "new.toml does not say whose params it holds: add NAME" in project.stderr
    assert project.kaizen("registry", "put", "new.toml", "triage.py:Triage") == 0
    project.write("newer.toml", 'instructions = "Newer."')
    assert project.kaizen("registry", "put", "newer.toml", "Triage") == 0
    for which in ("1", "2"):
        project.kaizen("registry", "show", NAME, "--version", which, "--json")
        assert project.json["body"]["contract"] == contract
    project.write("other.toml", f'contract = "{"x" * 32}"')
    assert project.kaizen("registry", "put", "other.toml", "triage.py:Triage") == 7
    assert "were made for another contract" in project.stderr
    assert project.kaizen("registry", "put", "new.toml", "Other") == 6


@pytest.mark.parametrize(
    ("name", "text", "said", "code"),
    [
        (
            "bad.toml",
            "temprature = 1",
            "bad.toml: the params: 'temprature' is none of them; did you mean 'temperature'?",
            3,
        ),
        ("bad.json", '{"a":', "bad.json: the params are no JSON", 3),
        ("none.toml", None, "there is no file none.toml", 6),
    ],
)
def test_put_refuses_what_is_no_params(two: Project, name: str, text: str | None, said: str, code: int) -> None:
    if text is not None:
        two.write(name, text)
    assert two.kaizen("registry", "put", name, NAME) == code
    assert said in two.stderr
    assert two.kaizen("registry", "list", NAME, "--json") == 0
    assert len(two.json) == 2


def test_a_file_that_can_not_be_read_is_named(project: Project) -> None:
    (project.folder / "raw.toml").write_bytes(b"\xff")
    for name in ("raw.toml", "."):
        assert project.kaizen("registry", "put", name, NAME) == 2
        assert f"{name} can't be read" in project.stderr


def test_anything_may_have_versions(project: Project) -> None:
    project.write("limits.toml", 'name = "x"\nmost = 3\n')
    project.write("limits.json", '{"name": "x", "most": 4}')
    project.write("bad.json", "{")
    assert project.kaizen("registry", "put", "limits.toml", "policy/limits") == 0
    assert project.kaizen("registry", "put", "limits.json", "policy/limits") == 0
    assert project.kaizen("registry", "put", "bad.json", "policy/limits") == 3
    assert project.kaizen("registry", "pull", "policy/limits@1") == 0
    assert project.json == {"name": "x", "most": 3}
    assert project.kaizen("registry", "diff", "policy/limits", "1", "2", "--json") == 0
    assert project.json["changes"] == {"most": {"old": 3, "new": 4}}
    assert project.kaizen("registry", "edit", "policy/limits") == 2


def test_a_null_goes_into_json_only(project: Project) -> None:
    params = Params(demos=(Demo({"message": None}, {}),))
    put(project, params)
    assert project.kaizen("registry", "pull", NAME, "-o", "x.toml") == 2
    assert "holds a null, which TOML can't: write a .json" in project.stderr
    assert project.kaizen("registry", "pull", NAME) == 0
    assert load(project.stdout) == params


# -- editing --------------------------------------------------------------------------------------


def editor(project: Project, script: str) -> None:
    """Stands for the user at the editor: ``text`` is what the file holds."""
    code = f"import pathlib,sys\np=pathlib.Path(sys.argv[1])\ntext=p.read_text()\n{script}\np.write_text(text)\n"
    project.editor = [sys.executable, "-c", code]


def kept_text(project: Project) -> str:
    """The user's text, from the path that the error tells."""
    path = Path(shlex.split(project.stderr)[-1])
    text = path.read_text("utf-8")
    path.unlink()
    return text


def test_edit_opens_the_version_and_keeps_what_is_saved_as_the_next(two: Project) -> None:
    editor(two, "assert '# params/triage.Triage version 1' in text\ntext=text.replace('one team', 'single team')")
    assert two.kaizen("registry", "edit", NAME, "--version", "prod", "--reason", "words") == 0
    assert two.stdout == f"params/{NAME} version 3\n"
    assert two.kaizen("registry", "show", NAME, "--json") == 0
    assert two.json["body"]["instructions"] == "Name the single team that owns it."
    assert two.json["parents"][0].startswith(f"params/{NAME}@")
    assert two.json["reason"] == "words"
    assert two.kaizen("registry", "show", f"{NAME}@prod", "--json") == 0
    assert two.json["number"] == 1


def test_edit_begins_with_the_code_where_there_is_no_version(project: Project) -> None:
    editor(project, "assert 'Name the team.' in text\ntext=text.replace('Name', 'Tell')")
    assert project.kaizen("registry", "edit", "triage.py:Triage") == 0
    assert project.kaizen("registry", "show", NAME, "--json") == 0
    assert (project.json["number"], project.json["body"]["instructions"]) == (1, "Tell the team.")
    assert project.json["parents"] == []


@pytest.mark.parametrize(
    ("script", "code", "said"),
    [
        ("text += '\\n'", 7, "nothing was changed, so there is no new version; your text is in "),
        ("text = 'temprature = 1'", 3, "did you mean 'temperature'?; your text is in "),
        ("text = 'x'; p.write_text(text); sys.exit(3)", 7, "the editor ended with 3, so there is no new version; your"),
    ],
)
def test_edit_refuses_and_keeps_the_text(two: Project, script: str, code: int, said: str) -> None:
    editor(two, script)
    assert two.kaizen("registry", "edit", NAME) == code
    assert said in two.stderr
    assert kept_text(two)
    assert two.kaizen("registry", "list", NAME, "--json") == 0
    assert len(two.json) == 2


def test_an_editor_that_is_not_there_is_named(two: Project) -> None:
    two.editor = ["/no/such/editor"]
    assert two.kaizen("registry", "edit", NAME) == 2
    assert two.stderr == "error: the editor /no/such/editor can't be started: No such file or directory\n"


# -- running --------------------------------------------------------------------------------------


def test_run_takes_the_version_that_is_asked_for_and_its_record_says_which(two: Project) -> None:
    for words, text, shown in (
        ((), "Name the one team that owns it.", "1"),
        (("--version", "prod"), "Name the one team that owns it.", "1"),
        (("--version", "latest"), "Name the team now.", "2"),
        (("--version", "2"), "Name the team now.", "2"),
        (("--version=base",), "Name the team.", "base"),
    ):
        assert two.kaizen("run", "triage.py:Triage", "--message", "x", "--record", *words) == 0
        record = two.json["_record"]
        assert text in two.provider.requests[-1].messages[0].text
        assert two.kaizen("runs", "show", record["id"]) == 0
        assert f"  version {shown}\n" in two.stdout
    assert two.kaizen("run", "triage.py:Triage", "--message", "x", "--version", "9") == 6
    assert "has no version 9" in two.stderr


def test_rows_of_a_file_take_it_too(two: Project) -> None:
    two.write("rows.jsonl", '{"message": "a"}\n{"message": "b"}\n')
    words = ("run", "triage.py:Triage", "--input", "rows.jsonl")
    assert two.kaizen(*words, "--output", "out.jsonl", "--version", "latest") == 0
    assert two.kaizen(*words, "--output", "prod.jsonl") == 0
    asked = ["now" in request.messages[0].text for request in two.provider.requests]
    assert asked == [True, True, False, False]
    assert two.kaizen(*words, "--output", "none.jsonl", "--version", "9") == 6


def test_show_of_a_run_names_the_experiment(two: Project) -> None:
    assert two.kaizen("registry", "label", NAME, "prod", "1=0.5", "2=0.5", "--json") == 0
    experiment = two.json["id"]
    assert two.kaizen("run", "triage.py:Triage", "--message", "x", "--record") == 0
    record = two.json["_record"]
    assert record["experiment"] == experiment
    assert two.kaizen("runs", "show", record["id"]) == 0
    assert f", an arm of experiment {experiment}\n" in two.stdout
