"""A step's answer is kept by contract, params and inputs, for its tenant alone, until what it depends on changes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from kaizen import Context, Params, cached, program, signature
from kaizen.core.errors import StoreError
from kaizen.core.protocols import CacheSize
from kaizen.core.request import Reply, Usage
from kaizen.core.scope import Scope
from tests.unit.programs.house import House, Open
from tests.unit.programs.test_signature import Triage

Short = signature("text -> summary", name="Short")
GOOD = '{"team": "cards", "urgency": 2}'


class DictCache:
    """A Cache in a dict."""

    def __init__(self) -> None:
        self.kept: dict[tuple[Scope, str], tuple[bytes, frozenset[str], float | None]] = {}
        self.broken = False
        self.gone: list[frozenset[str] | None] = []

    async def epoch(self, scope: Scope, /) -> int:
        return len(self.gone)

    async def get(self, scope: Scope, key: str, /) -> bytes | None:
        if self.broken:
            raise StoreError("the disk is gone")
        return self.kept.get((scope, key), (None,))[0]

    async def put(
        self,
        scope: Scope,
        key: str,
        value: bytes,
        /,
        *,
        ttl: float | None = None,
        tags: Sequence[str] = (),
        since: int | None = None,
    ) -> None:
        if self.broken:
            raise StoreError("the disk is gone")
        if since is not None and any(gone is None or gone & set(tags) for gone in self.gone[since:]):
            return
        self.kept[scope, key] = value, frozenset(tags), ttl

    async def invalidate(self, scope: Scope, tags: Sequence[str] | None = None, /) -> int:
        self.gone.append(None if tags is None else frozenset(tags))
        gone = [at for at, (_, has, _) in self.kept.items() if at[0] == scope and (tags is None or has & set(tags))]
        for at in gone:
            del self.kept[at]
        return len(gone)

    async def size(self, scope: Scope, /) -> CacheSize:
        return CacheSize(len(self.kept), 0)

    async def close(self) -> None: ...


def paid(text: str) -> Reply:
    return Reply(model="test/served", text=text, usage=Usage(tokens_in=10, tokens_out=2), cost_usd=0.25)


async def last(here: House) -> Any:
    return (await here.records(kind="program", root_only=True))[-1]


async def test_the_same_call_is_made_once_and_the_record_says_what_it_saved(house: Open) -> None:
    here = house([paid(GOOD)], cache=DictCache())
    step = cached(Triage)
    first, second = await step(message="x"), await step(message="x")
    assert (here.calls, first, isinstance(second, Triage)) == (1, second, True)
    assert (first.record.cache_tier, first.record.cost_usd, first.record.model_calls) == ("model", 0.25, 1)
    kept = second.record
    assert (kept.cache_tier, kept.cost_usd, kept.saved_usd, kept.model_calls) == ("step", 0.0, 0.25, 0)
    assert (kept.model, kept.ref) == ("test/served", f"{Triage.spec.name}:cached")


async def test_a_project_keeps_its_steps_on_its_disk(house: Open) -> None:
    here = house([GOOD])
    first = await cached(Triage)(message="x")
    again = house([])  # as another process would
    assert await cached(Triage)(message="x") == first
    assert (here.calls, again.calls) == (1, 0)
    assert (await last(again)).cache_tier == "step"


async def test_other_inputs_params_or_versions_are_other_steps(house: Open) -> None:
    here = house([GOOD] * 6, cache=DictCache())
    await cached(Triage)(message="x")
    await cached(Triage)(message="y")
    await cached(Triage.using(temperature=0.5))(message="x")
    await cached(Triage, version="2")(message="x")
    await here.app.start(cached(Triage), {"message": "x"}, overrides={Triage.spec.name: Params(instructions="Other.")})
    await here.app.start(cached(Triage), {"message": "x"}, overrides={"below": Params(instructions="Other.")})
    assert here.calls == 6
    await cached(Triage.using(temperature=0.5))(message="x")
    assert here.calls == 6


async def test_another_tenant_never_gets_it(house: Open) -> None:
    cache = DictCache()
    here = house([GOOD, GOOD], cache=cache)
    await cached(Triage)(message="x")
    here.app.scope = Scope("other", "dev")
    await cached(Triage)(message="x")
    assert here.calls == 2
    assert {scope.tenant for scope, _ in cache.kept} == {"local", "other"}


@program
async def read(ctx: Context, document: str) -> str:
    """Reads a document."""
    ctx.depends_on(f"document:{document}")
    return (await Short(text=document)).summary


async def test_what_changed_while_it_was_made_is_not_kept(house: Open) -> None:
    cache = DictCache()
    here = house(['{"summary": "old"}', '{"summary": "new"}'], cache=cache)

    @program
    async def slow(ctx: Context, document: str) -> str:
        made = await read(document)
        await cache.invalidate(ctx.scope, ["document:one"])
        return made

    assert await cached(slow)("one") == "old"
    assert cache.kept == {}
    assert await cached(slow)("one") == "new"
    assert here.calls == 2


@program
async def report(documents: list[str]) -> str:
    """Reads several, each a step of its own."""
    return " ".join([await cached(read)(document) for document in documents])


async def test_what_was_read_below_counts_above_also_when_it_was_kept(house: Open) -> None:
    cache = DictCache()
    here = house(['{"summary": "a"}', '{"summary": "b"}', '{"summary": "c"}'], cache=cache)
    assert await cached(read)("one") == "a"
    whole = cached(report, ttl=60)
    assert await whole(["one", "two"]) == "a b"
    assert here.calls == 2  # the first document's step was kept
    assert await whole(["one", "two"]) == "a b"
    assert here.calls == 2
    assert await cache.invalidate(here.app.scope, ["document:one"]) == 2  # the step and what was made of it
    assert await whole(["one", "two"]) == "c b"
    assert here.calls == 3
    ttls = {ttl for _, tags, ttl in cache.kept.values() if f"program:{report.spec.name}" in tags}
    assert ttls == {60}


async def test_a_changed_function_is_another_step(house: Open) -> None:
    house([], cache=DictCache())

    def made(word: str) -> Any:
        names: dict[str, Any] = {"program": program}
        exec(f"@program\nasync def step(x: str) -> str:\n    return x + {word!r}", names)  # noqa: S102 - a source twice
        return names["step"]

    assert await cached(made("1"))("x") == "x1"
    assert await cached(made("2"))("x") == "x2"
    assert made("1").version == made("1").version != made("2").version


async def test_a_broken_cache_or_entry_costs_a_call_and_nothing_else(house: Open) -> None:
    cache = DictCache()
    here = house([GOOD] * 3, cache=cache)
    cache.broken = True
    await cached(Triage)(message="x")
    cache.broken = False
    await cached(Triage)(message="x")
    ((key, (_, tags, ttl)),) = cache.kept.items()
    cache.kept[key] = b'{"outputs": {"team": "nobody"}}', tags, ttl
    await cached(Triage)(message="x")
    assert here.calls == 3
