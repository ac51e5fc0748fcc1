"""Results as plain text tables with the protocols under them: results side by side, or those of a benchmark."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from visionr1.evaluation.evaluate import SMALL_SET, Evaluation
from visionr1.evaluation.protocols import Protocol
from visionr1.evaluation.result import Result

_COUNTS = (
    "replies",
    "well_formed",
    "unparsable",
    "truncated",
    "unknown_labels",
    "malformed_boxes",
    "images_without_reply",
    "prompts_answered_again",
    "unknown_categories",
    "boxes_beyond_image",
)
"""Counts that get a row where one of the results has any."""


def format_results(results: Mapping[str, Result]) -> str:
    """Put results in columns, x 100, with intervals; those under another protocol than the first are marked with *."""
    every = list(results.values())
    protocol = every[0].protocol
    rows = [["", *(name if result.protocol == protocol else f"{name} *" for name, result in results.items())]]

    def add_row(title: str, cells: Sequence[str]) -> None:
        rows.append([title, *cells])

    for metric in _in_order(result.metrics for result in every):
        add_row(metric, [_figure(result, metric) for result in every])
    add_row("boxes an image / true", [_boxes_an_image(result) for result in every])
    if any(_asked_for_fewer(result) for result in every):
        add_row("categories asked, of all", [_asked_of_all(result) for result in every])
    for key in _COUNTS:
        if any(result.counts.get(key) for result in every):
            add_row(key.replace("_", " "), [str(result.counts.get(key, "")) for result in every])
    for kind in _in_order(result.faults for result in every):
        add_row(f"fault: {kind.replace('_', ' ')}", [str(result.faults.get(kind, 0)) for result in every])
    return "\n".join(_align(rows) + _footer(results))


def format_benchmark(evaluation: Evaluation) -> str:
    """Put the results of a benchmark in rows, with the means, what is missing, and the protocols."""
    first = evaluation.result
    metrics = _in_order(result.metrics for result in evaluation.results.values())
    sizes = ["images", "samples"] if "samples" in first.counts else ["images"]
    rows = [["", *sizes, *_titles(metrics, first.protocol), "boxes an image / true", "faults"]]
    for name, result in evaluation.results.items():
        mark = "" if result.protocol == first.protocol else " *"
        numbers = [str(result.counts[key]) for key in sizes]
        figures = [_figure(result, metric, with_interval=metric == metrics[0]) for metric in metrics]
        faults = ", ".join(f"{kind.replace('_', ' ')} {number}" for kind, number in result.faults.items())
        rows.append([name + mark, *numbers, *figures, _boxes_an_image(result), faults])
    if evaluation.benchmark.averaged:
        rows += _mean_rows(evaluation, metrics, len(sizes))

    lines = _align(rows)
    if evaluation.missing:
        lines.append(f"NOT all of {evaluation.benchmark.name}: missing are {', '.join(evaluation.missing)}")
    return "\n".join([*lines, *evaluation.notes, *_footer(evaluation.results)])


def _titles(metrics: Sequence[str], protocol: Protocol) -> list[str]:
    """Return the heads of the columns of metrics: AP after suppression is called NMS-AP."""
    if protocol.suppression != "truth":
        return list(metrics)
    return [f"NMS-{metric}" if metric.startswith("AP") else metric for metric in metrics]


def _mean_rows(evaluation: Evaluation, metrics: Sequence[str], num_sizes: int) -> list[list[str]]:
    """Return a row of the means over all results, and one over those of SMALL_SET images or more."""
    results = evaluation.results.values()
    num_large = sum(result.counts["images"] >= SMALL_SET for result in results)
    mark = " *" if len({result.protocol for result in results}) > 1 else ""
    titles = {
        False: f"mean of {len(results)}",
        True: f"mean of the {num_large} with {SMALL_SET} images or more",
    }
    rows = []
    for without_small, title in titles.items():
        means = [evaluation.mean(metric, without_small=without_small) for metric in metrics]
        cells = ["n/a" if mean is None else f"{100 * mean:.1f}" for mean in means]
        rows.append([title + mark, *[""] * num_sizes, *cells, "", ""])
    return rows


def _in_order(names: Iterable[Iterable[str]]) -> list[str]:
    """Return every name once, in the order they first come."""
    return list(dict.fromkeys(name for some in names for name in some))


def _align(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return the lines of a table, its first row ruled off."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
        lines.append("  ".join(cells).rstrip())
    return [lines[0], "-" * max(map(len, lines)), *lines[1:]]


def _figure(result: Result, metric: str, *, with_interval: bool = True) -> str:
    """Return a figure x 100 with its interval."""
    value = result.metrics.get(metric)
    if value is None or value < 0:
        return "n/a"
    text = f"{100 * value:.1f}"
    if with_interval and metric in result.interval:
        low, high = result.interval[metric]
        text += f" [{100 * low:.1f}, {100 * high:.1f}]"
    return text


def _boxes_an_image(result: Result) -> str:
    """Return how many boxes were predicted, and how many there are; empty for a metric without boxes."""
    if "predicted_boxes" not in result.counts:
        return ""
    images = result.counts["images"]
    return f"{result.counts['predicted_boxes'] / images:.1f} / {result.counts['true_boxes'] / images:.1f}"


def _asked_for_fewer(result: Result) -> bool:
    return result.counts.get("categories_asked", 0) < result.counts.get("categories_times_images", 0)


def _asked_of_all(result: Result) -> str:
    """Return how often a category was asked for, of all occasions to find one that is not there."""
    if "categories_asked" not in result.counts:
        return ""
    return f"{result.counts['categories_asked']} / {result.counts['categories_times_images']}"


def _footer(results: Mapping[str, Result]) -> list[str]:
    """Return each protocol once, with * and a name where it is not that of the first result, and what figures are."""
    names: dict[Protocol, str] = {}
    for name, result in results.items():
        names.setdefault(result.protocol, name)
    lines: list[str] = []
    for protocol, name in names.items():
        lines.append(f"* {name}: {protocol.line()}" if lines else protocol.line())

    images = sorted({result.counts["images"] for result in results.values()})
    around = "no intervals; --resamples 1000 computes them"
    if any(result.interval for result in results.values()):
        around = "[95% bootstrap interval over images]"
    return [*lines, f"{'/'.join(map(str, images))} images; figures x 100; {around}"]
