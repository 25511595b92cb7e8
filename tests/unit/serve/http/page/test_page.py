"""What the page shows is asked for strictly, cut where it is long, and part of what is installed."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
from pydantic_core import from_json

from kaizen.core.errors import InvalidInput, NotFound
from kaizen.core.identity import Identity
from kaizen.core.scope import LOCAL
from kaizen.ledger.ledger import Ledger
from kaizen.serve.http.call import Call
from kaizen.serve.http.door import Door
from kaizen.serve.http.page.page import FILES, Page
from kaizen.stores.memory import MemoryStore
from kaizen.testing.store_suite import make_record
from tests.house.rules import ROOT


class Everybody:
    async def authenticate(self, credential: str, /) -> Identity:
        return Identity(LOCAL, "key:1", frozenset({"admin"}))


class Looking:
    """A page, and somebody who may look at it."""

    def __init__(self) -> None:
        self.ledger = Ledger(MemoryStore(), bytes(32))
        self.page = Page(self.ledger, Door(Everybody()))

    async def get(self, path: str, query: str = "") -> Any:
        sent: list[Any] = []

        async def send(message: Any) -> None:
            sent.append(message)

        scope = {
            "method": "GET",
            "path": path,
            "query_string": query.encode(),
            "headers": [(b"authorization", b"Bearer k")],
        }
        call = Call(scope, None, send)  # type: ignore[arg-type]  # nothing is received
        what = {"/records": self.page.records, "/runs": self.page.run, "/contents": self.page.contents}
        await {**what, "/costs": self.page.costs}.get(path, self.page.file)(call)
        head, body = sent
        assert head["status"] == 200
        data = body["body"]
        return from_json(data) if (b"content-type", b"application/json") in head["headers"] else (head, data)


@pytest.mark.parametrize("path", FILES)
async def test_a_file_of_the_page_is_guarded(path: str) -> None:
    head, data = await Looking().get(path)
    headers = dict(head["headers"])
    assert data == (ROOT / "src/kaizen/serve/http/page" / FILES[path][0]).read_bytes()
    assert headers[b"content-type"] == FILES[path][1]
    assert b"default-src 'none'" in headers[b"content-security-policy"]
    assert b"unsafe" not in headers[b"content-security-policy"]
    assert headers[b"x-content-type-options"] == b"nosniff"


@pytest.mark.parametrize(
    ("path", "query", "says"),
    [
        ("/records", "limit=0", "limit should be a number from 1 to 500"),
        ("/records", "limit=501", "limit should be"),
        ("/records", "limit=nan", "limit should be"),
        ("/records", "limit=x", "limit should be"),
        ("/records", "tenant=other", "'tenant' is no parameter here"),
        ("/records", "&".join("limit=1" for _ in range(20)), "too many"),
        ("/costs", "by=tenant", "by should be one of model, key, tier, day, task"),
        ("/costs", "seconds=-1", "seconds should be"),
        ("/runs", "run=1", "'run' is no parameter"),
    ],
)
async def test_a_wrong_question_is_told_so(path: str, query: str, says: str) -> None:
    with pytest.raises(InvalidInput, match=says):
        await Looking().get(path, query)


@pytest.mark.parametrize("path", ["/runs", "/contents"])
async def test_what_is_not_there_is_not_found(path: str) -> None:
    with pytest.raises(NotFound):
        await Looking().get(path, "id=nobody")
    with pytest.raises(NotFound):
        await Looking().get(path)


async def test_scores_are_no_calls() -> None:
    here = Looking()
    calls = [make_record(scope=LOCAL) for _ in range(3)]
    scores = [make_record(scope=LOCAL, kind="score", value=1.0) for _ in range(3)]
    await here.ledger.append(LOCAL, [*calls, *scores])
    found = await here.get("/records", "limit=2")
    assert [one["id"] for one in found["records"]] == sorted((call.id for call in calls), reverse=True)[:2]


async def test_contents_are_shown_as_they_are_or_cut() -> None:
    here = Looking()
    long, odd = b'"' + b"x" * 100_000 + b'"', b"no JSON \xff"
    payloads = [here.ledger.seal(LOCAL, data) for data in (long, odd)]
    record = make_record(scope=LOCAL, input_digest=payloads[0].digest, output_digest=payloads[1].digest)
    await here.ledger.append(LOCAL, [record], payloads)
    found = await here.get("/contents", f"id={record.id}")
    assert found["input"].endswith("… (100002 bytes)")
    assert len(found["input"]) < 66_000
    assert found["output"] == "no JSON \N{REPLACEMENT CHARACTER}"
    await here.ledger.erase(LOCAL)
    assert await here.get("/contents", f"id={record.id}") == {"input": None, "output": None}


def test_the_files_are_in_the_wheel(tmp_path: Path) -> None:
    script = "import sys; from hatchling.build import build_wheel; print(build_wheel(sys.argv[1]))"
    built = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert built.returncode == 0, built.stderr
    [wheel] = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as packed:
        held = set(packed.namelist())
    assert {f"kaizen/serve/http/page/{name}" for name, _ in FILES.values()} <= held
