"""The commands that make, show, revoke and rotate keys, on a real file."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path

import pytest

from kaizen.core.errors import Unauthenticated
from kaizen.core.identity import Identity
from kaizen.core.scope import Scope
from kaizen.govern.keys import Keys
from kaizen.serve import command_line
from kaizen.serve.doors import Doors
from kaizen.stores.govern.sqlite_keys import SqliteKeys


class Ring:
    """The command line on a file of keys."""

    def __init__(self, file: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.file, self._capsys = file, capsys
        self.out = self.err = ""

    def __call__(self, *argv: str) -> int:
        def keys() -> tuple[Keys, Scope]:
            return self.keys(), Scope("local", "dev")

        unused: object = None
        code = command_line.main(("keys", *argv), Doors(unused, unused, unused, keys=keys))
        self.out, self.err = self._capsys.readouterr()
        return code

    def keys(self) -> Keys:
        return Keys(SqliteKeys(self.file))

    def opens(self, credential: str) -> Identity | None:
        async def work() -> Identity | None:
            keys = self.keys()
            try:
                return await keys.authenticate(credential)
            except Unauthenticated:
                return None
            finally:
                await keys.close()

        return asyncio.run(work())


@pytest.fixture
def ring(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Ring:
    return Ring(tmp_path / "govern.db", capsys)


def test_create_prints_the_key_alone_on_its_last_line(ring: Ring) -> None:
    assert ring("create", "--tenant", "acme", "--requests-per-minute", "600", "--budget-usd-per-day", "5") == 0
    *_, secret = ring.out.splitlines()
    identity = ring.opens(secret)
    assert identity is not None
    assert identity.scope == Scope("acme", "dev")
    assert "600 requests/min, $5/day" in ring.err
    assert secret not in ring.err


def test_a_key_has_all_that_was_asked_for(ring: Ring) -> None:
    assert (
        ring(
            *("create", "--environment", "prod", "--name", "ci", "--user", "zoe", "--scopes", "infer, metrics"),
            *("--model", "openai/*", "--model", "mine/large", "--expires", "90d", "--tokens-per-minute", "9000"),
            *("--concurrent", "4", "--budget-usd-per-month", "12.5", "--no-exact", "--json"),
        )
        == 0
    )
    made = json.loads(ring.out)
    identity = ring.opens(made["key"])
    assert identity == Identity(
        Scope("local", "prod"),
        f"key:{made['id']}",
        frozenset({"infer", "metrics"}),
        ("openai/*", "mine/large"),
        exact=False,
    )
    assert (made["user"], made["tokens_per_minute"], made["concurrent"]) == ("zoe", 9000, 4)
    assert (made["budget_usd_per_day"], made["budget_usd_per_month"]) == (None, 12.5)
    assert made["expires_at"] == pytest.approx(time.time() + 90 * 86_400, abs=60)
    assert ring("list", "--json") == 0
    assert made["key"] not in ring.out
    (listed,) = json.loads(ring.out)
    assert listed.pop("last_used_at") is not None
    assert listed == {name: value for name, value in made.items() if name not in ("key", "last_used_at")}


def test_the_list_says_how_each_key_stands(ring: Ring) -> None:
    assert ring("list") == 0
    assert (ring.out, ring.err) == ("", "no keys; kaizen keys create makes one\n")
    ring("create", "--tenant", "acme", "--name", "ci", "--requests-per-minute", "60", "--json")
    first = json.loads(ring.out)
    ring("create", "--tenant", "other", "--expires", "2099-01-01", "--model", "a/b")
    ring("revoke", first["id"])
    assert ring("list") == 0
    head, one, two = ring.out.splitlines()
    assert head.split()[:3] == ["id", "name", "tenant"]
    assert one.split()[:8] == [first["id"], "ci", "acme", "dev", "-", "infer", "all", "60"]
    assert "never" in one
    assert "revoked 20" in one
    assert "a/b" in two
    assert "expires 2099-01-01" in two
    assert ring("list", "--tenant", "other") == 0
    assert first["id"] not in ring.out
    ring("create", "--tenant", "third")
    ring.opens(ring.out.strip())
    ring("list", "--tenant", "third")
    assert ring.out.splitlines()[1].endswith("good")
    assert "never" not in ring.out


def test_a_revoked_key_opens_nothing(ring: Ring) -> None:
    ring("create", "--tenant", "acme", "--json")
    made = json.loads(ring.out)
    assert ring("revoke", made["id"], "--tenant", "other") == 6
    assert ring.opens(made["key"]) is not None
    assert ring("revoke", made["id"]) == 0
    assert ring.out == f"key {made['id']} of acme/dev opens nothing any more\n"
    assert ring.opens(made["key"]) is None
    assert ring("revoke", made["id"], "--json") == 0
    assert json.loads(ring.out)["revoked_at"] is not None
    assert ring("rotate", made["id"]) == 7
    assert ring("revoke", "none") == 6


def test_rotating_prints_another_key(ring: Ring) -> None:
    ring("create")
    old = ring.out.strip()
    assert ring("rotate", old.split("_")[1], "--overlap", "2h") == 0
    new = ring.out.strip()
    assert ring.opens(old) == ring.opens(new) is not None
    assert ring("rotate", old.split("_")[1], "--json") == 0
    newest = json.loads(ring.out)["key"]
    assert [ring.opens(key) is not None for key in (old, new, newest)] == [False, False, True]


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (("create", "--tenant", "a/b"), "'a/b' should be letters"),
        (("create", "--scopes", "root"), "'root' should be some of admin, infer, metrics"),
        (("create", "--expires", "soon"), "'soon' is no time"),
        (("create", "--expires", "2001-01-01"), "2001-01-01 is past"),
        (("create", "--budget-usd-per-day", "-1"), "should be dollars"),
        (("create", "--budget-usd-per-day", "much"), "should be dollars"),
        (("create", "--budget-usd-per-day", "nan"), "should be dollars"),
        (("create", "--requests-per-minute", "0"), "should be a whole number above 0"),
        (("rotate", "x", "--overlap", "2"), "'2' is no span of time"),
        (("create", "--request-per-minute", "6"), "did you mean --requests-per-minute?"),
    ],
)
def test_a_wrong_word_is_named(ring: Ring, argv: tuple[str, ...], says: str) -> None:
    assert ring(*argv) == 2
    assert says in ring.err
    assert not ring.file.exists()


def test_a_command_line_without_that_door_says_so() -> None:
    unused: object = None
    doors = Doors(unused, unused, unused)
    with pytest.raises(NotImplementedError):
        doors.keys()
