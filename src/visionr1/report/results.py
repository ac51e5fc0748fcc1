"""Results of evaluations as the page shows them: headline, tables of metrics, errors of boxes, benchmarks, VQA."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from visionr1.evaluation import Protocol
from visionr1.evaluation.detection.box_errors import FALSE_KINDS, MEANINGS
from visionr1.evaluation.table import merge_names
from visionr1.report.formats import count, number, percent, signed, words
from visionr1.report.record import Gain, JsonRecord, RunRecord, StoredEvaluation
from visionr1.report.tables import Cell, Table, make_text_table

SHOWN_AT_ZERO = {"unparsable", "truncated", "unknown_labels"}
"""Counts that say something where they are 0; the others are left out."""
ERROR_GROUPS = {"by_category": "By category", "by_size": "By size", "by_crowding": "By crowding"}


@dataclass(frozen=True, slots=True)
class Headline:
    """The first metric of the last result that can be compared with the first one.

    `before` is the first result's figure, "" if no other can be compared with it.
    """

    metric: str
    before: str
    after: str
    gain: Gain | None
    setting: str


@dataclass(frozen=True, slots=True)
class Protocols:
    """The protocol of every result: by its title, or one under "" where all have the same."""

    by_title: Mapping[str, Table]


@dataclass(frozen=True, slots=True)
class Results:
    """The section of `evaluation/*.json`: metrics, categories, counts, protocols, and the marks that occur."""

    metrics: Table
    categories: Table | None
    counts: Table
    protocols: Protocols
    has_other_protocol: bool
    has_other_data: bool


@dataclass(frozen=True, slots=True)
class Errors:
    """Errors of boxes: by kind, and grouped by category, size and crowding."""

    kinds: Table
    groups: Sequence[Table]


@dataclass(frozen=True, slots=True)
class BenchmarkView:
    """The results of a benchmark: a row for each set, the protocols, and what must be known of them."""

    title: str
    table: Table
    notes: Sequence[str]
    protocols: Sequence[str]


def make_headline(run: RunRecord) -> Headline | None:
    """Compare the last result with the first, if they are of the same data under the same protocol."""
    if not run.evaluations:
        return None
    first = run.evaluations[0].record
    comparable = _find_last_comparable(run.evaluations)
    last = comparable or run.evaluations[-1].record
    metric = _find_main_metric(last)
    before = percent(first["metrics"].get(metric)) if comparable else ""

    return Headline(
        metric=metric,
        before=before,
        after=percent(last["metrics"].get(metric)),
        gain=run.gains.get(metric),
        setting=_describe_setting(metric, last),
    )


def _find_last_comparable(evaluations: Sequence[StoredEvaluation]) -> JsonRecord | None:
    """Return the last result that can be compared with the first one, None if no other can."""
    for evaluation in reversed(evaluations[1:]):
        if not find_marks(evaluation.record, evaluations[0].record):
            return evaluation.record
    return None


def _find_main_metric(record: JsonRecord) -> str:
    """Return the name of the first metric, which is the one that a protocol is known for; "" if there is none."""
    return next(iter(record["metrics"]), "")


def _describe_setting(metric: str, record: JsonRecord) -> str:
    """Say in one line what a figure was measured on, and under which protocol."""
    name = "COCO AP" if metric == "AP" else metric
    data = f"{record['data']}, {record['split']}"
    num_images = record.get("counts", {}).get("images")
    if num_images is not None:
        data += f", {count(num_images)} images"
    return f"{name} x 100 on {data}; {format_protocol(record)}."


def make_results(run: RunRecord) -> Results | None:
    """Put the results of `evaluation/*.json` side by side."""
    if not run.evaluations:
        return None
    records = [evaluation.record for evaluation in run.evaluations]
    titles = [format_title(evaluation, run) for evaluation in run.evaluations]

    # A change from first to last means something only if nothing else changed.
    is_comparable = len(records) > 1 and not find_marks(records[-1], records[0])
    count_rows = [*_make_count_rows(records, "counts"), *_make_count_rows(records, "faults", "fault: ")]
    marks = "".join(find_marks(record, records[0]) for record in records)
    return Results(
        metrics=_make_metric_table(run, titles, records),
        categories=_make_category_table(titles, records, is_comparable),
        counts=make_text_table(["", *titles], count_rows, title="Replies and boxes"),
        protocols=_make_protocols(titles, records),
        has_other_protocol="*" in marks,
        has_other_data="+" in marks,
    )


def make_errors(run: RunRecord) -> Errors | None:
    """Count the errors of boxes of each evaluation that stored them."""
    titles = []
    stored = []
    for evaluation in run.evaluations:
        if evaluation.record.get("errors"):
            titles.append(format_title(evaluation, run))
            stored.append(evaluation.record["errors"])
    if not stored:
        return None

    kinds = []
    for kind, meaning in MEANINGS.items():
        row = [Cell(words(kind))]
        for box_errors in stored:
            row.append(Cell(count(box_errors["all"].get(kind, 0))))
        row.append(Cell("", note=meaning))
        kinds.append(row)

    groups = []
    for key, title in ERROR_GROUPS.items():
        groupings = [box_errors.get(key, {}) for box_errors in stored]
        groups.append(_make_error_table(title, titles, groupings))
    return Errors(Table(["", *titles, ""], kinds, "errors"), groups)


def make_benchmarks(run: RunRecord) -> list[BenchmarkView]:
    """Make a table for each benchmark: its sets or splits by their metrics, and the mean where it has one."""
    return [_make_benchmark(name, record) for name, record in run.benchmarks.items()]


def make_vqa_tables(run: RunRecord) -> list[Table]:
    """Make a table for each record of `visionr1 vqa`: metrics, questions, accuracy by split, and the protocol."""
    tables = []
    for name, record in run.vqa.items():
        rows: list[list[str]] = []
        for metric, value in record.get("metrics", {}).items():
            rows.append([words(metric), percent(value)])
        for counts in (record.get("counts", {}), *record.get("by_split", ())):
            rows += _make_definition_rows(counts)

        # What was asked, of which model, and how.
        setting = {key: record[key] for key in ("model", "data") if key in record}
        rows += _make_definition_rows(setting)
        rows += _make_definition_rows(record.get("protocol", {}))
        tables.append(make_text_table([], rows, kind="plain", title=name))
    return tables


def make_definition_table(record: JsonRecord) -> Table:
    """Make a table of the fields of a record."""
    return make_text_table([], _make_definition_rows(record), kind="plain")


def find_marks(record: JsonRecord, first: JsonRecord) -> str:
    """Return the marks of a result that cannot be compared with the first: * other protocol, + other data."""
    marks = ""
    if Protocol.from_json(record["protocol"]) != Protocol.from_json(first["protocol"]):
        marks += " *"
    if (record["data"], record["split"]) != (first["data"], first["split"]):
        marks += " +"
    return marks


def format_title(evaluation: StoredEvaluation, run: RunRecord) -> str:
    """Return the title of an evaluation with its marks against the first one."""
    return evaluation.title + find_marks(evaluation.record, run.evaluations[0].record)


def format_protocol(record: JsonRecord) -> str:
    """Return the protocol of a stored result in one line."""
    return Protocol.from_json(record["protocol"]).line()


def _make_definition_rows(record: JsonRecord) -> list[list[str]]:
    """Make a row of each field of a record: texts as they are, other values as JSON."""
    rows = []
    for key, value in record.items():
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        rows.append([words(key), text])
    return rows


def _make_metric_table(run: RunRecord, titles: Sequence[str], records: Sequence[JsonRecord]) -> Table:
    heads = ["", *titles]
    if run.gains:
        heads.append("change")

    rows = []
    for metric in merge_names(record["metrics"] for record in records):
        row = [Cell(metric)]
        for record in records:
            row.append(_make_metric_cell(record, metric))
        if run.gains:
            row.append(_make_gain_cell(run.gains.get(metric)))
        rows.append(row)
    return Table(heads, rows, "main")


def _make_metric_cell(record: JsonRecord, metric: str) -> Cell:
    # Results need not have the same metrics: AR has the protocol's number of boxes in its name.
    if metric not in record["metrics"]:
        return Cell("")

    figure = percent(record["metrics"][metric])
    interval = record.get("interval", {}).get(metric)
    if not interval:
        return Cell(figure)
    return Cell(figure, note=f"({percent(interval[0])} to {percent(interval[1])})")


def _make_gain_cell(gain: Gain | None) -> Cell:
    if gain is None:
        return Cell("")
    return Cell(signed(gain.difference), note=f"({signed(gain.low)} to {signed(gain.high)})")


def _make_category_table(titles: Sequence[str], records: Sequence[JsonRecord], is_comparable: bool) -> Table | None:
    """Make a table of the AP of each category, with the change from the first result to the last if comparable."""
    results_by_category = [record.get("per_category", {}) for record in records]
    categories = merge_names(results_by_category)
    if not categories:
        return None
    heads = ["", *titles]
    if is_comparable:
        heads.append("change")

    rows = []
    for category in categories:
        # COCO writes -1 for a category without a true box; one that a result lacks is shown in the same way.
        values = [by_category.get(category, {}).get("AP", -1) for by_category in results_by_category]
        row = [category, *map(percent, values)]
        if is_comparable:
            row.append(_format_change(values[0], values[-1]))
        rows.append(row)
    return make_text_table(heads, rows, title="AP of each category")


def _format_change(before: Any, after: Any) -> str:
    """Return the difference of two shares; "n/a" where one of them is not measured (-1)."""
    first = number(before)
    last = number(after)
    if first is None or last is None or min(first, last) < 0:
        return "n/a"
    return signed(last - first)


def _make_count_rows(records: Sequence[JsonRecord], group: str, prefix: str = "") -> list[list[str]]:
    """Make a row of each count in the field `group` of the results; one that is 0 in all of them tells nothing."""
    count_groups = [record.get(group, {}) for record in records]
    rows = []
    for name in merge_names(count_groups):
        values = [counts.get(name, 0) for counts in count_groups]
        if any(values) or name in SHOWN_AT_ZERO:
            rows.append([prefix + words(name), *map(count, values)])
    return rows


def _make_protocols(titles: Sequence[str], records: Sequence[JsonRecord]) -> Protocols:
    """Show every protocol once: without a title where it is the same for all."""
    by_protocol = {}
    # Of several results under one protocol, the last one stands for them.
    for title, record in zip(titles, records, strict=True):
        by_protocol[Protocol.from_json(record["protocol"])] = (title, make_definition_table(record["protocol"]))
    if len(by_protocol) == 1:
        return Protocols({"": make_definition_table(records[0]["protocol"])})
    return Protocols(dict(by_protocol.values()))


def _make_error_table(name: str, titles: Sequence[str], groupings: Sequence[JsonRecord]) -> Table:
    """Make the table of one grouping: true boxes, and of each evaluation the share found and the false boxes.

    `groupings` holds for each evaluation the counts of its groups, by the name of the group.
    """
    found_heads = [f"{title}: found" for title in titles]
    false_heads = [f"{title}: false" for title in titles]

    rows = []
    for group in merge_names(groupings):
        counts_of_evaluations = [grouping.get(group, {}) for grouping in groupings]
        # An evaluation on fewer images has fewer true boxes; the row names those of the largest.
        num_true = max(_get_count(counts, "true_boxes") for counts in counts_of_evaluations)

        found_shares = []
        false_counts = []
        for counts in counts_of_evaluations:
            found_shares.append(_format_found_share(counts, num_true))
            false_counts.append(count(_count_false(counts)))
        rows.append([group, count(num_true), *found_shares, *false_counts])
    return make_text_table(["", "true", *found_heads, *false_heads], rows, title=name)


def _format_found_share(counts: JsonRecord, num_true: float) -> str:
    """Return the share of the true boxes that were found, in percent; "n/a" without a true box."""
    if num_true == 0:
        return "n/a"
    return percent(_get_count(counts, "found") / num_true)


def _count_false(counts: JsonRecord) -> float:
    return sum(_get_count(counts, kind) for kind in FALSE_KINDS)


def _get_count(counts: JsonRecord, key: str) -> float:
    """Return a count, 0 where there is none."""
    return number(counts.get(key)) or 0


def _make_benchmark(name: str, record: JsonRecord) -> BenchmarkView:
    sets: Mapping[str, JsonRecord] = record["results"]
    metrics = merge_names(result["metrics"] for result in sets.values())

    rows = []
    for part, result in sets.items():
        cells = [_make_metric_cell(result, metric) for metric in metrics]
        rows.append([Cell(part), *cells])

    # Below the sets their means, where the benchmark has one.
    means = {
        "mean": record.get("mean"),
        f"mean of sets of {record.get('small_set')} images or more": record.get("mean_without_small"),
    }
    for title, mean in means.items():
        if mean:
            cells = [Cell(percent(mean.get(metric))) for metric in metrics]
            rows.append([Cell(title), *cells])

    notes = []
    for part in record.get("missing", ()):
        notes.append(f"{part} is missing.")
    for note in record.get("notes", ()):
        notes.append(f"{note}.")

    # The sets of a benchmark mostly have one protocol in common.
    protocols = dict.fromkeys(map(format_protocol, sets.values()))
    return BenchmarkView(
        title=f"{name}: {record.get('model', '')} on {record.get('data', '')}",
        table=Table(["", *metrics], rows),
        notes=notes,
        protocols=list(protocols),
    )
