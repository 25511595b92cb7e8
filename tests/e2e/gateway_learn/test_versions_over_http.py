"""Prompts, programs and the registry over HTTP, against real sockets: what is asked of the model, and what is kept."""

from __future__ import annotations

from typing import Any

import pytest

from kaizen.testing.fault_server import FaultServer
from tests.desk import Desk
from tests.e2e.gateway.conftest import Running
from tests.e2e.gateway_learn.conftest import ADMIN, NAME, ask

RULES = "Name it. refund means red. meter means green."


def put(here: Running, key: str, instructions: str = RULES, **more: Any) -> Any:
    made = ask(here, "POST", "registry", key, {"name": "Desk", "params": {"instructions": instructions}, **more})
    assert made.status == 201, made.body
    return made.json


def release(here: Running, key: str, which: str, label: str = "prod") -> Any:
    moved = ask(here, "POST", "registry/label", key, {"name": NAME, "label": label, "arms": [{"version": which}]})
    assert moved.status == 201, moved.body
    return moved.json


def team(here: Running, key: str, topic: str = "refund", query: str = "") -> Any:
    answer = ask(here, "POST", f"programs/{NAME}{query}", key, {"message": f"my {topic}"})
    assert answer.status == 200, answer.body
    return answer.json


def test_a_release_is_what_the_next_call_runs_and_a_rollback_takes_it_back(here: Running) -> None:
    admin, caller = here.key(scopes=ADMIN), here.key()
    assert team(here, caller)["outputs"] == {"team": "none"}
    made = put(here, admin, reason="clearer")
    assert (made["number"], made["known"], made["name"]) == (1, False, NAME)
    assert made["author"].startswith("key:")
    assert team(here, caller)["outputs"] == {"team": "none"}  # a version by itself runs nowhere
    assert release(here, admin, "1")["arms"] == [{"version": made["version"], "number": 1, "weight": 1.0}]
    after = team(here, caller)
    assert after["outputs"] == {"team": "red"}
    assert after["version"] == made["version"]
    assert team(here, caller, query="?version=base")["outputs"] == {"team": "none"}
    back = ask(here, "POST", "registry/rollback", admin, {"name": "Desk", "reason": "too terse"})
    assert back.status == 201
    assert back.json["arms"][0]["version"] == "base"
    assert team(here, caller)["outputs"] == {"team": "none"}
    assert team(here, caller, query="?version=1")["outputs"] == {"team": "red"}
    moves = ask(here, "GET", "registry/history?name=Desk", admin).json["moves"]
    assert [(one["label"], one["arms"][0]["number"], one["reason"]) for one in moves] == [
        ("prod", 1, ""),
        ("prod", 0, "too terse"),
    ]
    refs = [record for record in here.records() if record.ref == NAME]
    assert [record.version for record in refs].count(made["version"]) == 2
    assert {record.principal for record in refs} == {refs[0].principal}


def test_prompts_are_read_by_other_applications(here: Running, upstream: FaultServer) -> None:
    admin, caller = here.key(scopes=ADMIN), here.key()
    base = ask(here, "GET", f"prompts/{NAME}?label=prod", caller)
    assert base.status == 200
    assert (base.json["version"], base.json["instructions"]) == ("base", "Name the team.")
    made = put(here, admin)
    release(here, admin, "latest")
    found = ask(here, "GET", "prompts/Desk?label=prod", caller)
    said = found.json
    assert (said["version"], said["number"], said["ref"]) == (made["version"], 1, f"params/{NAME}@{made['version']}")
    assert (said["instructions"], said["demos"], said["label"]) == (RULES, [], "prod")
    assert said["decoding"]["temperature"] is None
    assert ask(here, "GET", f"prompts/{NAME}?version=base", caller).json["instructions"] == "Name the team."
    again = ask(here, "GET", f"prompts/{NAME}", caller, headers={"if-none-match": found.headers["etag"]})
    assert (again.status, again.body) == (304, b"")
    assert found.headers["etag"] != base.headers["etag"]
    assert ask(here, "GET", f"prompts/{NAME}?label=prod&version=1", caller).status == 422
    assert ask(here, "GET", f"prompts/{NAME}?version=7", caller).status == 404
    assert ask(here, "GET", "prompts/nobody.Nothing", caller).status == 404
    assert ask(here, "GET", f"prompts/{NAME}", None).status == 401
    assert not upstream.calls  # none of it asked a model


def test_versions_differ_word_by_word(here: Running) -> None:
    admin = here.key(scopes=ADMIN)
    put(here, admin)
    text = f'program = "{NAME}"\ninstructions = "Name it. refund means blue. meter means green."\n'
    made = ask(here, "POST", "registry", admin, {"text": text})
    assert made.json["number"] == 2
    assert ask(here, "POST", "registry", admin, {"text": text}).json["known"] is True
    diff = ask(here, "GET", "registry/diff?name=Desk&old=1&new=2", admin).json
    assert (diff["old"], diff["new"]) == ("1", "2")
    assert ["-", " red"] in diff["changes"]["instructions"]["words"]
    assert ["+", " blue"] in diff["changes"]["instructions"]["words"]
    against = ask(here, "GET", "registry/diff?name=Desk&old=base&new=2", admin).json
    assert ["-", " the team"] in against["changes"]["instructions"]["words"]
    names = ask(here, "GET", "registry?kind=params", admin).json["names"]
    assert [(one["name"], one["versions"]) for one in names] == [(NAME, 2)]
    versions = ask(here, "GET", f"registry/params/{NAME}", admin).json["versions"]
    assert [one["number"] for one in versions] == [1, 2]
    whole = ask(here, "GET", f"registry/params/{NAME}/2", admin).json
    assert whole["body"]["contract"] == Desk.spec.contract
    assert whole["scores"] == []


def test_datasets_are_put_and_looked_at_under_names_with_slashes(here: Running) -> None:
    admin = here.key(scopes=ADMIN)
    rows = [{"inputs": {"message": "my refund"}, "outputs": {"team": "red"}}]
    new = {"kind": "dataset", "name": "desk/test", "body": {"rows": rows, "about": {"part": "test"}}}
    assert ask(here, "POST", "registry", admin, new).status == 201
    assert ask(here, "GET", "registry/dataset/desk/test", admin).json["versions"][0]["number"] == 1
    assert ask(here, "GET", "registry/dataset/desk/test/latest", admin).json["body"]["rows"] == rows
    assert ask(here, "POST", "registry", admin, {**new, "body": {"rows": 3}}).status == 422


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({}, 400),
        ({"params": {}, "text": ""}, 400),
        ({"params": {"instructions": "x"}}, 422),  # nobody says whose
        ({"name": NAME, "params": {"mood": "good"}}, 422),
        ({"name": NAME, "params": {"temperature": "warm"}}, 422),
        ({"name": NAME, "params": {"instructions": "x", "contract": "other"}}, 409),
        ({"name": NAME, "text": "not = [toml"}, 422),
        ({"kind": "loop", "name": NAME, "body": {"target": "x.py:X"}}, 403),
        ({"kind": "experiment", "name": NAME, "body": {}}, 403),
        ({"kind": "evaluation", "name": NAME, "body": {}}, 403),
        ({"kind": "policy", "name": "a@b", "body": {}}, 422),
        ({"kind": "policy", "name": "a\0b", "body": {}}, 400),
        ({"name": NAME, "params": {"instructions": "x"}, "reason": "x" * 3000}, 400),
        ({"name": NAME, "params": {}, "tenant": "other"}, 400),
    ],
)
def test_what_can_t_be_a_version_is_refused(here: Running, body: Any, status: int) -> None:
    answer = ask(here, "POST", "registry", here.key(scopes=ADMIN), body)
    assert answer.status == status, answer.body
    assert answer.json["error"]["message"]


def test_labels_move_as_the_caller_saw_them(here: Running) -> None:
    admin = here.key(scopes=ADMIN)
    put(here, admin)
    first = release(here, admin, "1")
    new = {"name": NAME, "arms": [{"version": "base"}], "since": ""}
    assert ask(here, "POST", "registry/label", admin, new).status == 409
    assert ask(here, "POST", "registry/label", admin, {**new, "since": first["id"]}).status == 201
    halves = [{"version": "1", "weight": 0.5}, {"version": "base", "weight": 0.4}]
    assert ask(here, "POST", "registry/label", admin, {"name": NAME, "arms": halves}).status == 422
    assert ask(here, "POST", "registry/label", admin, {"name": NAME, "arms": [{"version": "9"}]}).status == 404
    assert ask(here, "POST", "registry/rollback", admin, {"name": NAME, "label": "canary"}).status == 404
    assert ask(here, "POST", "registry/label", admin, {"kind": "loop", "name": NAME, "arms": halves}).status == 403


def test_an_arm_sticks_to_the_subject_that_the_call_names(here: Running) -> None:
    admin, caller = here.key(scopes=ADMIN), here.key()
    put(here, admin)
    halves = [{"version": "1", "weight": 0.5}, {"version": "base", "weight": 0.5}]
    assert ask(here, "POST", "registry/label", admin, {"name": NAME, "arms": halves}).status == 201
    seen = {
        subject: [team(here, caller, query=f"?subject={subject}") for _ in range(2)]
        for subject in "abcdefghijklmnopqrst"
    }
    assert all(first["outputs"] == second["outputs"] for first, second in seen.values())
    assert {first["outputs"]["team"] for first, _ in seen.values()} == {"red", "none"}
    assert {first["experiment"] is not None for first, _ in seen.values()} == {True}
    for subject, (first, _) in seen.items():
        assert ask(here, "GET", f"prompts/{NAME}?subject={subject}", caller).json["version"] == first["version"]


def test_programs_are_listed_described_and_checked(here: Running, upstream: FaultServer) -> None:
    caller = here.key()
    [listed] = ask(here, "GET", "programs", caller).json["programs"]
    assert listed["name"] == NAME
    assert list(listed["inputs"]["properties"]) == ["message"]
    assert listed["outputs"]["properties"]["team"]["enum"] == ["red", "green", "blue", "none"]
    for body, status in (({}, 422), ({"message": 3}, 422), ({"message": "x", "mood": 1}, 422), ([1], 422), (b"{", 422)):
        assert ask(here, "POST", f"programs/{NAME}", caller, body).status == status
    message = {"message": "x"}
    assert ask(here, "POST", "programs/Nobody", caller, message).status == 404
    assert ask(here, "POST", f"programs/{NAME}?version=4", caller, message).status == 404
    assert ask(here, "POST", f"programs/{NAME}?tenant=x", caller, message).status == 422
    assert ask(here, "POST", f"programs/{NAME}?subject={'x' * 300}", caller, message).status == 422
    assert ask(here, "POST", f"programs/{NAME}?" + "&".join("a=1" for _ in range(20)), caller, message).status == 422
    assert ask(here, "POST", f"programs/{NAME}", None, message).status == 401
    assert ask(here, "POST", f"programs/{NAME}", here.key(scopes=frozenset({"metrics"})), message).status == 403
    assert not upstream.calls
    assert team(here, caller)["cost_usd"] == pytest.approx(20 * 10e-6 + 7 * 30e-6)


def test_a_keys_limits_hold_for_the_programs_it_runs(here: Running, upstream: FaultServer) -> None:
    narrow = here.key(limits={"requests_per_minute": 1})
    answers = [ask(here, "POST", f"programs/{NAME}", narrow, {"message": f"{n}"}).status for n in range(2)]
    assert answers == [200, 429]
    other = here.key(models=["claude/*"])
    assert ask(here, "POST", f"programs/{NAME}", other, {"message": "x"}).status == 403
    assert len(upstream.calls) == 1


def test_the_first_version_of_a_program_that_is_not_served_is_made_as_well(here: Running) -> None:
    admin = here.key(scopes=ADMIN)
    new: dict[str, Any] = {
        "name": "elsewhere.Program",
        "params": {"instructions": "Be brief.", "demos": [], "temperature": 0.5},
    }
    assert ask(here, "POST", "registry", admin, new).json["number"] == 1
    found = ask(here, "GET", "prompts/Program?version=latest", here.key()).json
    assert (found["name"], found["instructions"], found["decoding"]["temperature"]) == (
        "elsewhere.Program",
        "Be brief.",
        0.5,
    )
    against_base = ask(here, "GET", "registry/diff?name=Program&old=base", admin).json["changes"]
    assert against_base["temperature"] == {"old": None, "new": 0.5}


def test_a_key_that_may_only_administer_sees_the_programs_and_runs_none(here: Running) -> None:
    key = here.key(scopes=frozenset({"admin"}))
    assert ask(here, "GET", "programs", key).json["programs"]
    assert ask(here, "GET", "queue", key).json == {"records": [], "more": False, "after": None}
    assert ask(here, "POST", f"programs/{NAME}", key, {"message": "x"}).status == 403
    assert ask(here, "GET", "programs", here.key(scopes=frozenset({"metrics"}))).status == 403


def test_demos_that_come_and_go_are_told_apart(here: Running) -> None:
    admin = here.key(scopes=ADMIN)
    demos = [
        {"inputs": {"message": f"my {topic}"}, "outputs": {"team": "red"}} for topic in ("refund", "crash", "meter")
    ]
    for shown in (demos[:2], [demos[2], demos[0]]):
        assert ask(here, "POST", "registry", admin, {"name": "Desk", "params": {"demos": shown}}).status == 201
    changed = ask(here, "GET", "registry/diff?name=Desk&old=1&new=2", admin).json["changes"]["demos"]
    assert (changed["removed"], changed["added"], changed["moved"]) == ([demos[1]], [demos[2]], False)
    prompt = ask(here, "GET", "prompts/Desk?version=2", admin).json
    assert prompt["demos"] == [demos[2], demos[0]]
    for order in ("old=base&new=2", "old=2&new=base"):  # what a version does not state is as the code says
        assert list(ask(here, "GET", f"registry/diff?name=Desk&{order}", admin).json["changes"]) == ["demos"]


def test_nothing_crosses_to_another_tenant(here: Running) -> None:
    admin, other = here.key(scopes=ADMIN), here.key("other", scopes=ADMIN)
    made = put(here, admin)
    release(here, admin, "1")
    for path in (f"registry/params/{NAME}/1", f"registry/params/{NAME}/{made['version']}", f"prompts/{NAME}?version=1"):
        assert ask(here, "GET", path, admin).status == 200
        assert ask(here, "GET", path, other).status == 404
    assert ask(here, "GET", "registry", other).json == {"names": []}
    assert ask(here, "GET", f"prompts/{NAME}", other).json["version"] == "base"
    assert team(here, other)["outputs"] == {"team": "none"}
    assert ask(here, "POST", "registry/rollback", other, {"name": NAME}).status == 404
    assert put(here, other, "Theirs.")["number"] == 1
    assert team(here, admin)["outputs"] == {"team": "red"}
    plain = here.key()
    for method, path in (("GET", "registry"), ("POST", "registry"), ("POST", "registry/label"), ("GET", "jobs")):
        assert ask(here, method, path, plain, {"name": NAME, "params": {}, "arms": [{"version": "1"}]}).status == 403
        assert ask(here, method, path, None, {"name": NAME, "params": {}, "arms": [{"version": "1"}]}).status == 401


def test_bodies_have_a_limit_and_paths_a_table_of_errors(gateway: Any) -> None:
    here = gateway(server={"max_body_bytes": 20_000})
    admin = here.key(scopes=ADMIN)
    long = {"name": NAME, "params": {"instructions": "x" * 30_000}}
    refused = ask(here, "POST", "registry", admin, long)
    assert (refused.status, refused.json["error"]["code"]) == (413, "too_large")
    assert ask(here, "DELETE", "registry", admin).json["error"]["code"] == "method_not_allowed"
    assert ask(here, "GET", "jobs/a/b", admin).json["error"]["code"] == "not_found"
    assert ask(here, "GET", "programs", admin).json == {"programs": []}
    nothing = ask(here, "POST", "programs/tests.desk.Desk", admin, {})
    assert nothing.status == 404
    assert "kaizen serve --program" in nothing.json["error"]["message"]
