"""What searches begin with, and what they leave in the registry."""

from __future__ import annotations

import pytest
from pydantic_core import to_json

from kaizen.core.artifact import Artifact
from kaizen.core.errors import ConfigError, NotFound
from kaizen.core.params import Params
from kaizen.core.scope import LOCAL
from kaizen.learn.optimize.board import KIND
from kaizen.learn.optimize.kept import candidates, check_enough, start_at
from kaizen.registry.params import save
from kaizen.registry.registry import Registry
from kaizen.stores.registry.memory import MemoryArchive
from tests.desk import rows

NAME = "bank.Triage"


async def test_a_search_starts_from_a_version_or_from_the_code() -> None:
    registry = Registry(MemoryArchive())
    for which in ("base", "latest", "prod"):
        assert await start_at(registry, LOCAL, NAME, which) == {}
    with pytest.raises(NotFound):
        await start_at(registry, LOCAL, NAME, "3")
    tuned = Params(instructions="Be brief.")
    await registry.put(LOCAL, Artifact("params", NAME, save(tuned)), author="import", reason="")
    assert await start_at(registry, LOCAL, NAME, "1") == {NAME: tuned}
    assert await start_at(registry, LOCAL, NAME, "latest") == {NAME: tuned}


def test_too_few_rows_are_told_so() -> None:
    check_enough(rows(2), rows(2))
    with pytest.raises(ConfigError, match="1 rows to learn from and 2 to choose by are too few"):
        check_enough(rows(1), rows(2))


async def test_each_run_has_a_front_of_its_own_in_dollars_or_in_tokens() -> None:
    registry = Registry(MemoryArchive())
    tried = [
        ("one", 0.5, 2.0, 10, False),
        ("one", 0.5, 1.0, 99, False),  # as good, and cheaper
        ("one", 0.9, 3.0, 10, False),
        ("one", 1.0, 0.1, 10, True),  # not scored on every row
        ("two", 0.2, None, 10, False),
        ("two", 0.1, 0.0, 20, False),
    ]
    for run, score, usd, tokens, partial in tried:
        body = {"run": run, "score": score, "usd": usd, "tokens": tokens, "partial": partial}
        await registry.put(LOCAL, Artifact(KIND, NAME, to_json(body)), author="optimizer:x", reason="tried")
    found = await candidates(registry, LOCAL, NAME, 10)
    assert [one["front"] for one in found[::-1]] == [False, True, True, False, True, False]
    assert [one["number"] for one in await candidates(registry, LOCAL, NAME, 2)] == [6, 5]
