"""Line charts as inline SVG, laid out by hand: no plotting library, and colours that follow the page's theme.

This file computes where everything lies; `templates/chart.html` draws it, with the classes of `report.css`.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

WIDTH, HEIGHT = 480, 220
LEFT, RIGHT, TOP, BOTTOM = 50, 10, 10, 26
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


@dataclass(frozen=True, slots=True)
class Tick:
    """A label of an axis, and where along it in SVG units."""

    at: float
    label: str


@dataclass(frozen=True, slots=True)
class Line:
    """One series as drawn: `points` and `raw` (behind a smoothed line, else "") for a polyline, `dots` as (x, y)."""

    name: str
    points: str
    raw: str
    dots: Sequence[tuple[float, float]]


@dataclass(frozen=True, slots=True)
class LineChart:
    """A chart in SVG units of a frame of WIDTH x HEIGHT, as `templates/chart.html` draws it.

    `marks` are the x of vertical lines; `last_step` labels the end of the x axis.
    """

    title: str
    description: str
    x_ticks: Sequence[Tick]
    y_ticks: Sequence[Tick]
    last_step: str
    marks: Sequence[float]
    lines: Sequence[Line]


def line_chart(
    title: str,
    series: Sequence[Series],
    *,
    y_range: tuple[float, float] | None = None,
    marks: Sequence[float] = (),
    smoothed: bool = True,
) -> LineChart:
    """Lay out a chart with one line per series over training steps.

    A `smoothed` line is a moving average over its faint raw values. `y_range` is the least that the y axis spans;
    `marks` are steps that get a vertical line. Raises ValueError if a series is empty.
    """
    if not series or any(not len(line.x) for line in series):
        raise ValueError(f"chart {title!r} has a series without points")
    ticks = _ticks(*_bounds([y for line in series for y in line.y], y_range))
    x_low, x_high = min(line.x[0] for line in series), max(line.x[-1] for line in series)
    x = Scale(x_low, max(x_high, x_low + 1), LEFT, WIDTH - RIGHT)
    y = Scale(ticks[0], ticks[-1], HEIGHT - BOTTOM, TOP)
    return LineChart(
        title=title,
        description=describe(title, series),
        x_ticks=_x_ticks(x),
        y_ticks=[Tick(y(tick), _number(tick)) for tick in ticks],
        last_step=_number(x.high),
        marks=[x(step) for step in marks],
        lines=[_line(one, x, y, smoothed) for one in series],
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


def _x_ticks(x: Scale) -> list[Tick]:
    """Whole steps, none under the label of the last one."""
    ticks = []
    for tick in _ticks(x.low, x.high):
        if tick == int(tick) and x.low <= tick and x(tick) < WIDTH - RIGHT - LABEL_ROOM:
            ticks.append(Tick(x(tick), _number(tick)))
    return ticks


def _line(series: Series, x: Scale, y: Scale, smoothed: bool) -> Line:
    dots: list[tuple[float, float]] = []
    if not smoothed and len(series.x) <= MAX_DOTS:
        dots = [(x(step), y(value)) for step, value in zip(series.x, series.y, strict=True)]
    return Line(
        name=series.name,
        points=_points(series.x, smooth(series.y) if smoothed else series.y, x, y),
        raw=_points(series.x, series.y, x, y) if smoothed else "",
        dots=dots,
    )


def _points(steps: Sequence[float], values: Sequence[float], x: Scale, y: Scale) -> str:
    """The points of a polyline, of a long series only every n-th."""
    stride = math.ceil(len(steps) / MAX_POINTS)
    kept = zip(steps[::stride], values[::stride], strict=True)
    return " ".join(f"{x(step):.1f},{y(value):.1f}" for step, value in kept)


def _number(value: float) -> str:
    """A number of at most six or seven characters, which is the room beside the y axis."""
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    if 0 < abs(value) < 0.001:
        mantissa, exponent = f"{value:.1e}".split("e")
        return f"{mantissa.removesuffix('.0')}e{int(exponent)}"
    return f"{value:.3g}"
