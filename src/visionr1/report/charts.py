"""Line charts as inline SVG, by hand: no plotting library, and colours that follow the page's theme.

Colours and fonts come from the classes in `report.css`: `s0`..`s4` for series, `grid`, `axis`.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from itertools import accumulate

WIDTH, HEIGHT = 480, 220
LEFT, RIGHT, TOP, BOTTOM = 46, 10, 10, 26
MAX_POINTS = 240
MAX_DOTS = 40
"""Up to so many points are seen as points, unless the line is smoothed: they are all that was measured."""
LABEL_ROOM = 75
"""Kept free of tick labels before the last one."""


@dataclass(frozen=True, slots=True)
class Series:
    """One line: a name for the legend, and its points in order of x."""

    name: str
    x: Sequence[float]
    y: Sequence[float]


@dataclass(frozen=True, slots=True)
class Scale:
    """Maps data values from `low`..`high` to SVG units from `start` to `end`."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        share = (value - self.low) / (self.high - self.low)
        return self.start + share * (self.end - self.start)


def line_chart(
    title: str,
    series: Sequence[Series],
    *,
    y_range: tuple[float, float] | None = None,
    marks: Sequence[float] = (),
    smoothed: bool = True,
) -> str:
    """A `<figure>` with one line per series over training steps.

    A `smoothed` line is a moving average over its faint raw values. `y_range` is the least that the
    y axis spans; `marks` are steps that get a vertical line. Raises ValueError if a series is empty.
    """
    if not series or any(not len(line.x) for line in series):
        raise ValueError(f"chart {title!r} has a series without points")
    ticks = _ticks(*_bounds([y for line in series for y in line.y], y_range))
    x_low, x_high = min(line.x[0] for line in series), max(line.x[-1] for line in series)
    x = Scale(x_low, max(x_high, x_low + 1), LEFT, WIDTH - RIGHT)
    y = Scale(ticks[0], ticks[-1], HEIGHT - BOTTOM, TOP)
    body = [_y_axis(ticks, y), _x_axis(x), *(_mark(x(step)) for step in marks)]
    for number, line in enumerate(series):
        if smoothed:
            body.append(_path(line.x, line.y, x, y, f"raw s{number}"))
        body.append(_path(line.x, smooth(line.y) if smoothed else line.y, x, y, f"line s{number}"))
        if not smoothed and len(line.x) <= MAX_DOTS:
            body += [
                f'<circle class="dot s{number}" cx="{x(a):.1f}" cy="{y(b):.1f}" r="3"/>'
                for a, b in zip(line.x, line.y, strict=True)
            ]
    legend = "".join(f'<li class="s{n}">{escape(line.name)}</li>' for n, line in enumerate(series))
    key = f'<ul class="legend" aria-hidden="true">{legend}</ul>' if len(series) > 1 else ""
    return (
        f'<figure class="chart"><figcaption>{escape(title)}</figcaption>{key}'
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(describe(title, series))}">'
        f"{''.join(body)}</svg></figure>"
    )


def describe(title: str, series: Sequence[Series]) -> str:
    """The chart in words, for those who do not see it."""
    lines = [f"{line.name} from {_number(smooth(line.y)[0])} to {_number(smooth(line.y)[-1])}" for line in series]
    return f"{title}, steps {_number(series[0].x[0])} to {_number(series[0].x[-1])}: {'; '.join(lines)}."


def smooth(values: Sequence[float]) -> list[float]:
    """A moving average over a tenth of the values around each; at the ends over those there are."""
    reach = len(values) // 20
    sums = list(accumulate(values, initial=0.0))
    ends = [(max(0, i - reach), min(len(values), i + reach + 1)) for i in range(len(values))]
    return [(sums[stop] - sums[start]) / (stop - start) for start, stop in ends]


def _bounds(values: Sequence[float], y_range: tuple[float, float] | None) -> tuple[float, float]:
    low, high = min(values), max(values)
    if y_range is not None:
        low, high = min(low, y_range[0]), max(high, y_range[1])
    size = max(abs(low), abs(high), 1e-9)
    return (low, high) if high - low > 1e-9 * size else (low - size / 2, high + size / 2)


def _ticks(low: float, high: float) -> list[float]:
    """Four to seven round numbers that span `low` to `high`."""
    rough = (high - low) / 4
    unit = 10.0 ** math.floor(math.log10(rough))
    step = next(m * unit for m in (1, 2, 2.5, 5, 10) if m * unit >= rough * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [i * step for i in range(first, last + 1)]


def _y_axis(ticks: Sequence[float], y: Scale) -> str:
    return "".join(
        f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y(tick):.1f}" y2="{y(tick):.1f}"/>'
        f'<text class="axis" x="{LEFT - 6}" y="{y(tick) + 4:.1f}" text-anchor="end">{_number(tick)}</text>'
        for tick in ticks
    )


def _x_axis(x: Scale) -> str:
    last = f'<text class="axis" x="{WIDTH - RIGHT}" y="{HEIGHT - 8}" text-anchor="end">step {_number(x.high)}</text>'
    return last + "".join(
        f'<text class="axis" x="{x(tick):.1f}" y="{HEIGHT - 8}" text-anchor="middle">{_number(tick)}</text>'
        for tick in _ticks(x.low, x.high)
        if tick == int(tick) and x.low <= tick and x(tick) < WIDTH - RIGHT - LABEL_ROOM
    )


def _mark(at: float) -> str:
    return f'<line class="mark" x1="{at:.1f}" x2="{at:.1f}" y1="{TOP}" y2="{HEIGHT - BOTTOM}"/>'


def _path(xs: Sequence[float], ys: Sequence[float], x: Scale, y: Scale, kind: str) -> str:
    stride = math.ceil(len(xs) / MAX_POINTS)
    points = " ".join(f"{x(a):.1f},{y(b):.1f}" for a, b in list(zip(xs, ys, strict=True))[::stride])
    return f'<polyline class="{kind}" points="{points}"/>'


def _number(value: float) -> str:
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"
