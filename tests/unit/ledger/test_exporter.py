"""Records reach a collector in batches, later when it is away, and never twice when it took them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest
from pydantic_core import from_json

from kaizen.core.errors import AuthFailed, ProviderError, Unavailable
from kaizen.core.record import Record
from kaizen.ledger.exporter import Exporter
from kaizen.testing.store_suite import make_record


class Collector:
    """Takes export requests, after as many failures as it is told."""

    def __init__(self, *failures: ProviderError) -> None:
        self.failures = list(failures)
        self.batches: list[list[str]] = []
        self.pauses: list[float] = []

    async def post(self, body: bytes) -> None:
        if self.failures:
            raise self.failures.pop(0)
        spans = from_json(body)["resourceSpans"][0]["scopeSpans"][0]["spans"]
        told = [{one["key"]: one["value"] for one in span["attributes"]} for span in spans]
        self.batches.append([one["kaizen.record"]["stringValue"] for one in told])

    async def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        await asyncio.sleep(0)


async def sent(collector: Collector, records: Sequence[Record]) -> Exporter:
    exporter = Exporter(collector.post, sleep=collector.sleep)
    exporter.take(records)
    for _ in range(50):
        await asyncio.sleep(0)
    return exporter


async def test_records_go_in_batches_and_in_order() -> None:
    collector, records = Collector(), [make_record() for _ in range(1000)]
    exporter = await sent(collector, records)
    assert [len(batch) for batch in collector.batches] == [512, 488]
    assert [one for batch in collector.batches for one in batch] == [record.id for record in records]
    assert (exporter.sent, exporter.dropped, collector.pauses) == (1000, 0, [2.0])
    exporter.take(records[:1])
    await exporter.close()
    assert exporter.sent == 1001


async def test_a_collector_that_is_away_is_tried_again_with_growing_pauses() -> None:
    collector = Collector(Unavailable("away"), Unavailable("away"))
    exporter = await sent(collector, [make_record()])
    assert (collector.pauses, exporter.sent, exporter.dropped) == ([2.0, 4.0, 8.0], 1, 0)


async def test_what_a_collector_refuses_is_dropped_and_counted(caplog: pytest.LogCaptureFixture) -> None:
    collector = Collector(AuthFailed("no"))
    exporter = await sent(collector, [make_record() for _ in range(600)])
    assert (exporter.sent, exporter.dropped) == (88, 512)
    assert "traces can't be exported" in caplog.text


async def test_a_full_queue_drops_the_oldest() -> None:
    collector, records = Collector(), [make_record()] * 20_001
    exporter = Exporter(collector.post, sleep=collector.sleep)
    exporter.take(records)
    assert exporter.dropped == 1
    await exporter.close()
    assert exporter.sent == 20_000


async def test_closing_sends_what_waits_but_does_not_wait_for_a_collector_that_is_away() -> None:
    collector = Collector(Unavailable("away"))
    exporter = Exporter(collector.post)
    exporter.take([make_record()])
    await exporter.close()
    assert (exporter.sent, collector.failures) == (0, [])


async def test_spans_of_others_and_scores_are_not_sent_on() -> None:
    collector = Collector()
    exporter = Exporter(collector.post, sleep=collector.sleep)
    exporter.take([make_record(kind="span"), make_record(kind="score")])
    await asyncio.sleep(0)
    await exporter.close()
    assert (collector.batches, collector.pauses) == ([], [])
