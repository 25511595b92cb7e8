"""Who is asked instead, and who is not."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator
from dataclasses import replace

import pytest

from kaizen.core.errors import (
    AuthFailed,
    ContentFiltered,
    ContextTooLong,
    InvalidInput,
    KaizenError,
    RateLimited,
    Timeout,
    Unavailable,
)
from kaizen.core.request import Chunk, Options, Reply, Request
from kaizen.inference.failover.chain import Failover, Fallbacks
from tests.unit.inference.calls import HELLO, REPLY, Plain, read_into

A, B, C = HELLO.model, "other/large", "third/large"


class Models:
    """A provider of several models: what each does, and who was asked."""

    def __init__(self, **acts: KaizenError | str) -> None:
        self.acts = {A: acts.get("a", "ok"), B: acts.get("b", "ok"), C: acts.get("c", "ok")}
        self.asked: list[str] = []

    async def complete(self, request: Request, /) -> Reply:
        self.asked.append(request.model)
        act = self.acts[request.model]
        if isinstance(act, KaizenError):
            raise act
        return replace(REPLY, model=request.model)

    async def stream(self, request: Request, /) -> AsyncGenerator[Chunk]:
        reply = await self.complete(request)
        yield Chunk("hi")
        if self.acts[request.model] == "cut":
            raise Unavailable("cut")
        yield Chunk(reply=reply)


def chain(models: Models, **contexts: int) -> Failover:
    known = {ref: contexts[name] for name, ref in (("a", A), ("b", B), ("c", C)) if name in contexts}
    return Failover(models, Fallbacks({A: (B, C)}, known))


@pytest.mark.parametrize("error", [Unavailable("x"), Timeout("x"), RateLimited("x")], ids=lambda one: one.code)
async def test_the_next_model_is_asked(error: KaizenError) -> None:
    models = Models(a=error)
    reply = await chain(models).complete(HELLO)
    assert (reply.model, models.asked) == (B, [A, B])
    assert reply.stages[0].note == {"asked": [A, B], "why": {A: error.code}}


@pytest.mark.parametrize(
    "error",
    [AuthFailed("x"), ContentFiltered("x"), InvalidInput("x"), ContextTooLong("x"), Timeout("x", retryable=False)],
    ids=lambda one: f"{one.code} {one.retryable}",
)
async def test_no_other_would_do_better(error: KaizenError) -> None:
    models = Models(a=error)
    with pytest.raises(type(error)):
        await chain(models).complete(HELLO)
    assert models.asked == [A]


async def test_whatever_is_wrong_with_a_fallback_the_next_is_asked() -> None:
    models = Models(a=Unavailable("x"), b=AuthFailed("no key"))
    reply = await chain(models).complete(HELLO)
    assert (reply.model, reply.attempts) == (C, 3)
    assert reply.stages[0].note["why"] == {A: "unavailable", B: "auth_failed"}


async def test_the_first_error_is_raised_with_all_that_was_tried() -> None:
    models = Models(a=RateLimited("first"), b=Unavailable("x"), c=InvalidInput("x"))
    with pytest.raises(RateLimited, match="first") as caught:
        await chain(models).complete(HELLO)
    asked = {A: "rate_limited", B: "unavailable", C: "invalid_input"}
    assert (caught.value.detail["asked"], caught.value.detail["attempts"]) == (asked, 2)


@pytest.mark.parametrize(
    ("contexts", "answered"),
    [({}, None), ({"b": 8}, B), ({"a": 8, "b": 8, "c": 9}, C), ({"a": 8, "b": 4}, None), ({"a": 8, "b": 9}, B)],
)
async def test_too_long_goes_only_to_what_is_known_to_be_longer(contexts: dict[str, int], answered: str | None) -> None:
    models = Models(a=ContextTooLong("x"))
    if answered is None:
        with pytest.raises(ContextTooLong):
            await chain(models, **contexts).complete(HELLO)
    else:
        assert (await chain(models, **contexts).complete(HELLO)).model == answered
    assert models.asked == [A, *([answered] if answered else [])]


async def test_too_long_for_the_longer_one_as_well() -> None:
    models = Models(a=ContextTooLong("x"), b=ContextTooLong("x"))
    with pytest.raises(ContextTooLong):
        await chain(models, a=1, b=3, c=2).complete(HELLO)
    assert models.asked == [A, B]


async def test_a_passed_deadline_asks_nobody_else() -> None:
    late = replace(HELLO, deadline=time.monotonic() - 1)
    for acts, asked in (({"a": Unavailable("x")}, [A]),):
        models = Models(**acts)  # type: ignore[arg-type] - errors
        with pytest.raises(Unavailable):
            await chain(models).complete(late)
        assert models.asked == asked


def test_chains_by_model_and_for_all() -> None:
    fallbacks = Fallbacks({A: (B,), "*": (C, B)}, patience=2.0)
    assert fallbacks.after(HELLO) == (B,)
    assert fallbacks.after(replace(HELLO, model=B)) == (C,)  # not itself
    assert fallbacks.candidates(HELLO) == (A, B)
    assert (fallbacks.wait_for(HELLO), Fallbacks().wait_for(HELLO)) == (2.0, None)
    assert fallbacks.after(replace(HELLO, options=Options(models=("third/*",)))) == ()
    assert fallbacks.after(replace(HELLO, options=Options(routing="explicit"))) == ()
    assert fallbacks.after(replace(HELLO, options=Options(routing="explicit", fallback=True))) == (B,)


async def test_without_fallbacks_it_only_passes_on() -> None:
    models = Models(a=Unavailable("x"))
    layer = Failover(models, Fallbacks())
    with pytest.raises(Unavailable):
        await layer.complete(HELLO)
    with pytest.raises(Unavailable):
        await read_into([], layer.stream(HELLO))
    assert models.asked == [A, A]


async def test_a_stream_falls_over_until_it_began_and_never_after() -> None:
    models = Models(a=Unavailable("x"))
    seen: list[str] = []
    await read_into(seen, chain(models).stream(HELLO))
    assert (seen, models.asked) == (["hi", ""], [A, B])
    cut, seen = Models(a="cut"), []
    with pytest.raises(Unavailable, match="cut"):
        await read_into(seen, chain(cut).stream(HELLO))
    assert (seen, cut.asked) == (["hi"], [A])
    plain: list[str] = []
    await read_into(plain, Failover(Plain(), Fallbacks({A: (B,)})).stream(HELLO))
    assert plain == ["hi", ""]


@pytest.mark.parametrize(("usd", "asked"), [(None, [A]), (2.0, [A]), (0.5, [A, B])])
async def test_a_fallback_keeps_the_callers_cost_budget(usd: float | None, asked: list[str]) -> None:
    models = Models(a=Unavailable("x"))
    layer = Failover(models, Fallbacks({A: (B,)}), lambda _: usd)
    request = replace(HELLO, options=Options(cost_budget_usd=1.0))
    if len(asked) == 1:
        with pytest.raises(Unavailable) as caught:
            await layer.complete(request)
        assert caught.value.detail["asked"] == {A: "unavailable", B: "may cost more than cost_budget_usd"}
    else:
        assert (await layer.complete(request)).model == B
    assert models.asked == asked
