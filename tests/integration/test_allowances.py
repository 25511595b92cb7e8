"""The durable count of a run's requests: never passed, by any process, and one process at a time."""

from __future__ import annotations

import asyncio
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from kaizen.core.errors import BudgetExceeded, ConfigError, Conflict, StoreError
from kaizen.core.message import Message
from kaizen.core.protocols import Need
from kaizen.core.request import Decoding, Request, Usage
from kaizen.core.scope import Scope
from kaizen.stores import allowances
from kaizen.stores.allowances import FileAllowance, Limits, Taken

SCOPE = Scope()
REQUEST = Request(scope=SCOPE, model="a/m", messages=(Message.of("user", "hello"),))


def allowance(path: Path, run: str = "r", *, scope: Scope = SCOPE, **limits: Any) -> FileAllowance:
    def bound(request: Request) -> tuple[Request, Need]:
        usd = None if request.model == "a/unpriced" else 0.1
        return Request(scope=SCOPE, model=request.model, messages=(), decoding=Decoding(max_tokens=5)), Need(
            1, 100, usd
        )

    def price(model: str, usage: Usage) -> float | None:
        return None if model == "a/odd" else usage.tokens_out / 1000

    return FileAllowance(path / "allowances.db", scope, run, Limits(**limits), bound=bound, price=price)


async def test_no_more_than_the_limit_is_ever_taken(tmp_path: Path) -> None:
    own = allowance(tmp_path, calls=10)
    await own.open("plan")
    taken = await asyncio.gather(*(own.take(REQUEST) for _ in range(30)), return_exceptions=True)
    refused = [one for one in taken if isinstance(one, BudgetExceeded)]
    assert len(refused) == 20
    assert "10 of 10 calls" in refused[0].message
    assert (await own.close()).calls == 10


async def test_the_count_outlives_whoever_counted(tmp_path: Path) -> None:
    first = allowance(tmp_path, calls=3)
    assert not await first.known()
    assert await first.open("plan") == Taken()
    await first.take(REQUEST)
    await first.take(REQUEST)
    await first.close()
    second = allowance(tmp_path, calls=3)
    assert await second.known()
    assert (await second.open("plan")).calls == 2
    await second.take(REQUEST)
    with pytest.raises(BudgetExceeded):
        await second.take(REQUEST)
    assert (await second.taken()).calls == 3
    await second.close()


async def test_one_process_at_a_time_works_on_a_run(tmp_path: Path) -> None:
    async with allowance(tmp_path, calls=3) as own:
        await own.open("plan")
        with pytest.raises(Conflict, match="another process works on run r"):
            await allowance(tmp_path, calls=3).open("plan")
        other = allowance(tmp_path, "other", calls=3)
        await other.open("plan")
        await other.close()
    again = allowance(tmp_path, calls=3)
    await again.open("plan")
    await again.close()


def test_the_hold_ends_with_its_process(tmp_path: Path) -> None:
    code = (
        "import asyncio, sys\nfrom pathlib import Path\nfrom kaizen.core.scope import Scope\n"
        "from kaizen.stores.allowances import FileAllowance, Limits\n"
        "async def main():\n"
        "    await FileAllowance(Path(sys.argv[1]) / 'allowances.db', Scope(), 'r', Limits(calls=3)).open('plan')\n"
        "    print('held', flush=True)\n    await asyncio.sleep(60)\n"
        "asyncio.run(main())\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"

    async def held() -> Taken:
        async with allowance(tmp_path, calls=3) as own:
            return await own.open("plan")

    with pytest.raises(Conflict):
        asyncio.run(held())
    process.kill()
    process.communicate()
    assert asyncio.run(held()) == Taken()


async def test_a_run_goes_on_with_the_plan_it_began_with(tmp_path: Path) -> None:
    async with allowance(tmp_path, calls=3) as own:
        await own.open("plan")
    with pytest.raises(Conflict, match="other data"):
        await allowance(tmp_path, calls=3).open("another")
    async with allowance(tmp_path, calls=3) as own:
        await own.open("plan")  # the refused one let go


async def test_runs_of_other_tenants_are_others(tmp_path: Path) -> None:
    async with allowance(tmp_path, calls=1) as own:
        await own.open("plan")
        await own.take(REQUEST)
        async with allowance(tmp_path, scope=Scope("other"), calls=1) as theirs:
            assert await theirs.open("plan") == Taken()
            await theirs.take(REQUEST)


async def test_tokens_and_dollars_are_taken_before_and_settled_after(tmp_path: Path) -> None:
    async with allowance(tmp_path, tokens=250, usd=0.25) as own:
        await own.open("plan")
        claim = await own.take(REQUEST)
        assert claim.request.decoding.max_tokens == 5
        assert (await own.taken()).tokens == 100
        await claim.settle(Usage(20, 10))
        taken = await own.taken()
        assert (taken.tokens, taken.usd) == (30, pytest.approx(0.01))
        await own.take(REQUEST)
        await own.take(REQUEST)  # 230 tokens, 0.21 dollars
        with pytest.raises(BudgetExceeded, match="230 of 250 tokens"):
            await own.take(REQUEST)


async def test_a_cost_that_is_not_known_stays_at_what_was_taken(tmp_path: Path) -> None:
    async with allowance(tmp_path, usd=1.0) as own:
        await own.open("plan")
        claim = await own.take(Request(scope=SCOPE, model="a/odd", messages=()))
        await claim.settle(Usage(20, 10))
        assert (await own.taken()).usd == pytest.approx(0.1)


async def test_without_a_price_a_budget_in_dollars_is_refused(tmp_path: Path) -> None:
    async with allowance(tmp_path, usd=1.0) as own:
        await own.open("plan")
        with pytest.raises(ConfigError, match="price of a/unpriced is not known"):
            await own.take(Request(scope=SCOPE, model="a/unpriced", messages=()))


async def test_seconds_are_those_of_all_processes_together(tmp_path: Path) -> None:
    async with allowance(tmp_path, seconds=0.2) as own:
        await own.open("plan")
        await own.take(REQUEST)
        await asyncio.sleep(0.15)
    async with allowance(tmp_path, seconds=0.2) as own:
        assert (await own.open("plan")).seconds >= 0.15
        left = own.left_seconds()
        assert left is not None
        assert left <= 0.05
        await asyncio.sleep(0.06)
        assert own.left_seconds() == 0.0
        with pytest.raises(BudgetExceeded, match=r"of 0.2 seconds"):
            await own.take(REQUEST)
    assert allowance(tmp_path).left_seconds() is None


async def test_a_part_of_the_work_can_be_held_to_less(tmp_path: Path) -> None:
    async with allowance(tmp_path, calls=5) as own:
        await own.open("plan")
        own.narrow(Limits(calls=1))
        await own.take(REQUEST)
        with pytest.raises(BudgetExceeded):
            await own.take(REQUEST)
        own.narrow(Limits(calls=5))
        await own.take(REQUEST)


async def test_a_place_that_can_t_be_written_is_an_error_of_ours(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError):
        await allowance(tmp_path / "file", calls=1).open("plan")
    (tmp_path / "allowances.db").write_text("no database at all, just some text that is long enough to be read")
    with pytest.raises(StoreError):
        await allowance(tmp_path, calls=1).open("plan")


async def test_whoever_is_cancelled_while_opening_holds_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own, may = allowance(tmp_path, calls=3), threading.Event()
    lock = own._lock  # pyright: ignore[reportPrivateUsage] - to be cancelled in the middle of it

    def slowly() -> None:
        lock()
        may.wait(5)

    monkeypatch.setattr(own, "_lock", slowly)
    opening = asyncio.ensure_future(own.open("plan"))
    await asyncio.sleep(0.05)
    for _ in range(2):
        opening.cancel()
        await asyncio.sleep(0.05)
    assert not opening.done()  # it is not let go of before it is held
    may.set()
    with pytest.raises(asyncio.CancelledError):
        await opening
    async with allowance(tmp_path, calls=3) as other:
        assert await other.open("plan") == Taken()


async def test_a_run_that_nobody_works_on_for_ninety_days_is_forgotten(tmp_path: Path) -> None:
    async def ran(run: str) -> None:
        async with allowance(tmp_path, run, calls=3) as own:
            await own.open("plan")
            await own.take(REQUEST)

    def runs() -> set[str]:
        with sqlite3.connect(tmp_path / "allowances.db") as db:
            return {run for (run,) in db.execute("SELECT run_id FROM allowances")}

    def age(days: float) -> None:
        with sqlite3.connect(tmp_path / "allowances.db") as db:
            db.execute("UPDATE allowances SET begun = begun - ?", (days * 86_400,))

    for run in ("old", "worked on", "held"):
        await ran(run)
    age(89)
    await ran("worked on")
    async with allowance(tmp_path, "held", calls=3) as held:
        assert (await held.open("plan")).calls == 1
        age(2)
        with sqlite3.connect(tmp_path / "allowances.db") as db:
            db.execute("UPDATE allowances SET begun = 0 WHERE run_id = 'held'")
        await ran("new")
        assert runs() == {"worked on", "held", "new"}
        assert len(list((tmp_path / "allowances").iterdir())) == 3
    await ran("new")
    assert runs() == {"worked on", "new"}
    assert len(list((tmp_path / "allowances").iterdir())) == 2


async def test_a_lock_file_that_was_forgotten_meanwhile_is_no_hold(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = allowance(tmp_path, calls=3)
    flock, folder = allowances.fcntl.flock, tmp_path / "allowances"

    def flocked(file: int, how: int) -> None:
        monkeypatch.setattr(allowances.fcntl, "flock", flock)
        for one in folder.iterdir():  # by another process, which had locked it before
            one.unlink()
        flock(file, how)

    monkeypatch.setattr(allowances.fcntl, "flock", flocked)
    async with own:
        await own.open("plan")
        with pytest.raises(Conflict):
            await allowance(tmp_path, calls=3).open("plan")


async def test_prices_are_not_looked_up_on_the_loop(tmp_path: Path) -> None:
    threads: list[int] = []

    def bound(request: Request) -> tuple[Request, Need]:
        threads.append(threading.get_ident())
        return request, Need(1, 100, 0.1)

    def price(_: str, __: Usage) -> float:
        threads.append(threading.get_ident())
        return 0.05

    limits = Limits(usd=1.0)
    async with FileAllowance(tmp_path / "a.db", SCOPE, "r", limits, bound=bound, price=price) as own:
        await own.open("plan")
        await (await own.take(REQUEST)).settle(Usage(1, 1))
        assert (await own.taken()).usd == pytest.approx(0.05)
    assert len(threads) == 2
    assert threading.get_ident() not in threads
