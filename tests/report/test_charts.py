import xml.etree.ElementTree as ET
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from visionr1.report.charts import HEIGHT, WIDTH, Series, lay_out_line_chart, smooth
from visionr1.report.formats import number
from visionr1.report.page import load_templates


def draw(title: str, series: list[Series], **options: Any) -> str:
    """The chart as the page has it."""
    return str(load_templates().get_template("chart.html").module.chart(lay_out_line_chart(title, series, **options)))


finite = st.floats(-1e12, 1e12)


@given(st.lists(finite, min_size=1, max_size=400))
def test_any_finite_values_make_a_chart_inside_its_frame(values: list[float]) -> None:
    figure = ET.fromstring(draw("loss", [Series("loss", range(1, len(values) + 1), values)]))
    for line in figure.iter("polyline"):
        for point in line.attrib["points"].split():
            x, y = map(float, point.split(","))
            assert 0 <= x <= WIDTH and 0 <= y <= HEIGHT


@given(st.lists(finite, min_size=1, max_size=100))
def test_smoothing_keeps_length_and_range(values: list[float]) -> None:
    smoothed = smooth(values)
    slack = 1e-6 * max(map(abs, values))
    assert len(smoothed) == len(values)
    assert min(values) - slack <= min(smoothed) and max(smoothed) <= max(values) + slack


def test_smoothing_is_the_mean_of_a_tenth_around() -> None:
    values = [float(i % 2) for i in range(40)]  # reach 2: five values, at the ends fewer
    assert smooth(values)[20] == pytest.approx(2 / 5)
    assert smooth(values)[0] == pytest.approx(1 / 3)


def test_says_in_words_what_it_shows_and_escapes_it() -> None:
    svg = draw("a < b", [Series("<b>", [1, 2, 3], [0.0, 1.0, 2.0]), Series("two", [1, 3], [5.0, 5.0])])
    assert "&lt;b&gt; from 0 to 2; two from 5 to 5." in svg
    assert "<b>" not in svg


def test_marks_and_least_range() -> None:
    svg = draw("x", [Series("x", [0, 10], [0.4, 0.5])], y_range=(0, 1), marks=[5])
    assert svg.count('class="mark"') == 1
    assert ">0<" in svg and ">1<" in svg


@pytest.mark.parametrize("series", [[], [Series("x", [], [])]])
def test_nothing_to_show_is_the_callers_error(series: list[Series]) -> None:
    with pytest.raises(ValueError, match="without points"):
        lay_out_line_chart("x", series)


@pytest.mark.parametrize("values", [[0.0, 1e-38], [0.0, 0.0], [5.0, 5.0], [1e12, 1e12 + 1e-4], [-3.0, -3.0]])
def test_hardly_any_spread(values: list[float]) -> None:
    assert "nan" not in draw("x", [Series("x", [1, 2], values)])


@pytest.mark.parametrize("step", [0, 1e17, 1e99])
def test_one_step_far_out(step: float) -> None:
    # At 1e17 a step more is the same number.
    assert "nan" not in draw("x", [Series("x", [step], [0.5])])


@pytest.mark.parametrize("value", [1e308, -1e101, 10**400, float("nan"), float("inf"), True, "1", None])
def test_what_no_chart_can_show_is_no_number(value: object) -> None:
    assert number(value) is None


def test_small_numbers_of_an_axis_are_short() -> None:
    assert {tick.label for tick in lay_out_line_chart("x", [Series("x", [1, 2], [0.0, 0.00015])]).y_ticks} == {
        "0",
        "5e-5",
        "1e-4",
        "1.5e-4",
    }
