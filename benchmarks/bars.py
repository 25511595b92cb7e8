"""What is promised: for each bar the script that measures it, what it found, and whether that is enough.

``run.py`` reads it. A figure is taken from the JSON that the script wrote; nothing is typed in.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Script:
    """A script that measures.

    Args:
        path: of the file below ``benchmarks``, without its ending.
        words: how it is run for the record.
        quick: how it is run for a look, if otherwise than for the record.
        long: whether it takes so long, or needs such data, that it is only run when it is named.
    """

    path: str
    words: tuple[str, ...] = ()
    quick: tuple[str, ...] = ()
    long: bool = False


@dataclass(frozen=True)
class Bar:
    """One promise: which script measures it, by its name below, what it found, and whether that is enough."""

    script: str
    what: str
    bar: str
    figure: Callable[[Any], str]
    met: Callable[[Any], bool]


SCRIPTS: Mapping[str, Script] = {
    "structured_call": Script(
        "structured_call", quick=("--rounds", "6", "--slice", "0.15", "--peers", "kaizen,dspy,openai,aiohttp")
    ),
    "concurrency": Script("concurrency", quick=("--rounds", "1", "--seconds", "40")),
    "cold_start": Script("cold_start", quick=("--processes", "12")),
    "startup": Script("startup", quick=("--rounds", "8")),
    "records": Script("records", quick=("--seconds", "2", "--kills", "5", "--rounds", "3")),
    "embedded_overhead": Script("embedded_overhead", quick=("--rounds", "20")),
    "batch_kill": Script("batch_kill"),
    "gateway": Script(
        "gateway/throughput",
        ("--calls", "1500", "--rounds", "4", "--peer-calls", "60"),
        ("--calls", "400", "--rounds", "2", "--peer-calls", "40"),
        long=True,
    ),
    "gateway_soak": Script("gateway/soak", ("--minutes", "10"), ("--minutes", "1"), long=True),
    "exact_cache": Script("exact_cache", long=True),
    "semantic_lookup": Script("semantic_lookup", long=True),
    "semantic_cache": Script("semantic_cache", ("--plot", "benchmarks/results/semantic_cache.svg"), long=True),
    "router": Script("router", long=True),
    "cascade": Script("cascade", long=True),
    "token_optimisation": Script("token_optimisation", ("--surprisal", "5"), long=True),
    "savings": Script("workload/savings", long=True),
    "learn_accuracy": Script("learn/accuracy", ("--arms", "without,ours"), long=True),
    "learn_accuracy_dspy": Script("learn/accuracy", ("--arms", "without,dspy,ours"), long=True),
    "optimizers": Script("learn/optimizers", ("--seeds", "6"), long=True),
    "learn_models": Script("learn/models", long=True),
    "resume_optimize": Script("learn/resume", quick=("--seeds", "1"), long=True),
    "learn_evaluate": Script("learn/evaluate", quick=("--rounds", "2"), long=True),
    "learn_resolve": Script("learn/resolve", quick=("--rounds", "5"), long=True),
    "learn_loop": Script("learn/loop", quick=("--seeds", "20"), long=True),
    "learn_aa": Script("learn/aa", quick=("--seeds", "100"), long=True),
}
"""By the name of the file in ``results`` that it writes."""


def _share(one: Mapping[str, Any]) -> str:
    return "{share:.1%} ({low:.1%} .. {high:.1%})".format(**one)


def _gain(one: Mapping[str, Any]) -> str:
    return "{gain:+.3f} ({low:+.3f} .. {high:+.3f})".format(**one)


def _cpu(result: Any, shape: str) -> str:
    own, ratio = result["kaizen"][shape]["cpu_ms"], result["cpu ratio"]["litellm / kaizen"].get(shape)
    return "{median} ms ({low} .. {high})".format(**own) + (f", 1/{ratio}" if ratio else "")


def _compressed(result: Any, data: str) -> Mapping[str, Any]:
    return result[data]["level medium"]


def _least(result: Any, what: str) -> float:
    return min(one[what]["share"] for one in result["traffic"])


SPINE = (
    Bar(
        "structured_call",
        "one async structured call, CPU, over dspy's",
        "at most 0.16",
        lambda r: "{median} ({low} .. {high})".format(**r["ratio"]["at_once_1"]),
        lambda r: r["met"],
    ),
    Bar(
        "cold_start",
        "new process to the first byte, CPU beyond imports",
        "under 5 ms",
        lambda r: "{median} ms ({low} .. {high})".format(**r["first_byte_ms"]),
        lambda r: r["met"],
    ),
    Bar(
        "concurrency",
        "10,000 calls at once: answered, CPU, peak memory",
        "all, 5 s, 300 MiB",
        lambda r: ", ".join(
            (
                f"{min(one['answered'] for one in r['kaizen']):,}",
                f"{max(one['cpu_s'] for one in r['kaizen'])} s",
                f"{max(one['peak_mib'] for one in r['kaizen']):.0f} MiB",
            )
        ),
        lambda r: r["met"],
    ),
    Bar(
        "startup",
        "`import kaizen`: modules of ours",
        "one",
        lambda r: str(r["import kaizen"]["modules"]),
        lambda r: r["import kaizen"]["modules"] == 1,
    ),
    *(
        Bar(
            "startup",
            f"`{name}`, CPU over importing pydantic",
            f"at most {most}",
            lambda r, name=name: "{median} ({low} .. {high})".format(**r[name]["ratio"]),
            lambda r, name=name: r[name]["met"],
        )
        for name, most in (("from kaizen import signature", 1.5), ("kaizen --help", 2.0))
    ),
    Bar(
        "records",
        "records into SQLite, one process",
        "5,000 a second",
        lambda r: f"{r['one_process']['records_per_s']:,} a second",
        lambda r: r["one_process"]["records_per_s"] >= 5000,
    ),
    Bar(
        "records",
        "4 writing processes, slowest append (a loop that only sleeps: the machine's own)",
        "under 100 ms",
        lambda r: "{append_max_ms} ms ({probe_max_ms} ms)".format(**r["processes_paced"]),
        lambda r: r["processes_paced"]["append_max_ms"] < 100,
    ),
    Bar(
        "records",
        "records lost on kill -9 after the answer",
        "none",
        lambda r: "{lost} of {reported:,}, {kills} kills".format(**r["kill"]),
        lambda r: r["kill"]["lost"] == 0 and r["kill"]["halves"] == 0 and r["kill"]["integrity"] == "ok",
    ),
    Bar(
        "embedded_overhead",
        "embedded model above xllamacpp's own handler",
        "under 3 ms",
        lambda r: "{0} ms ({1[0]} .. {1[1]})".format(r["complete"]["difference_ms"], r["complete"]["interval_95_ms"]),
        lambda r: r["complete"]["difference_ms"] < r["bar_ms"],
    ),
    Bar(
        "batch_kill",
        "batch of 1,000 rows killed three times and resumed",
        "1,000, each once",
        lambda r: f"{r['rows_out']:,}, {r['missing']} missing, {r['double']} double",
        lambda r: r["met"],
    ),
)

ONION = (
    *(
        Bar(
            "gateway",
            f"gateway, miss at {at} connections: CPU, over LiteLLM's",
            "0.3 ms, 1/30",
            lambda r, shape=f"miss at {at}": _cpu(r, shape),
            lambda r, shape=f"miss at {at}": (
                r["kaizen"][shape]["cpu_ms"]["median"] <= 0.3 and r["cpu ratio"]["litellm / kaizen"][shape] >= 30
            ),
        )
        for at in (8, 64)
    ),
    Bar(
        "gateway",
        "gateway, exact hit over HTTP: CPU",
        "0.15 ms",
        lambda r: _cpu(r, "hit at 8"),
        lambda r: r["kaizen"]["hit at 8"]["cpu_ms"]["median"] <= 0.15,
    ),
    Bar(
        "gateway",
        "gateway, 64 connections, open load: added p99",
        "under 5 ms",
        lambda r: "{median} ms ({low} .. {high})".format(**r["kaizen"]["open"]["added"]["p99_ms"]),
        lambda r: r["kaizen"]["open"]["added"]["p99_ms"]["median"] < 5,
    ),
    Bar(
        "gateway_soak",
        "soak: memory, records, tokens",
        "flat, none lost, equal",
        lambda r: f"{r['minutes']:g} minutes, {', '.join(f'{one:+.0f}' for one in r['growth_mib'])} MiB",
        lambda r: r["minutes"] >= 10 and all(r["bars"].values()),
    ),
    Bar(
        "exact_cache",
        "exact hit in process, CPU",
        "20 us",
        lambda r: "{median} us ({low} .. {high})".format(**r["cpu_us"]["tiered"]["hit"]),
        lambda r: r["cpu_us"]["tiered"]["hit"]["median"] <= 20,
    ),
    Bar(
        "semantic_lookup",
        "semantic lookup among 100,000, CPU",
        "1 ms",
        lambda r: "{median} ms ({low} .. {high})".format(**r["look_cpu_ms"]),
        lambda r: r["entries"] >= 100_000 and r["look_cpu_ms"]["median"] <= 1,
    ),
    Bar(
        "semantic_cache",
        "semantic cache: false hits; hit rate over the plain threshold's at that rate",
        "1 %, 2 x",
        lambda r: "{false_rate:.1%} of {answers_given}; {times_the_threshold_at_the_same_rate} x".format(
            **r["without_hard_negatives"]
        ),
        lambda r: (
            r["without_hard_negatives"]["false_rate"] <= 0.01
            and r["without_hard_negatives"]["times_the_threshold_at_the_same_rate"] >= 2
        ),
    ),
    Bar(
        "router",
        "router: strong share for 95 % of the strong model's accuracy",
        "at most 62 %",
        lambda r: f"{r['router']['mean']:.1%} (length {r['length']['share']:.1%}, random {r['random']:.1%})",
        lambda r: r["router"]["mean"] <= 0.62,
    ),
    *(
        Bar(
            "cascade",
            f"cascade on {data}: strong share",
            "half of the router's",
            lambda r, data=data: f"{_share(r[data]['cascade'])}, router {r[data]['router']['share']:.1%}",
            lambda r, data=data: r[data]["cascade"]["share"] <= r[data]["router"]["share"] / 2,
        )
        for data in ("sst2", "banking77")
    ),
    *(
        Bar(
            "token_optimisation",
            f"token optimisation, {data}: saved, evidence kept, change of answers",
            "30 %, 99 %, -1 point",
            lambda r, data=data: "{:.0%}, {:.1%}, {points:+.1f} ({low:+.1f} .. {high:+.1f})".format(
                _compressed(r, data)["tokens_saved"],
                _compressed(r, data)["evidence_kept"]["share"],
                **_compressed(r, data)["reader_change"],
            ),
            lambda r, data=data: (
                _compressed(r, data)["tokens_saved"] >= 0.3
                and _compressed(r, data)["evidence_kept"]["share"] >= 0.99
                and _compressed(r, data)["reader_change"]["low"] >= -1
            ),
        )
        for data in ("squad2 mixed", "squad2 same", "hotpotqa")
    ),
)

LEARN = (
    Bar(
        "learn_accuracy",
        "embedded model after `kaizen optimize` over the same rows without a model, mean of three tasks",
        "above zero",
        lambda r: _gain(r["ours_over"]["without"]["all"]),
        lambda r: r["ours_over"]["without"]["all"]["low"] > 0 and len(r["ours_over"]["without"]) == 4,
    ),
    Bar(
        "learn_accuracy_dspy",
        "the same over DSPy's best optimizer",
        "25 points, three tasks",
        lambda r: ", ".join(f"{task} {_gain(one)}" for task, one in r["ours_over"]["dspy"].items() if task != "all"),
        lambda r: r["ours_over"]["dspy"]["all"]["gain"] >= 0.25 and len(r["ours_over"]["dspy"]) == 4,
    ),
    *(
        Bar(
            "optimizers",
            f"{name} against a strong scripted model, over its own ablation",
            "above zero",
            lambda r, name=name: "{mean:+.3f} ({low:+.3f} .. {high:+.3f})".format(
                **r["optimizers"][name]["over_ablation"]
            ),
            lambda r, name=name: r["optimizers"][name]["over_ablation"]["low"] > 0,
        )
        for name in ("instructions", "reflective", "genetic")
    ),
    Bar(
        "learn_models",
        "models: saved; less spent on the search than by its ablation",
        "above zero",
        lambda r: "{:.0%}; {mean:.0%} ({low:.0%} .. {high:.0%})".format(
            r["arms"]["whole"]["saved_held"]["mean"], **r["over_ablation"]["search_usd"]
        ),
        lambda r: r["arms"]["whole"]["saved_held"]["low"] > 0 and r["over_ablation"]["search_usd"]["low"] > 0,
    ),
    Bar(
        "resume_optimize",
        "searches killed ten times and resumed",
        "the same, a call a kill",
        lambda r: f"{sum(one['same'] for one in r['runs'])} of {len(r['runs'])} the same",
        lambda r: all(
            one["same"] and one["again"] <= one["kills"] and one["asked"] <= one["budget"] for one in r["runs"]
        ),
    ),
    Bar(
        "learn_evaluate",
        "evaluate 10,000 rows, CPU a row above the call",
        "0.3 ms",
        lambda r: "{median} ms ({low} .. {high})".format(**r["above_the_call_ms"]),
        lambda r: r["above_the_call_ms"]["median"] <= 0.3,
    ),
    Bar(
        "learn_resolve",
        "registry resolve on the hot path",
        "under 10 us",
        lambda r: f"{r['bar']['measured, us']} us",
        lambda r: r["bar"]["measured, us"] < 10,
    ),
    *(
        Bar(
            "learn_loop",
            f"loop, {what}: least share of seeds, four kinds of traffic",
            "all",
            lambda r, key=key: f"{_least(r, key):.0%} of {r['seeds']}",
            lambda r, key=key: _least(r, key) >= 1,
        )
        for what, key in (
            ("drift answered within 500 calls", "drift_answered_within_500"),
            ("bad release taken back within 200", "bad_release_taken_back_within_200"),
            ("at most one false alarm in 30 days", "quiet_days_at_most_one_alarm"),
        )
    ),
    Bar(
        "learn_aa",
        "experiments between equal arms that promote, the most of four kinds of traffic",
        "at most 5 %",
        lambda r: _share(max((one["won"] for one in r["equal_arms"]), key=lambda one: one["share"])),
        lambda r: max(one["won"]["share"] for one in r["equal_arms"]) <= 0.05,
    ),
)

BARS = (*SPINE, *ONION, *LEARN)
