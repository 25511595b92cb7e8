"""The metrics that have a name: ``--metric accuracy``."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from kaizen.core.errors import ConfigError
from kaizen.core.spec import Spec, shorten
from kaizen.learn.metrics.compare import blank, f1, items, longest_common, overlap, same, words
from kaizen.learn.metrics.measure import NO_ANSWER, Measure, Scored, Values

Factory = Callable[[Spec, str], Measure]

STATED: Final = "confidence"
RIGHT: Final = "right"
_LEAST_BIN: Final = 10


def _compared(spec: Spec, expected: Values, only: str) -> list[str]:
    """The outputs that a row says something about, in the contract's order; intermediates are nobody's business."""
    return [name for name in spec.outputs if name in expected and (not only or name == only)]


def _check_field(metric: str, spec: Spec, name: str) -> None:
    if name and name not in spec.outputs:
        raise ConfigError(
            f"--metric {metric}:{name}: {spec.name} has no output {name!r}; it has {', '.join(spec.outputs)}"
        )


def _differ(name: str, wanted: Any, got: Any) -> str:
    return f"{name}: expected {shorten(wanted)}, got {shorten(got)}"


def _all_same(name: str, doc: str, spec: Spec, only: str, equal: Callable[[Any, Any], bool]) -> Measure:
    _check_field(name, spec, only)

    def judge(inputs: Values, expected: Values, prediction: Values | None) -> Scored | None:
        fields = _compared(spec, expected, only)
        if not fields:
            return None
        if prediction is None:
            return NO_ANSWER
        wrong = [each for each in fields if not equal(expected[each], prediction.get(each))]
        return Scored(
            float(not wrong), "; ".join(_differ(each, expected[each], prediction.get(each)) for each in wrong)
        )

    return Measure(f"{name}:{only}" if only else name, doc, judge)


def accuracy(spec: Spec, only: str = "") -> Measure:
    """1 where every labelled output is right; case, spaces and rounding aside."""
    return _all_same("accuracy", accuracy.__doc__ or "", spec, only, same)


def exact(spec: Spec, only: str = "") -> Measure:
    """1 where every labelled output is exactly as expected."""
    return _all_same("exact", exact.__doc__ or "", spec, only, lambda wanted, got: wanted == got)


def _is_free_text(spec: Spec, name: str) -> bool:
    schema = spec.output_schema["properties"].get(name, {})
    shapes = [schema, *schema.get("anyOf", [])]
    return any(one.get("type") == "string" and "enum" not in one and "const" not in one for one in shapes)


def f1_score(spec: Spec, only: str = "") -> Measure:
    """F1 of one answer: over the words of a lone free text, else over the filled fields and list entries."""
    _check_field("f1", spec, only)

    def judge(inputs: Values, expected: Values, prediction: Values | None) -> Scored | None:
        fields = _compared(spec, expected, only)
        if not fields:
            return None
        if prediction is None:
            return NO_ANSWER
        if len(fields) == 1 and _is_free_text(spec, fields[0]):
            wanted, got = expected[fields[0]], prediction.get(fields[0])
            counts = overlap(words(wanted or ""), words(got or ""))
        else:
            counts = overlap(
                [item for name in fields for item in items(name, expected[name])],
                [item for name in fields for item in items(name, prediction.get(name))],
            )
        value = f1(*counts)
        wrong = [name for name in fields if not same(expected[name], prediction.get(name))] if value < 1 else []
        return Scored(value, "; ".join(_differ(name, expected[name], prediction.get(name)) for name in wrong))

    return Measure(f"f1:{only}" if only else "f1", f1_score.__doc__ or "", judge)


def numeric(spec: Spec, tolerance: str = "") -> Measure:
    """1 where every labelled number is within the tolerance: ``numeric`` is 1 %, ``numeric:0.05`` 5 % of it."""
    try:
        share = float(tolerance or "0.01")
    except ValueError:
        raise ConfigError(f"--metric numeric:{tolerance}: the tolerance is a share, such as 0.05") from None

    def number(value: Any) -> float | None:
        if isinstance(value, bool) or value is None:
            return None
        try:
            return float(str(value).replace(",", "").strip())
        except ValueError:
            return None

    def judge(inputs: Values, expected: Values, prediction: Values | None) -> Scored | None:
        fields = _compared(spec, expected, "")
        wanted = {name: value for name in fields if (value := number(expected[name])) is not None}
        if not wanted:
            return None
        if prediction is None:
            return NO_ANSWER
        wrong: list[str] = []
        for name, value in wanted.items():
            got = number(prediction.get(name))
            if got is None or not math.isclose(value, got, rel_tol=share, abs_tol=1e-12):
                wrong.append(_differ(name, expected[name], prediction.get(name)))
        return Scored(float(not wrong), "; ".join(wrong))

    return Measure(f"numeric:{tolerance}" if tolerance else "numeric", numeric.__doc__ or "", judge)


def json_fields(spec: Spec, only: str = "") -> Measure:
    """The share of the labelled fields that are right, fields of objects counted one by one."""
    _check_field("json_fields", spec, only)

    def leaves(name: str, value: Any) -> dict[str, Any]:
        if isinstance(value, Mapping) and value:
            found: dict[str, Any] = {}
            for key, one in value.items():  # pyright: ignore[reportUnknownVariableType] - JSON
                found |= leaves(f"{name}.{key}", one)
            return found
        return {name: value}

    def judge(inputs: Values, expected: Values, prediction: Values | None) -> Scored | None:
        wanted: dict[str, Any] = {}
        got: dict[str, Any] = {}
        for name in _compared(spec, expected, only):
            wanted |= leaves(name, expected[name])
            got |= leaves(name, (prediction or {}).get(name))
        if not wanted:
            return None
        if prediction is None:
            return NO_ANSWER
        names = [*wanted, *(name for name in got if name not in wanted and not blank(got[name]))]
        wrong = [name for name in names if not same(wanted.get(name), got.get(name))]
        said = "; ".join(_differ(name, wanted.get(name), got.get(name)) for name in wrong)
        return Scored(1 - len(wrong) / len(names), said)

    return Measure(f"json_fields:{only}" if only else "json_fields", json_fields.__doc__ or "", judge)


def rouge(spec: Spec, only: str = "") -> Measure:
    """ROUGE-L: F1 of the longest sequence of words that is in both texts (Lin, 2004); the mean over the fields."""
    _check_field("rouge", spec, only)

    def judge(inputs: Values, expected: Values, prediction: Values | None) -> Scored | None:
        fields = [name for name in _compared(spec, expected, only) if isinstance(expected[name], str)]
        if not fields:
            return None
        if prediction is None:
            return NO_ANSWER
        values: list[float] = []
        for name in fields:
            wanted, got = words(expected[name]), words(str(prediction.get(name) or ""))
            both = longest_common(wanted, got)
            values.append(f1(both, len(got) - both, len(wanted) - both))
        return Scored(sum(values) / len(values))

    return Measure(f"rouge:{only}" if only else "rouge", rouge.__doc__ or "", judge)


def calibration(spec: Spec, field: str = "") -> Measure:
    """1 less the squared distance of the answer's own ``confidence`` (0 to 1) from being right (Brier, 1950).

    The figure ``calibration_error`` of an evaluation is made of it, see ``calibration_error``.
    """
    name = field or "confidence"
    if name not in spec.outputs:
        raise ConfigError(f"--metric calibration: {spec.name} has no output {name!r}; name its own: calibration:FIELD")
    others = [each for each in spec.outputs if each != name]

    def judge(inputs: Values, expected: Values, prediction: Values | None) -> Scored | None:
        fields = [each for each in others if each in expected]
        stated = (prediction or {}).get(name)
        if not fields or (prediction is not None and not isinstance(stated, int | float)):
            return None
        if prediction is None or stated is None:
            return NO_ANSWER
        right = float(all(same(expected[each], prediction.get(each)) for each in fields))
        return Scored(1 - (float(stated) - right) ** 2, parts={STATED: float(stated), RIGHT: right})

    return Measure(f"calibration:{field}" if field else "calibration", calibration.__doc__ or "", judge)


def calibration_error(stated: Sequence[float], right: Sequence[float], bins: int = 10) -> float:
    """How far stated confidence is from the share that is right, on average (Guo et al., ICML 2017).

    Bins hold about equally many answers, ten at least, in the order of their confidence, and answers of one confidence
    stay together: the share that is right of fewer is mostly chance.
    """
    pairs = sorted(zip(stated, right, strict=True))
    n = len(pairs)
    size = max(_LEAST_BIN, n / bins)
    parts: list[list[tuple[float, float]]] = [[]]
    for pair in pairs:
        last = parts[-1]
        if len(last) >= size and pair[0] != last[-1][0]:
            parts.append(last := [])
        last.append(pair)
    if len(parts) > 1 and len(parts[-1]) < _LEAST_BIN:
        rest = parts.pop()
        parts[-1] += rest
    return sum(abs(sum(x for x, _ in part) - sum(y for _, y in part)) for part in parts) / n if n else 0.0


NAMED: Final[Mapping[str, Factory]] = {
    "accuracy": accuracy,
    "exact": exact,
    "f1": f1_score,
    "numeric": numeric,
    "json_fields": json_fields,
    "rouge": rouge,
    "calibration": calibration,
}
"""By name; what follows a colon in ``--metric`` is the second argument: a field, or a tolerance."""
