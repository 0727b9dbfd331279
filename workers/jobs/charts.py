"""The charts of a report, in SVG: columns, and the same in words."""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Final

from schemas.history import Sample
from schemas.money import MILLION, micros
from schemas.results import Counts
from schemas.sketches import Sketch, quantiles

_COLUMNS: Final = 48
_MOST_COLUMNS: Final = 128


def bar(counts: Counts) -> str:
    """A bar of what became of the rows; none where there are none."""
    total = counts.total
    if not total:
        return ""
    good = 100.0 * counts.succeeded / total
    words = f"{counts.succeeded:,} of {total:,} rows succeeded, {counts.errors:,} did not"
    return (
        f'<svg class="bar" viewBox="0 0 100 6" preserveAspectRatio="none" role="img" '
        f'aria-label="{words}"><title>{words}</title>'
        f'<rect class="bad" width="100" height="6"></rect>'
        f'<rect class="good" width="{good:.3f}" height="6"></rect></svg>'
    )


def by_seconds(title: str, sketch: Sketch) -> str:
    """Columns over a logarithmic axis of seconds."""
    first, last = min(sketch), max(sketch)
    width = max(1, -(-(last - first + 1) // _COLUMNS))
    columns: dict[int, int] = {}
    for bucket, count in sketch.items():
        at = (bucket - first) // width
        columns[at] = columns.get(at, 0) + count
    (low,), (high,) = quantiles({first: 1}, (1.0,)), quantiles({last: 1}, (1.0,))
    words = f"{title}: from {duration(low)} to {duration(high)}"
    highest = max(columns.values())
    bars = "".join(_rect(at, 0.9, count / highest) for at, count in sorted(columns.items()))
    return f'{_figure(words, bars)}<p class="muted">{words}, on a logarithmic axis</p>'


def over_time(samples: Sequence[Sample], currency: str) -> str:
    """How a job went from its start until its rows were done; nothing of less than two steps."""
    steps = _steps(samples)
    if len(steps) < 2:
        return ""
    measures: list[tuple[str, Callable[[Sample], float], Callable[[float], str]]] = [
        ("Rows a second", lambda each: each.succeeded + each.errors, _plain),
        ("Tokens a second", lambda each: each.prompt_tokens + each.completion_tokens, _plain),
        ("429s a second", lambda each: each.refusals, _plain),
    ]
    if samples[-1].cost is not None:
        cost = f"{currency} a second"
        measures.append((cost, lambda each: micros(each.cost or "0") / MILLION, _small))
    charts = [
        _series(
            title,
            steps,
            [max(0.0, of(to) - of(of_before)) / _seconds(of_before, to) for of_before, to in steps],
            say,
        )
        for title, of, say in measures
    ]
    for at, share in enumerate(("p50", "p95", "p99")):
        values = [to.latency[at] if len(to.latency) > at else 0.0 for _, to in steps]
        charts.append(_series(f"Latency of answers, {share}", steps, values, duration))
    return f'<div class="charts">{"".join(f"<div>{each}</div>" for each in charts if each)}</div>'


def _steps(samples: Sequence[Sample]) -> Sequence[tuple[Sample, Sample]]:
    """From sample to sample, some of them left out where there are very many."""
    every = -(-len(samples) // _MOST_COLUMNS)
    kept = [each for at, each in enumerate(samples) if at % every == 0 or at == len(samples) - 1]
    return [(before, to) for before, to in pairwise(kept) if to.at > before.at]


def _seconds(before: Sample, to: Sample) -> float:
    return to.at - before.at


def _series(
    title: str,
    steps: Sequence[tuple[Sample, Sample]],
    values: Sequence[float],
    say: Callable[[float], str],
) -> str:
    """Columns over time, each as wide as its step lasted."""
    if not any(values):
        return ""
    begin, end = steps[0][0].at, steps[-1][1].at
    highest = max(values)
    width = _COLUMNS / (end - begin)
    bars = "".join(
        _rect(width * (before.at - begin), width * (to.at - before.at), value / highest)
        for (before, to), value in zip(steps, values, strict=True)
        if value
    )
    words = f"{title}: highest {say(highest)}, within {duration(end - begin)}"
    return f'{_figure(words, bars)}<p class="muted">{words}</p>'


def _rect(at: float, wide: float, high: float) -> str:
    place = f"{at:.2f}".rstrip("0").rstrip(".")
    return (
        f'<rect x="{place}" y="{20 - 20 * high:.2f}" width="{wide:.2f}" '
        f'height="{20 * high:.2f}"></rect>'
    )


def _figure(words: str, bars: str) -> str:
    return (
        f'<svg class="chart" viewBox="0 0 {_COLUMNS} 20.5" preserveAspectRatio="none" role="img" '
        f'aria-label="{words}"><title>{words}</title>{bars}'
        f'<line x1="0" x2="{_COLUMNS}" y1="20.2" y2="20.2" stroke-width="0.2"></line></svg>'
    )


def _plain(value: float) -> str:
    return f"{value:,.2f}"  # as the report's own rates


def _small(value: float) -> str:
    return f"{value:.6f}"


def duration(seconds: float) -> str:
    """A length of time, in two units at most."""
    if seconds < 1.0:
        return f"{1000 * seconds:.0f} ms"
    if seconds < 60.0:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours < 48 else f"{hours // 24} d {hours % 24} h"
