"""``kaizen cache``: what is kept, what it saved, and how it goes."""

from __future__ import annotations

import asyncio

import pytest

from kaizen.app import App
from kaizen.core.ids import new_id
from kaizen.core.record import Record
from kaizen.core.request import Stage, Tier
from kaizen.core.scope import LOCAL, Scope
from tests.unit.serve.conftest import Project

ACME = Scope("acme", "prod")


def call(scope: Scope, tier: Tier, cost: float | None, saved: float | None = 0.0, at: float = 2e9) -> Record:
    stages = () if tier == "model" else (Stage(tier, saved_usd=saved), Stage("route", saved_usd=9.0))
    return Record(
        id=new_id(),
        kind="model",
        ref="mine/large",
        run_id="r",
        scope=scope,
        started_at=at,
        tokens_in=1000,
        tokens_out=10,
        cost_usd=cost,
        cache_tier=tier,
        stages=stages,
    )


@pytest.fixture
def kept(project: Project) -> Project:
    """A project with three answers kept, two tenants', and some calls on record."""

    async def work(app: App) -> None:
        await app.cache.put(LOCAL, "a", b"12345", tags=["document:7f", "x"])
        await app.cache.put(LOCAL, "b", b"12345", tags=["x"])
        await app.cache.put(ACME, "a", b"12345", tags=["x"])
        ours = [call(LOCAL, "model", 0.25), call(LOCAL, "exact", 0.0, 0.25), call(LOCAL, "exact", 0.0, 0.5)]
        ours += [call(LOCAL, "semantic", 0.0, None), call(LOCAL, "model", None, at=1.0)]
        await app.ledger.append(LOCAL, ours)
        await app.ledger.append(ACME, [call(ACME, "model", 0.25)])
        await app.close()

    asyncio.run(work(project.app()))
    return project


def test_stats_show_what_is_kept_and_what_each_tier_answered(kept: Project) -> None:
    assert kept.kaizen("cache", "stats") == 0
    lines = [line.split() for line in kept.stdout.splitlines()]
    assert lines[0] == ["2", "entries,", "12", "bytes"]
    assert lines[2] == ["answered", "by", "calls", "share", "tokens", "in", "tokens", "out", "cost", "saved"]
    assert lines[3][:6] == ["model", "2", "40.0%", "2,000", "20", "$0.25"]
    assert lines[3][-1] == "-"
    assert lines[4] == ["exact", "2", "40.0%", "2,000", "20", "$0", "$0.75"]
    assert lines[5][:2] == ["semantic", "1"]
    assert "0.75" not in " ".join(lines[5])


def test_stats_for_a_script(kept: Project) -> None:
    assert kept.kaizen("cache", "stats", "--json", "--since", "2001-01-01") == 0
    assert (kept.json["entries"], kept.json["bytes"]) == (2, 12)
    tiers = kept.json["tiers"]
    assert list(tiers) == ["model", "exact", "semantic"]
    assert (tiers["model"]["calls"], tiers["model"]["unpriced"]) == (1, 0)
    assert (tiers["exact"]["calls"], tiers["exact"]["saved_usd"], tiers["exact"]["cost_usd"]) == (2, 0.75, 0.0)
    assert (tiers["semantic"]["saved_usd"], tiers["semantic"]["unknown"]) == (0.0, 1)
    assert kept.kaizen("cache", "stats", "--json", "--tenant", "acme", "--environment", "prod") == 0
    assert (kept.json["entries"], list(kept.json["tiers"])) == (1, ["model"])
    assert kept.kaizen("cache", "stats", "--tenant", "nobody") == 0
    assert kept.stdout == "0 entries, 0 bytes\n"


def test_invalidate_drops_by_tag_or_all_of_one_tenant(kept: Project) -> None:
    assert kept.kaizen("cache", "invalidate", "document:7f", "document:8") == 0
    assert kept.stdout == "dropped 1\n"
    assert kept.kaizen("cache", "invalidate", "--all", "--json") == 0
    assert kept.json == {"dropped": 1}
    assert kept.kaizen("cache", "invalidate", "x", "--tenant", "acme", "--environment", "prod", "--json") == 0
    assert kept.json == {"dropped": 1}


@pytest.mark.parametrize("argv", [(), ("x", "--all")])
def test_invalidate_wants_tags_or_all(kept: Project, argv: tuple[str, ...]) -> None:
    assert kept.kaizen("cache", "invalidate", *argv) == 2
    assert "name the tags to invalidate, or --all" in kept.stderr
    assert kept.kaizen("cache", "stats") == 0
    assert kept.stdout.startswith("2 entries")
