"""Counts for Prometheus, summed over workers: each worker has a file of its own that it maps into memory.

To count is to add to a number in that map, a fraction of a microsecond and no system call. Whichever worker is asked
for ``/metrics`` reads the files of all. A worker that is started again goes on with its predecessor's file, so that no
counter falls. A file is a sequence of entries, each the length of its key (8 bytes), the key padded to 8 bytes, and a
float64; the first 8 bytes of the file are how much of it is used.
"""

from __future__ import annotations

import mmap
import struct
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from kaizen.core.request import Reply

_PAGE: Final = 64 * 1024
_GROW: Final = 64  # pages at most: 4 MiB, some fifty thousand series
_BUCKETS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
_SUFFIX: Final = ".counts"
_LAYERS: Final = "kaizen_layer_total"

Label = tuple[str, str]
Series = tuple[str, tuple[Label, ...]]

HELP: Final[Mapping[str, tuple[str, str]]] = {
    "kaizen_requests_total": ("counter", "Requests answered, by route and HTTP status."),
    "kaizen_request_seconds": ("histogram", "From a request's head to the end of its answer."),
    "kaizen_first_token_seconds": ("histogram", "From the model call to the first token of a streamed answer."),
    "kaizen_requests_in_flight": ("gauge", "Requests being answered now."),
    "kaizen_model_requests_total": ("counter", "Answers by the model that gave them."),
    "kaizen_tokens_total": ("counter", "Tokens by model and kind: in, out, cached (part of in)."),
    "kaizen_cost_usd_total": ("counter", "Dollars spent, by model; answers without a known price are left out."),
    "kaizen_saved_usd_total": ("counter", "Dollars saved, by layer."),
    "kaizen_cache_total": ("counter", "Answers by the tier they came from: exact, semantic, step or miss."),
    _LAYERS: ("counter", "What the caches did, by layer and event, such as hits, misses and failures."),
    "kaizen_errors_total": ("counter", "Requests that failed, by route and the error's code."),
}


class Counts:
    """The numbers of one worker, in its file.

    Args:
        path: the file; made where it is missing, gone on with where it is there.
    """

    def __init__(self, path: Path) -> None:
        self._file = path.open("a+b")
        if self._file.seek(0, 2) == 0:
            self._file.truncate(_PAGE)
        self._map = mmap.mmap(self._file.fileno(), 0)
        self._numbers = memoryview(self._map).cast("d")
        self._used = max(8, struct.unpack_from("<Q", self._map, 0)[0])
        self._at = {key: at // 8 for key, at in _places(self._map)}
        # what there is no room for is counted together, so that it shows
        self._other = self.place("kaizen_other_total", ())

    def place(self, name: str, labels: tuple[Label, ...]) -> int:
        """Where a series' number is; give it to ``add``."""
        key = _key(name, labels)
        at = self._at.get(key)
        return self._new(key) if at is None else at

    def add(self, place: int, value: float) -> None:
        """Count."""
        self._numbers[place] += value

    def count(self, places: Sequence[int]) -> None:
        """Count one at each of these."""
        numbers = self._numbers
        for place in places:
            numbers[place] += 1.0

    def put(self, place: int, value: float) -> None:
        """Set, for what goes up and down."""
        self._numbers[place] = value

    def close(self) -> None:
        """Let go of the file."""
        self._numbers.release()
        self._map.close()
        self._file.close()

    def _new(self, key: bytes) -> int:
        padded = key + b"\0" * (-len(key) % 8)
        start, end = self._used, self._used + 16 + len(padded)
        if end > len(self._map) and not self._enlarge(end):
            return self._other
        struct.pack_into(f"<Q{len(padded)}sd", self._map, start, len(key), padded, 0.0)
        place = self._at[key] = (end - 8) // 8
        self._used = end
        struct.pack_into("<Q", self._map, 0, end)  # last: a reader sees whole entries only
        return place

    def _enlarge(self, wanted: int) -> bool:
        size = -(-wanted // _PAGE) * _PAGE
        if size > _GROW * _PAGE:
            return False
        self._numbers.release()
        self._map.close()
        self._file.truncate(size)
        self._map = mmap.mmap(self._file.fileno(), 0)
        self._numbers = memoryview(self._map).cast("d")
        return True


class Metrics:
    """What a worker counts.

    Args:
        folder: where the workers' files lie; emptied by whoever starts them.
        worker: its number; kept as ``worker``.
    """

    def __init__(self, folder: Path, worker: int = 0) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self.worker = folder, worker
        self._counts = Counts(folder / f"{worker}{_SUFFIX}")
        self._known: dict[tuple[object, ...], tuple[int, ...]] = {}
        self._gathered: dict[int, int] = {}
        self._in_flight = self._counts.place("kaizen_requests_in_flight", ())
        self._counts.put(self._in_flight, 0.0)  # a predecessor's died with it

    def begin(self) -> None:
        """A request came."""
        self._counts.add(self._in_flight, 1.0)

    def end(self, route: str, status: int, seconds: float, error: str | None, reply: Reply | None) -> None:
        """A request is answered."""
        counts = self._counts
        counts.add(self._in_flight, -1.0)
        key = (route, status, error)
        places = self._known.get(key) or self._request(key, route, status, error)
        counts.count(places)
        self._observe("kaizen_request_seconds", route, seconds)
        if reply is not None:
            self._replied(route, reply)

    def gather(self, counted: Iterable[tuple[str, str, int]]) -> None:
        """Take in what the layers count by themselves: layer, event, how often in this process so far."""
        for layer, event, total in counted:
            place = self._counts.place(_LAYERS, (("event", event), ("layer", layer)))
            self._counts.add(place, total - self._gathered.get(place, 0))
            self._gathered[place] = total

    def render(self) -> bytes:
        """All workers' numbers in Prometheus' text format (version 0.0.4)."""
        return "\n".join([*_lines(_summed(self._folder)), ""]).encode()

    def close(self) -> None:
        """Let go of the file."""
        self._counts.close()

    def _request(self, key: tuple[object, ...], route: str, status: int, error: str | None) -> tuple[int, ...]:
        place = self._counts.place
        places = [place("kaizen_requests_total", (("route", route), ("status", str(status))))]
        if error is not None:
            places.append(place("kaizen_errors_total", (("code", error), ("route", route))))
        self._known[key] = tuple(places)
        return self._known[key]

    def _observe(self, name: str, route: str, seconds: float) -> None:
        """Count in one bucket; ``render`` makes the running sums that Prometheus wants."""
        at = bisect_left(_BUCKETS, seconds)
        key = (name, route, at)
        places = self._known.get(key)
        if places is None:
            place = self._counts.place
            bound = f"{_BUCKETS[at]:g}" if at < len(_BUCKETS) else "+Inf"
            places = self._known[key] = (
                place(f"{name}_bucket", (("route", route), ("le", bound))),
                place(f"{name}_sum", (("route", route),)),
            )
        self._counts.add(places[0], 1.0)
        self._counts.add(places[1], seconds)

    def _replied(self, route: str, reply: Reply) -> None:
        counts = self._counts
        key = (reply.model, reply.tier)
        places = self._known.get(key)
        if places is None:
            place = counts.place
            model = ("model", reply.model)
            tier = "miss" if reply.tier == "model" else reply.tier
            places = self._known[key] = (
                place("kaizen_model_requests_total", (model,)),
                place("kaizen_cache_total", (("tier", tier),)),
                place("kaizen_tokens_total", (("kind", "in"), model)),
                place("kaizen_tokens_total", (("kind", "out"), model)),
                place("kaizen_tokens_total", (("kind", "cached"), model)),
                place("kaizen_cost_usd_total", (model,)),
            )
        counts.count(places[:2])
        usage = reply.usage
        if reply.tier == "model":  # what a cache gives was counted when a model gave it
            counts.add(places[2], usage.tokens_in)
            counts.add(places[3], usage.tokens_out)
            counts.add(places[4], usage.tokens_cached)
        if reply.cost_usd:
            counts.add(places[5], reply.cost_usd)
        for stage in reply.stages:
            if stage.saved_usd:
                counts.add(counts.place("kaizen_saved_usd_total", (("layer", stage.layer),)), stage.saved_usd)
        if reply.first_token_ms is not None:
            self._observe("kaizen_first_token_seconds", route, reply.first_token_ms / 1000)


def layer_counts(folder: Path) -> Mapping[str, Mapping[str, int]]:
    """By layer and event, what the caches of a gateway's workers did since it was started: see ``Metrics.gather``."""
    found: dict[str, dict[str, int]] = {}
    for key, value in _summed(folder).items():
        name, labels = _series(key)
        if name == _LAYERS:
            of = dict(labels)
            found.setdefault(of["layer"], {})[of["event"]] = round(value)
    return found


def _summed(folder: Path) -> dict[bytes, float]:
    sums: dict[bytes, float] = {}
    for path in folder.glob(f"*{_SUFFIX}"):
        data = path.read_bytes()
        for key, at in _places(data):
            sums[key] = sums.get(key, 0.0) + struct.unpack_from("<d", data, at)[0]
    return sums


def _key(name: str, labels: tuple[Label, ...]) -> bytes:
    return "\x1f".join([name, *(f"{label}\x1e{value}" for label, value in labels)]).encode("utf-8", "replace")


def _series(key: bytes) -> Series:
    name, *labels = key.decode("utf-8", "replace").split("\x1f")
    pairs = (label.partition("\x1e") for label in labels)
    return name, tuple((label, value) for label, _, value in pairs)


def _places(data: bytes | mmap.mmap) -> Iterator[tuple[bytes, int]]:
    """Each key and where its number is."""
    used: int = min(struct.unpack_from("<Q", data, 0)[0], len(data))
    at = 8
    while at + 16 <= used:
        length: int = struct.unpack_from("<Q", data, at)[0]
        number = at + 8 + length + (-length % 8)
        if number + 8 > used:
            return
        yield bytes(data[at + 8 : at + 8 + length]), number
        at = number + 8


def _lines(sums: Mapping[bytes, float]) -> Iterator[str]:
    families: dict[str, list[tuple[str, tuple[Label, ...], float]]] = {}
    for key, value in sums.items():
        name, labels = _series(key)
        family = name.removesuffix("_bucket").removesuffix("_sum")
        family = family if family in HELP else name
        families.setdefault(family, []).append((name, labels, value))
    for family in sorted(families):
        kind, words = HELP.get(family, ("counter", "Series there was no room for."))
        yield f"# HELP {family} {words}"
        yield f"# TYPE {family} {kind}"
        if kind == "histogram":
            yield from _histogram(family, families[family])
        else:
            yield from sorted(f"{name}{_braces(labels)} {value:.12g}" for name, labels, value in families[family])


def _histogram(family: str, rows: Iterable[tuple[str, tuple[Label, ...], float]]) -> Iterator[str]:
    """Buckets as running sums, for each route."""
    counted: dict[str, dict[str, float]] = {}
    sums: dict[str, float] = {}
    for name, labels, value in rows:
        of = dict(labels)
        if name.endswith("_bucket"):
            counted.setdefault(of["route"], {})[of["le"]] = value
        else:
            sums[of["route"]] = value
    for route in sorted(counted):
        running = 0.0
        for bound in [*(f"{one:g}" for one in _BUCKETS), "+Inf"]:
            running += counted[route].get(bound, 0.0)
            yield f"{family}_bucket{_braces((('route', route), ('le', bound)))} {running:.12g}"
        yield f"{family}_sum{_braces((('route', route),))} {sums.get(route, 0.0):.12g}"
        yield f"{family}_count{_braces((('route', route),))} {running:.12g}"


def _braces(labels: tuple[Label, ...]) -> str:
    if not labels:
        return ""
    return "{" + ",".join(f'{label}="{_escaped(value)}"' for label, value in labels) + "}"


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
