"""Results as plain text tables with the protocols under them: results side by side, or those of a benchmark."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial

from visionr1.evaluation.evaluation import SMALL_SET, Evaluation
from visionr1.evaluation.protocols import Protocol
from visionr1.evaluation.result import Result
from visionr1.terminal import printable_line

_COUNTS = (
    "replies",
    "well_formed",
    "unparsable",
    "truncated",
    "unknown_labels",
    "malformed_boxes",
    "images_left_out",
    "images_without_reply",
    "samples_without_reply",
    "prompts_answered_again",
    "unknown_categories",
    "boxes_beyond_image",
)
"""Counts that get a row where one of the results has any."""


def format_results(results: Mapping[str, Result]) -> str:
    """Put results in columns, x 100, with intervals; those under another protocol than the first are marked with *."""
    columns = list(results.values())
    protocol = columns[0].protocol
    rows = [["", *_mark_names(results, protocol)]]

    def add_row(title: str, cell: Callable[[Result], str]) -> None:
        rows.append([title, *map(cell, columns)])

    # Results of other metrics may stand side by side: a row for every metric that one of them has.
    for metric in merge_names(result.metrics for result in columns):
        add_row(metric, partial(_format_metric, metric=metric))
    add_row("boxes an image / true", _format_boxes_per_image)

    # The rest is shown only where it says something.
    if any(map(_asked_for_fewer, columns)):
        add_row("categories asked, of all", _format_categories_asked)
    for key in _COUNTS:
        if any(result.counts.get(key) for result in columns):
            add_row(key.replace("_", " "), partial(_format_count, key=key))
    for kind in merge_names(result.faults for result in columns):
        add_row(f"fault: {kind.replace('_', ' ')}", partial(_format_fault, kind=kind))
    return "\n".join(map(printable_line, _align(rows) + _footer(results)))


def format_benchmark(evaluation: Evaluation) -> str:
    """Put the results of a benchmark in rows, with the means, what is missing, and the protocols."""
    first = evaluation.result
    metrics = merge_names(result.metrics for result in evaluation.results.values())
    sizes = ["images"]
    if "samples" in first.counts:
        sizes.append("samples")

    rows = [["", *sizes, *_metric_titles(metrics, first.protocol), "boxes an image / true", "faults"]]
    names = _mark_names(evaluation.results, first.protocol)
    for name, result in zip(names, evaluation.results.values(), strict=True):
        row = [name]
        for key in sizes:
            row.append(str(result.counts[key]))
        for metric in metrics:
            # One interval a row: with one for every metric, rows would not fit a terminal.
            row.append(_format_metric(result, metric, with_interval=metric == metrics[0]))
        row += [_format_boxes_per_image(result), _format_faults(result)]
        rows.append(row)
    if evaluation.benchmark.averaged:
        rows += _mean_rows(evaluation, metrics, len(sizes))

    lines = _align(rows)
    if evaluation.missing:
        lines.append(f"NOT all of {evaluation.benchmark.name}: missing are {', '.join(evaluation.missing)}")
    return "\n".join(map(printable_line, [*lines, *evaluation.notes, *_footer(evaluation.results)]))


def _mark_names(results: Mapping[str, Result], protocol: Protocol) -> list[str]:
    """Return the names of results, those under another protocol than `protocol` with a *."""
    names = []
    for name, result in results.items():
        if result.protocol != protocol:
            name += " *"
        names.append(name)
    return names


def _metric_titles(metrics: Sequence[str], protocol: Protocol) -> list[str]:
    """Return the heads of the columns of metrics: AP after suppression is called NMS-AP."""
    titles = []
    for metric in metrics:
        if protocol.suppression == "truth" and metric.startswith("AP"):
            metric = f"NMS-{metric}"
        titles.append(metric)
    return titles


def _mean_rows(evaluation: Evaluation, metrics: Sequence[str], num_sizes: int) -> list[list[str]]:
    """Return a row of the means over all results, and one over those of SMALL_SET images or more."""
    results = evaluation.results.values()
    num_large = sum(result.counts["images"] >= SMALL_SET for result in results)
    all_title = f"mean of {len(results)}"
    large_title = f"mean of the {num_large} with {SMALL_SET} images or more"

    # A mean over results of several protocols is of none of them.
    mark = ""
    if len({result.protocol for result in results}) > 1:
        mark = " *"

    rows = []
    for title, number, without_small in ((all_title, len(results), False), (large_title, num_large, True)):
        row = [title + mark, *[""] * num_sizes]
        for metric in metrics:
            mean = evaluation.mean(metric, without_small=without_small)
            num_measured = len(evaluation.values(metric, without_small=without_small))
            row.append(_format_mean(mean, num_measured, number))
        rows.append([*row, "", ""])
    return rows


def _format_mean(mean: float | None, num_measured: int, number: int) -> str:
    """Return a mean x 100, and of how many it is where not all of `number` results have the metric."""
    if mean is None:
        return "n/a"
    text = f"{100 * mean:.1f}"
    if num_measured < number:
        text += f" (of {num_measured})"
    return text


def merge_names(groups: Iterable[Iterable[str]]) -> list[str]:
    """Return every name once, in the order they first come."""
    names: dict[str, None] = {}
    for group in groups:
        names |= dict.fromkeys(group)
    return list(names)


def _align(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return the lines of a table, its first row ruled off."""
    rows = [list(map(printable_line, row)) for row in rows]
    widths = []
    for column in zip(*rows, strict=True):
        widths.append(max(map(len, column)))

    lines = []
    for row in rows:
        cells = map(str.ljust, row, widths)
        lines.append("  ".join(cells).rstrip())
    return [lines[0], "-" * max(map(len, lines)), *lines[1:]]


def _format_metric(result: Result, metric: str, *, with_interval: bool = True) -> str:
    """Return a figure x 100 with its interval."""
    value = result.metrics.get(metric)

    # COCO's figures are -1 where there is nothing to find, such as no large object.
    if value is None or value < 0:
        return "n/a"
    text = f"{100 * value:.1f}"
    if with_interval and metric in result.interval:
        low, high = result.interval[metric]
        text += f" [{100 * low:.1f}, {100 * high:.1f}]"
    return text


def _format_count(result: Result, key: str) -> str:
    return str(result.counts.get(key, ""))


def _format_fault(result: Result, kind: str) -> str:
    return str(result.faults.get(kind, 0))


def _format_faults(result: Result) -> str:
    """Return the faults of all replies in one cell, such as "truncated 2, unknown label 1"."""
    return ", ".join(f"{kind.replace('_', ' ')} {number}" for kind, number in result.faults.items())


def _format_boxes_per_image(result: Result) -> str:
    """Return how many boxes were predicted, and how many there are; empty for a metric without boxes."""
    counts = result.counts
    if not counts.get("images") or "predicted_boxes" not in counts or "true_boxes" not in counts:
        return ""
    predicted = counts["predicted_boxes"] / counts["images"]
    true = counts["true_boxes"] / counts["images"]
    return f"{predicted:.1f} / {true:.1f}"


def _asked_for_fewer(result: Result) -> bool:
    """Say if some prompts left out a category of the set: what is not asked for cannot be found wrongly."""
    return result.counts.get("categories_asked", 0) < result.counts.get("categories_times_images", 0)


def _format_categories_asked(result: Result) -> str:
    """Return how often a category was asked for, of all occasions to find one that is not there."""
    counts = result.counts
    if "categories_asked" not in counts or "categories_times_images" not in counts:
        return ""
    return f"{counts['categories_asked']} / {counts['categories_times_images']}"


def _footer(results: Mapping[str, Result]) -> list[str]:
    """Return each protocol once, with * and a name where it is not that of the first result, and what figures are."""
    name_by_protocol: dict[Protocol, str] = {}
    for name, result in results.items():
        name_by_protocol.setdefault(result.protocol, name)

    first, *others = name_by_protocol
    lines = [first.line()]
    for protocol in others:
        lines.append(f"* {name_by_protocol[protocol]}: {protocol.line()}")

    # Results of one table may be of sets of different sizes: 120/119 images.
    # A stored result may lack the count.
    sizes = sorted({result.counts["images"] for result in results.values() if "images" in result.counts})
    about_intervals = "no intervals; --resamples 1000 computes them"
    if any(result.interval for result in results.values()):
        about_intervals = "[95% bootstrap interval over images]"
    return [*lines, f"{'/'.join(map(str, sizes)) or '?'} images; figures x 100; {about_intervals}"]
