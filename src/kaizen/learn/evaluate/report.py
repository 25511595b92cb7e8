"""An evaluation as one HTML file: it loads nothing, and its plots are drawn in it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from html import escape
from typing import Final

from kaizen.core.spec import Spec, shorten
from kaizen.learn.evaluate.result import Comparison, Evaluation
from kaizen.learn.evaluate.views import Confusion, Slice, confusion, fields_of, mistakes

_SHOWN_ROWS: Final = 200
_BINS: Final = 30
_WIDTH: Final = 640
_LABEL: Final = 28

_STYLE: Final = """
:root { color-scheme: light dark; --ink: #1b1f24; --dim: #667; --bar: #2f6f9f; --line: #d5d9df; --bad: #b3402a; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6e8eb; --dim: #99a; --bar: #6bb1e0; --line: #3a3f46; --bad: #e8836c; } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.4rem; margin: 0; } h2 { font-size: 1.05rem; margin: 2rem 0 .5rem; } p.dim, .dim { color: var(--dim); }
dl { display: flex; flex-wrap: wrap; gap: .75rem 2rem; margin: 1rem 0; } dt { color: var(--dim); font-size: .85rem; }
dd { margin: 0; font-size: 1.25rem; font-variant-numeric: tabular-nums; }
table { border-collapse: collapse; width: 100%; font-size: .875rem; } th, td { text-align: left; padding: .25rem .5rem;
  border-bottom: 1px solid var(--line); vertical-align: top; overflow-wrap: anywhere; }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums; } .bad { color: var(--bad); }
svg { max-width: 100%; height: auto; } svg text { fill: var(--ink); font: 12px system-ui, sans-serif; }
svg .dim { fill: var(--dim); } svg .bar { fill: var(--bar); } svg .rule { stroke: var(--line); }
"""


def report(
    spec: Spec,
    evaluation: Evaluation,
    *,
    source: str = "",
    compared: tuple[str, Comparison] | None = None,
    parts: tuple[str, Sequence[Slice]] | None = None,
) -> str:
    """The file's text.

    Args:
        spec: the program's contract.
        evaluation: what to show.
        source: where the rows come from.
        compared: the name of the version it is compared with, and how that came out.
        parts: the column of the slices, and they.
    """
    name = evaluation.program.rsplit(".", 1)[-1]
    table = confusion(spec, evaluation)
    body = [
        f"<h1>{escape(evaluation.program)}</h1>",
        f'<p class="dim">{escape(evaluation.metric)} on {escape(source or "rows")}, {evaluation.n} rows scored, '
        f"params {escape(evaluation.params[:12] or 'none')}, run {escape(evaluation.run_id)}</p>",
        _figures(evaluation),
        _score_plot(evaluation, compared),
        "" if compared is None else _comparison(*compared),
        "" if not evaluation.broken else _broken(evaluation.broken),
        "" if table is None else _heat_map(table),
        _fields(spec, evaluation),
        "" if parts is None else _slices(*parts),
        _histogram("Latency", "ms", [one.latency_ms for one in evaluation.results]),
        _costs(evaluation),
        _mistakes(evaluation),
        _rows(evaluation),
    ]
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(name)}: {evaluation.score:.3f}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n"
        + "\n".join(part for part in body if part)
        + "\n</body>\n</html>\n"
    )


def _figures(evaluation: Evaluation) -> str:
    figures = evaluation.figures
    cost = "unknown" if evaluation.cost_usd is None else f"${evaluation.cost_usd:.4g}"
    shown = [
        ("score", f"{evaluation.score:.3f}"),
        ("95 % interval", f"{evaluation.low:.3f} to {evaluation.high:.3f}"),
        ("rows", f"{evaluation.n}"),
        ("coverage", f"{evaluation.coverage:.3f}"),
        ("not answered", f"{evaluation.errors}"),
        ("calls", f"{evaluation.calls}"),
        ("cost", cost),
        ("p50", f"{figures.get('p50', 0.0):.0f} ms"),
        ("p95", f"{figures.get('p95', 0.0):.0f} ms"),
    ]
    return f"<dl>{''.join(f'<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>' for name, value in shown)}</dl>"


def _broken(broken: Iterable[str]) -> str:
    items = "".join(f'<li class="bad">{escape(one)}</li>' for one in broken)
    return f"<h2>Bounds that do not hold</h2><ul>{items}</ul>"


# -- plots ----------------------------------------------------------------------------------------


def _score_plot(evaluation: Evaluation, compared: tuple[str, Comparison] | None) -> str:
    """The score with its interval on a line from 0 to 1; the other version's score as a second mark."""
    values = [evaluation.low, evaluation.high, evaluation.score]
    if not all(0.0 <= value <= 1.0 for value in values):
        return ""
    left, width, y = 30, _WIDTH - 60, 30

    def x(value: float) -> float:
        return left + width * value

    ticks = "".join(
        f'<line class="rule" x1="{x(t / 10):.1f}" x2="{x(t / 10):.1f}" y1="{y - 12}" y2="{y + 12}"/>'
        f'<text class="dim" x="{x(t / 10):.1f}" y="{y + 28}" text-anchor="middle">{t / 10:g}</text>'
        for t in range(0, 11, 2)
    )
    other = ""
    if compared is not None:
        at = x(compared[1].before)
        other = (
            f'<path d="M{at:.1f},{y - 6} l5,6 l-5,6 l-5,-6 z" fill="none" stroke="currentColor"/>'
            f'<text x="{at:.1f}" y="{y - 14}" text-anchor="middle">{escape(compared[0])}</text>'
        )
    return (
        f'<svg role="img" aria-label="score {evaluation.score:.3f}" width="{_WIDTH}" height="70" '
        f'viewBox="0 0 {_WIDTH} 70">'
        f'<line class="rule" x1="{left}" x2="{left + width}" y1="{y}" y2="{y}"/>{ticks}'
        f'<rect class="bar" opacity="0.35" x="{x(evaluation.low):.1f}" y="{y - 6}" height="12" '
        f'width="{max(1.0, x(evaluation.high) - x(evaluation.low)):.1f}"/>'
        f'<circle class="bar" cx="{x(evaluation.score):.1f}" cy="{y}" r="6"/>{other}</svg>'
    )


def _heat_map(table: Confusion) -> str:
    """Expected by what came; the darker, the larger the share of its row."""
    cell, left, top = 34, 190, 130
    width, height = left + cell * len(table.got) + 20, top + cell * len(table.labels) + 10
    parts: list[str] = []
    for place, label in enumerate(table.got):
        x = left + cell * place + cell / 2
        parts.append(
            f'<text transform="translate({x:.0f},{top - 8}) rotate(-50)">{escape(_short(label))}'
            f"<title>{escape(label)}</title></text>"
        )
    for row, (label, counts) in enumerate(zip(table.labels, table.counts, strict=True)):
        y, total = top + cell * row, sum(counts)
        parts.append(f'<text x="{left - 8}" y="{y + cell / 2 + 4}" text-anchor="end">{escape(_short(label))}</text>')
        for place, count in enumerate(counts):
            share = count / total if total else 0.0
            said = f"{label} taken for {table.got[place]}: {count} of {total}"
            parts.append(
                f'<rect class="bar" x="{left + cell * place}" y="{y}" width="{cell - 1}" height="{cell - 1}" '
                f'opacity="{0.06 + 0.84 * share:.2f}"><title>{escape(said)}</title></rect>'
            )
            if count:
                at = f'x="{left + cell * place + cell / 2:.0f}" y="{y + cell / 2 + 4:.0f}"'
                parts.append(f'<text {at} text-anchor="middle">{count}</text>')
    return (
        f"<h2>{escape(table.field)}: expected (rows) and got (columns), macro F1 {table.macro_f1:.3f}</h2>"
        f'<svg role="img" aria-label="confusion" width="{width}" height="{height}" viewBox="0 0 {width} {height}">'
        f"{''.join(parts)}</svg>"
    )


def _histogram(title: str, unit: str, values: Sequence[float]) -> str:
    if not values or max(values) <= 0:
        return ""
    ordered = sorted(values)
    top = ordered[min(len(ordered) - 1, math.ceil(0.99 * len(ordered)))]  # one slow call must not flatten the rest
    step = (top or ordered[-1]) / _BINS
    counts = [0] * _BINS
    for value in ordered:
        counts[min(_BINS - 1, int(value / step))] += 1
    most, bar, height = max(counts), _WIDTH / _BINS, 120
    bars = "".join(
        f'<rect class="bar" x="{place * bar:.1f}" y="{height - height * count / most:.1f}" width="{bar - 1:.1f}" '
        f'height="{height * count / most:.1f}">'
        f"<title>{place * step:.4g} to {(place + 1) * step:.4g} {unit}: {count}</title></rect>"
        for place, count in enumerate(counts)
    )
    end = f"{step * _BINS:.4g} {unit}{' and more' if ordered[-1] > step * _BINS else ''}"
    return (
        f'<h2>{escape(title)}</h2><svg role="img" aria-label="{escape(title)}" width="{_WIDTH}" height="{height + 20}" '
        f'viewBox="0 0 {_WIDTH} {height + 20}">{bars}<text class="dim" x="0" y="{height + 15}">0</text>'
        f'<text class="dim" x="{_WIDTH}" y="{height + 15}" text-anchor="end">{escape(end)}</text></svg>'
    )


def _costs(evaluation: Evaluation) -> str:
    costs = [one.cost_usd for one in evaluation.results if one.cost_usd is not None]
    return _histogram("Cost a row", "USD", costs) if len(costs) == len(evaluation.results) else ""


# -- tables ---------------------------------------------------------------------------------------


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]], numbers: Sequence[str] = ()) -> str:
    kinds = [' class="n"' if column in numbers else "" for column in columns]
    head = "".join(f"<th{kind}>{escape(column)}</th>" for column, kind in zip(columns, kinds, strict=True))
    body = "".join(
        f"<tr>{''.join(f'<td{kind}>{escape(cell)}</td>' for cell, kind in zip(row, kinds, strict=True))}</tr>"
        for row in rows
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _comparison(name: str, found: Comparison) -> str:
    return (
        f"<h2>Against {escape(name)}</h2><p>{found.before:.3f} before, {found.after:.3f} now: {found.gain:+.3f} "
        f"({found.low:+.3f} to {found.high:+.3f}, p = {found.p:.3g}); {found.better} rows better, {found.worse} worse, "
        f"of {found.n}.</p>"
    )


def _fields(spec: Spec, evaluation: Evaluation) -> str:
    found = fields_of(spec, evaluation)
    if len(found) < 2:
        return ""
    columns = ("output", "rows", "right", "precision", "recall", "F1")
    rows = [
        (one.name, f"{one.n}", f"{one.right:.3f}", f"{one.precision:.3f}", f"{one.recall:.3f}", f"{one.f1:.3f}")
        for one in found
    ]
    return f"<h2>Outputs</h2>{_table(columns, rows, columns[1:])}"


def _slices(name: str, found: Sequence[Slice]) -> str:
    columns = (name, "rows", "score", "95 % interval")
    rows = [(one.value, f"{one.n}", f"{one.score:.3f}", f"{one.low:.3f} to {one.high:.3f}") for one in found]
    return f"<h2>By {escape(name)}</h2>{_table(columns, rows, columns[1:])}"


def _mistakes(evaluation: Evaluation) -> str:
    found = mistakes(evaluation)
    if not found:
        return ""
    rows = [(f"{one.rows}", one.what, one.example) for one in found]
    return f"<h2>What went wrong</h2>{_table(('rows', 'what', 'for example'), rows, ('rows',))}"


def _rows(evaluation: Evaluation) -> str:
    """The rows, the worst first."""
    ordered = sorted(evaluation.results, key=lambda one: 2.0 if one.score is None else one.score)[:_SHOWN_ROWS]
    rows = [
        (
            "-" if one.score is None else f"{one.score:.3g}",
            shorten(dict(one.row.inputs), 200),
            shorten(dict(one.row.outputs), 120),
            one.error or shorten(dict(one.prediction or {}), 120),
            (one.record or "")[:18],
        )
        for one in ordered
    ]
    left = len(evaluation.results) - len(ordered)
    more = f'<p class="dim">and {left} more</p>' if left else ""
    return f"<h2>Rows</h2>{_table(('score', 'inputs', 'expected', 'got', 'record'), rows, ('score',))}{more}"


def _short(label: str) -> str:
    return label if len(label) <= _LABEL else f"{label[: _LABEL - 1]}…"
