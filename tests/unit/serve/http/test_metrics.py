"""Counts add up over workers and restarts, and read as Prometheus wants them."""

from __future__ import annotations

from pathlib import Path

import pytest

from kaizen.core.request import Reply, Stage, Usage
from kaizen.serve.http import metrics
from kaizen.serve.http.metrics import Counts, Metrics

REPLY = Reply(
    model="mine/large",
    usage=Usage(20, 7, 5),
    cost_usd=0.25,
    first_token_ms=30.0,
    stages=(Stage("compress", saved_usd=0.5), Stage("route", saved_usd=None)),
)


def lines(counted: Metrics) -> list[str]:
    return counted.render().decode().splitlines()


def test_workers_are_summed(tmp_path: Path) -> None:
    workers = [Metrics(tmp_path, number) for number in range(3)]
    for worker in workers:
        worker.begin()
        worker.end("chat", 200, 0.02, None, REPLY)
    workers[0].begin()
    workers[1].begin()
    workers[1].end("chat", 429, 0.001, "limit_reached", None)
    found = lines(workers[2])
    for line in (
        'kaizen_requests_total{route="chat",status="200"} 3',
        'kaizen_requests_total{route="chat",status="429"} 1',
        'kaizen_errors_total{code="limit_reached",route="chat"} 1',
        "kaizen_requests_in_flight 1",
        'kaizen_tokens_total{kind="cached",model="mine/large"} 15',
        'kaizen_cost_usd_total{model="mine/large"} 0.75',
        'kaizen_saved_usd_total{layer="compress"} 1.5',
        'kaizen_request_seconds_bucket{route="chat",le="0.01"} 1',
        'kaizen_request_seconds_bucket{route="chat",le="0.025"} 4',
        'kaizen_request_seconds_bucket{route="chat",le="+Inf"} 4',
        'kaizen_request_seconds_count{route="chat"} 4',
        'kaizen_first_token_seconds_count{route="chat"} 3',
        "# TYPE kaizen_request_seconds histogram",
        "# TYPE kaizen_requests_in_flight gauge",
    ):
        assert line in found
    for worker in workers:
        worker.close()


def test_what_the_layers_count_is_taken_in_as_it_grows_also_by_a_worker_that_starts_again(tmp_path: Path) -> None:
    one, other = Metrics(tmp_path, 0), Metrics(tmp_path, 1)
    one.gather([("exact", "hits", 2), ("exact", "misses", 0)])
    one.gather([("exact", "hits", 5), ("exact", "misses", 0)])
    other.gather([("exact", "hits", 1)])
    one.close()
    again = Metrics(tmp_path, 0)
    again.gather([("exact", "hits", 3)])
    found = lines(other)
    assert 'kaizen_layer_total{event="hits",layer="exact"} 9' in found
    assert 'kaizen_layer_total{event="misses",layer="exact"} 0' in found
    for worker in (other, again):
        worker.close()


def test_a_worker_that_starts_again_goes_on(tmp_path: Path) -> None:
    first = Metrics(tmp_path)
    first.begin()
    first.begin()
    first.end("chat", 200, 0.02, None, REPLY)
    first.close()  # as a killed one leaves it: one call was in the air
    second = Metrics(tmp_path)
    second.begin()
    second.end("chat", 200, 0.02, None, REPLY)
    assert 'kaizen_requests_total{route="chat",status="200"} 2' in lines(second)
    assert "kaizen_requests_in_flight 0" in lines(second)
    second.close()


def test_what_a_cache_gives_is_not_counted_as_tokens_again(tmp_path: Path) -> None:
    counted = Metrics(tmp_path)
    counted.end("chat", 200, 0.02, None, Reply(model="m/x", usage=Usage(20, 7), cost_usd=0.0, tier="exact"))
    assert 'kaizen_tokens_total{kind="in",model="m/x"} 0' in lines(counted)
    assert 'kaizen_cache_total{tier="exact"} 1' in lines(counted)
    counted.close()


def test_labels_can_not_break_the_format(tmp_path: Path) -> None:
    counted = Metrics(tmp_path)
    counted.end("chat", 200, 99.0, None, Reply(model='a"b\\c\nd'))
    assert 'kaizen_model_requests_total{model="a\\"b\\\\c\\nd"} 1' in lines(counted)
    counted.close()


def test_a_file_grows_and_then_counts_the_rest_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "_PAGE", 4096)
    monkeypatch.setattr(metrics, "_GROW", 2)
    counted = Metrics(tmp_path)
    for number in range(500):
        counted.end("chat", 200, 0.1, None, Reply(model=f"mine/{number}"))
    found = lines(counted)
    assert 'kaizen_model_requests_total{model="mine/0"} 1' in found
    assert 'kaizen_requests_total{route="chat",status="200"} 500' in found
    other = next(line for line in found if line.startswith("kaizen_other_total"))
    assert float(other.split()[1]) > 0
    counted.close()


def test_a_number_is_set_and_found_again(tmp_path: Path) -> None:
    counts = Counts(tmp_path / "x.counts")
    place = counts.place("a", (("b", "c"),))
    counts.put(place, 5.0)
    assert counts.place("a", (("b", "c"),)) == place
    counts.close()
    again = Counts(tmp_path / "x.counts")
    assert again.place("a", (("b", "c"),)) == place
    again.close()
