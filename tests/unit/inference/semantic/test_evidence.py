"""What evidence proves, and what is kept of it."""

from __future__ import annotations

import random

import numpy as np
import pytest

from kaizen.core.scope import LOCAL, Scope
from kaizen.inference.semantic.book import EvidenceBook
from kaizen.inference.semantic.evidence import Evidence, Sample
from kaizen.inference.semantic.likeness import FEATURES
from kaizen.stores.cache.memory import MemoryCache

TASK = "*"


def features(apart: float, *, replaced: bool = False) -> tuple[float, ...]:
    values = {"one": 1.0, "apart": apart, "gist_apart": apart, "short": 0.3, "replaced": float(replaced)}
    return tuple(values.get(name, 0.0) for name in FEATURES)


def sample(number: int, agreed: bool = True, apart: float = 0.1, task: str = TASK, entry: str = "") -> Sample:
    return Sample(f"pair-{number}", entry or f"entry-{number}", task, features(apart), agreed)


def bound(evidence: Evidence, apart: float = 0.1, task: str = TASK, entry: str = "new") -> float:
    return evidence.bound(task, entry, np.array(features(apart))).bound


def test_without_evidence_nothing_is_proved() -> None:
    known = Evidence().bound(TASK, "entry", np.array(features(0.0)))
    assert (known.bound, known.alone, known.evidence) == (1.0, 1.0, 0)


@pytest.mark.parametrize(("wrong", "count"), [(0, 300), (1, 475), (2, 630)])
def test_so_much_evidence_proves_one_percent(wrong: int, count: int) -> None:
    def evidence(size: int) -> Evidence:
        return Evidence([sample(number, agreed=number >= wrong) for number in range(size)])

    assert bound(evidence(count)) <= 0.01
    assert bound(evidence(count - 12)) > 0.01


def test_the_bound_is_near_the_exact_one() -> None:
    # the 95 % points of Beta(e + 1, n - e) for n = 400, integrated numerically
    for wrong, exact in ((0, 0.00746), (1, 0.01181), (5, 0.02607), (20, 0.07183)):
        found = bound(Evidence([sample(number, agreed=number >= wrong) for number in range(400)]))
        assert found == pytest.approx(exact, rel=0.03)


def test_what_is_less_alike_than_any_evidence_is_not_proved() -> None:
    evidence = Evidence([sample(number) for number in range(400)])
    assert bound(evidence, 0.05) <= 0.01
    assert bound(evidence, 0.3) == 1.0


def test_false_hits_far_off_do_not_count_against_what_is_alike() -> None:
    near = [sample(number) for number in range(300)]
    far = [sample(1000 + number, agreed=False, apart=0.6) for number in range(200)]
    evidence = Evidence([*near, *far])
    assert bound(evidence) <= 0.01
    assert bound(evidence, 0.6) > 0.3


def test_the_order_is_learned() -> None:
    rng = random.Random(3)
    samples: list[Sample] = []
    for number in range(600):
        # here replaced content does no harm, and distance does
        apart, replaced = rng.random() * 0.3, rng.random() < 0.5
        agreed = rng.random() > apart * 3
        samples.append(Sample(f"p{number}", f"e{number}", TASK, features(apart, replaced=replaced), agreed))
    evidence = Evidence(samples)
    rows = np.array([features(0.05, replaced=True), features(0.25), features(0.05)])
    near_replaced, far, near = evidence.score(TASK, rows)
    assert near > far
    assert near_replaced > far


def test_an_entry_that_was_wrong_is_not_given_until_it_was_right_often() -> None:
    others = [sample(number) for number in range(500)]
    failed = Evidence([*others, sample(1000, agreed=False, entry="mine")])
    assert bound(failed, entry="mine") > 0.03
    assert bound(failed, entry="another") <= 0.01
    later = [sample(2000 + number, entry="mine") for number in range(200)]
    assert bound(Evidence([*others, sample(1000, agreed=False, entry="mine"), *later]), entry="mine") <= 0.01


def test_an_entry_s_own_agreement_counts_for_what_is_as_alike() -> None:
    others = [sample(number, agreed=number % 25 > 0, apart=0.1 + number / 2000) for number in range(400)]
    own = [sample(1000 + number, entry="mine", apart=0.15) for number in range(300)]
    evidence = Evidence([*others, *own])
    assert bound(evidence, 0.15, entry="mine") < bound(evidence, 0.15, entry="another")
    # agreement on what was less alike says all the more of what is more alike, and nothing the other way round
    assert bound(evidence, 0.12, entry="mine") < bound(evidence, 0.12, entry="another")
    assert bound(evidence, 0.25, entry="mine") == bound(evidence, 0.25, entry="another")


def test_a_type_of_task_takes_the_order_of_the_others_but_not_their_bound() -> None:
    rng = random.Random(2)
    known = [
        sample(number, agreed=number % 2 == 0, apart=0.5 * (number % 2) + rng.random() / 9) for number in range(500)
    ]
    evidence = Evidence(known)
    assert bound(evidence, 0.01) < 0.05
    assert bound(evidence, 0.01, task="billing") == 1.0
    assert evidence.score("billing", np.array([features(0.5)]))[0] < Evidence().score("x", np.array([features(0.5)]))[0]


def test_later_evidence_of_a_pair_replaces_earlier_and_the_oldest_goes() -> None:
    evidence = Evidence([sample(1), sample(1, agreed=False)])
    assert [one.agreed for one in evidence.samples] == [False]
    for number in range(4100):
        evidence.add(sample(number))
    assert len(evidence) == 4000
    assert not evidence.has("pair-50")
    assert evidence.has("pair-4099")


def test_stats_show_what_the_budget_lets_pass() -> None:
    near = [sample(number) for number in range(300)]
    far = [sample(1000 + number, agreed=False, apart=0.6, task=TASK) for number in range(100)]
    shown = Evidence([*near, *far]).stats(0.01)[TASK]
    assert (shown["evidence"], shown["false"], shown["share"]) == (400, 100, 0.75)
    assert shown["bound"] <= 0.01
    assert 0.5 < shown["likely_from"] < 1.0
    little = Evidence([sample(1)]).stats(0.01)[TASK]
    assert (little["share"], little["likely_from"], little["bound"]) == (0.0, None, 1.0)


# -- the book -------------------------------------------------------------------------------------


async def test_the_book_keeps_evidence_by_scope_across_a_restart() -> None:
    cache, other = MemoryCache(1 << 20), Scope("other", "dev")
    book = EvidenceBook(cache, budget=0.05, explore=0.1)
    for number in range(30):
        await book.add(LOCAL, sample(number))
    book.counts(LOCAL).hits += 1
    again = EvidenceBook(cache, budget=0.05, explore=0.1)
    assert len(await again.evidence(LOCAL)) == 30
    assert len(await again.evidence(other)) == 0
    stats = await book.stats(LOCAL)
    assert (stats["budget"], stats["sampling"], stats["evidence"], stats["hits"]) == (0.05, 0.1, 30, 1)
    assert (await again.stats(LOCAL))["hits"] == 0


async def test_two_books_over_one_cache_share_what_they_learn() -> None:
    cache = MemoryCache(1 << 20)
    one, other = EvidenceBook(cache), EvidenceBook(cache)
    await one.evidence(LOCAL)
    await other.evidence(LOCAL)
    await one.add(LOCAL, sample(1))
    await other.add(LOCAL, sample(2))
    await one.add(LOCAL, sample(3))
    assert {one.pair for one in (await one.evidence(LOCAL)).samples} == {"pair-1", "pair-2", "pair-3"}


async def test_evidence_of_another_version_is_not_read() -> None:
    cache = MemoryCache(1 << 20)
    await cache.put(LOCAL, "semantic:evidence", b'{"mark": "0 one", "samples": [["a"]]}')
    assert len(await EvidenceBook(cache).evidence(LOCAL)) == 0


async def test_what_could_not_be_written_is_written_with_the_next() -> None:
    class Full(MemoryCache):
        full = True

        async def put(self, *args: object, **kwargs: object) -> None:
            if self.full:
                raise OSError("full")
            await super().put(*args, **kwargs)  # type: ignore[arg-type]  # passed on

    cache = Full(1 << 20)
    book = EvidenceBook(cache)
    with pytest.raises(OSError, match="full"):
        await book.add(LOCAL, sample(1))
    cache.full = False
    await book.add(LOCAL, sample(2))
    assert len(await EvidenceBook(cache).evidence(LOCAL)) == 2


async def test_the_more_evidence_there_is_the_less_often_it_is_written() -> None:
    class Counting(MemoryCache):
        puts = 0

        async def put(self, *args: object, **kwargs: object) -> None:
            self.puts += 1
            await super().put(*args, **kwargs)  # type: ignore[arg-type]  # passed on

    cache = Counting(1 << 24)
    book = EvidenceBook(cache)
    for number in range(400):
        await book.add(LOCAL, sample(number))
    assert cache.puts < 200
    await book.save(LOCAL)
    assert len(await EvidenceBook(cache).evidence(LOCAL)) == 400
