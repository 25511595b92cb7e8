"""A bandit over live variants behind a gateway: it learns from feedback while it serves."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable

import pytest

from kaizen.app import build
from kaizen.core.params import Params
from kaizen.learn.optimize.bandit import Adaptive, Bandit
from kaizen.serve.http.learn.seams import Served
from kaizen.settings import Settings
from kaizen.testing.fault_server import FaultServer
from tests.desk import Desk, by_body
from tests.e2e.gateway.conftest import ACME, Running
from tests.e2e.gateway_learn.conftest import ask

GUESSES, KNOWS = "Guess.", "parcel means blue."
NAME = f"{Desk.spec.name}:bandit"


@pytest.mark.parametrize("learns", [True, False])
def test_more_is_served_of_what_callers_score_well(
    gateway: Callable[..., Running], upstream: FaultServer, learns: bool
) -> None:
    upstream.reply = by_body
    adaptive = Adaptive(Desk, [Params(instructions=GUESSES), Params(instructions=KNOWS)], Bandit(2, seed=5))
    here = gateway(programs={NAME: Served(adaptive, "tests/desk.py:Desk")}, log={"level": "error"})
    key = here.key()

    def served(first: int, last: int) -> int:
        """Calls with feedback; how many the better variant answered."""
        asked = upstream.count
        for number in range(first, last):
            answer = ask(here, "POST", f"programs/{NAME}", key, {"message": f"no. {number}: my parcel"})
            assert answer.status == 200
            right = answer.json["outputs"]["team"] == "blue"
            path = f"records/{answer.json['record']}/score"
            assert ask(here, "POST", path, key, {"score": float(right)}).status == 201
        assert upstream.count == asked + last - first  # a draw costs no call
        return sum(KNOWS in str(call.json["messages"]) for call in list(upstream.calls)[asked:])

    served(0, 24)
    if learns:
        assert asyncio.run(learned(here.settings, adaptive)) == [24, 0]
    better = served(24, 48)
    assert (better >= 19) is learns
    kept = Counter(one.ref for one in here.records() if one.kind in ("program", "score"))
    assert kept == {NAME: 48, Desk.spec.name: 48, f"kaizen.bandit.{Desk.spec.name}": 48, "feedback": 48}


async def learned(settings: Settings, adaptive: Adaptive) -> list[int]:
    """Have it take in the feedback that has come, twice, from the ledger on disk."""
    app = build(settings)
    try:
        return [await adaptive.learn(app.ledger, ACME, "feedback") for _ in range(2)]
    finally:
        await app.close()
