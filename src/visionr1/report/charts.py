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
        """Return the place of `value` in SVG units."""
        share = (value - self.low) / (self.high - self.low)
        return self.start + share * (self.end - self.start)


@dataclass(frozen=True, slots=True)
class Tick:
    """A label of an axis; `at` is its place along the axis in SVG units."""

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


def lay_out_line_chart(
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
    if not series or not all(len(line.x) for line in series):
        raise ValueError(f"chart {title!r} has a series without points")
    steps: list[float] = []
    values: list[float] = []
    for line in series:
        steps += line.x
        values += line.y

    # The x axis spans at least one step, so that a single point has a place on it.
    first_step, last_step = _find_bounds([*steps, min(steps) + 1], None)
    x = Scale(first_step, last_step, LEFT, WIDTH - RIGHT)

    # The y axis ends at round numbers. In SVG y grows downwards, so low values lie at the bottom.
    y_values = _choose_round_steps(*_find_bounds(values, y_range))
    y = Scale(y_values[0], y_values[-1], HEIGHT - BOTTOM, TOP)

    return LineChart(
        title=title,
        description=describe(title, series),
        x_ticks=_lay_out_x_ticks(x),
        y_ticks=[Tick(y(value), _format_number(value)) for value in y_values],
        last_step=_format_number(x.high),
        marks=[x(step) for step in marks],
        lines=[_lay_out_line(one, x, y, smoothed) for one in series],
    )


def describe(title: str, series: Sequence[Series]) -> str:
    """Say in words, for those who do not see the chart, from where to where each line goes."""
    lines = []
    for line in series:
        values = smooth(line.y)
        lines.append(f"{line.name} from {_format_number(values[0])} to {_format_number(values[-1])}")

    first_step = _format_number(series[0].x[0])
    last_step = _format_number(series[0].x[-1])
    return f"{title}, steps {first_step} to {last_step}: {'; '.join(lines)}."


def smooth(values: Sequence[float]) -> list[float]:
    """Average over a tenth of the values around each one; at the ends over those there are."""
    reach = len(values) // 20
    sums = list(accumulate(values, initial=0.0))

    # The sum over a window is the difference of two running sums.
    averages = []
    for index in range(len(values)):
        start = max(0, index - reach)
        stop = min(len(values), index + reach + 1)
        averages.append((sums[stop] - sums[start]) / (stop - start))
    return averages


def _find_bounds(values: Sequence[float], y_range: tuple[float, float] | None) -> tuple[float, float]:
    """Return the lowest and the highest value that the y axis must show, never the same one twice."""
    low = min(values)
    high = max(values)
    if y_range is not None:
        low = min(low, y_range[0])
        high = max(high, y_range[1])

    # A scale divides by the difference, which must be more than the rounding error of its ends.
    size = max(abs(low), abs(high), 1e-9)
    if high - low <= 1e-9 * size:
        return low - size / 2, high + size / 2
    return low, high


def _choose_round_steps(low: float, high: float) -> list[float]:
    """Return four to seven round numbers at equal distances that span `low` to `high`."""
    least_step = (high - low) / 4
    unit = 10.0 ** math.floor(math.log10(least_step))

    # The smallest round step that needs few enough ticks; the tolerances are for rounding errors.
    step = 10 * unit
    for multiple in (1, 2, 2.5, 5):
        if multiple * unit >= least_step * 0.999:
            step = multiple * unit
            break

    first = math.floor(low / step + 1e-9)
    last = math.ceil(high / step - 1e-9)
    return [index * step for index in range(first, last + 1)]


def _lay_out_x_ticks(x: Scale) -> list[Tick]:
    """Label whole steps, none under the label of the last one."""
    ticks = []
    for step in _choose_round_steps(x.low, x.high):
        if step == int(step) and x.low <= step and x(step) < WIDTH - RIGHT - LABEL_ROOM:
            ticks.append(Tick(x(step), _format_number(step)))
    return ticks


def _lay_out_line(series: Series, x: Scale, y: Scale, smoothed: bool) -> Line:
    measured = _format_polyline(series.x, series.y, x, y)
    if smoothed:
        return Line(series.name, points=_format_polyline(series.x, smooth(series.y), x, y), raw=measured, dots=[])

    dots: list[tuple[float, float]] = []
    if len(series.x) <= MAX_DOTS:
        for step, value in zip(series.x, series.y, strict=True):
            dots.append((x(step), y(value)))
    return Line(series.name, points=measured, raw="", dots=dots)


def _format_polyline(steps: Sequence[float], values: Sequence[float], x: Scale, y: Scale) -> str:
    """Write the points of a polyline, of a long series only every n-th."""
    stride = math.ceil(len(steps) / MAX_POINTS)
    points = []
    for step, value in zip(steps[::stride], values[::stride], strict=True):
        points.append(f"{x(step):.1f},{y(value):.1f}")
    return " ".join(points)


def _format_number(value: float) -> str:
    """Format a number in at most six or seven characters, which is the room beside the y axis."""
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    # 1e-05 as 1e-5: the zero would take the room of a digit.
    if 0 < abs(value) < 0.001:
        mantissa, exponent = f"{value:.1e}".split("e")
        return f"{mantissa.removesuffix('.0')}e{int(exponent)}"
    return f"{value:.3g}"
