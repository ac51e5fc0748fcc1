"""Results of evaluations as the page shows them: headline, tables of metrics, errors of boxes, benchmarks, VQA."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from visionr1.evaluation import Protocol
from visionr1.evaluation.detection.box_errors import FALSE_KINDS, MEANINGS
from visionr1.report.formats import count, number, percent, signed, words
from visionr1.report.record import Evaluation, Gain, JsonRecord, RunRecord
from visionr1.report.tables import Cell, Table, text_table

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


def headline(run: RunRecord) -> Headline | None:
    """Compare the last result with the first, if they are of the same data under the same protocol."""
    if not run.evaluations:
        return None
    first = run.evaluations[0].record
    comparable = [e.record for e in run.evaluations[1:] if not mark(e.record, first)]
    last = comparable[-1] if comparable else run.evaluations[-1].record

    metric = next(iter(last["metrics"]), "")
    name = "COCO AP" if metric == "AP" else metric
    size = last.get("counts", {}).get("images")
    images = f", {count(size)} images" if size is not None else ""
    return Headline(
        metric=metric,
        before=percent(first["metrics"].get(metric)) if comparable else "",
        after=percent(last["metrics"].get(metric)),
        gain=run.gains.get(metric),
        setting=f"{name} x 100 on {last['data']}, {last['split']}{images}; {protocol_line(last)}.",
    )


def results(run: RunRecord) -> Results | None:
    """Put the results of `evaluation/*.json` side by side."""
    if not run.evaluations:
        return None
    records = [e.record for e in run.evaluations]
    marks = "".join(mark(record, records[0]) for record in records)
    titles = [marked_title(e, run) for e in run.evaluations]

    is_comparable = len(records) > 1 and not mark(records[-1], records[0])
    counted = [*_count_rows(records, "counts"), *_count_rows(records, "faults")]
    return Results(
        metrics=_metric_table(run, titles, records),
        categories=_category_table(titles, records, is_comparable),
        counts=text_table(["", *titles], counted, title="Replies and boxes"),
        protocols=_protocols(titles, records),
        has_other_protocol="*" in marks,
        has_other_data="+" in marks,
    )


def errors(run: RunRecord) -> Errors | None:
    """Count the errors of boxes of each evaluation that stored them."""
    shown = [e for e in run.evaluations if e.record.get("errors")]
    if not shown:
        return None
    titles = [marked_title(e, run) for e in shown]
    stored = [e.record["errors"] for e in shown]

    kinds = []
    for kind, meaning in MEANINGS.items():
        counts = [Cell(count(one["all"].get(kind, 0))) for one in stored]
        kinds.append([Cell(words(kind)), *counts, Cell("", note=meaning)])

    groups = []
    for key, title in ERROR_GROUPS.items():
        groups.append(_error_table(title, titles, [one.get(key, {}) for one in stored]))
    return Errors(Table(["", *titles, ""], kinds, "errors"), groups)


def benchmarks(run: RunRecord) -> list[BenchmarkView]:
    """Make a table for each benchmark: its sets or splits by their metrics, and the mean where it has one."""
    return [_benchmark(name, record) for name, record in run.benchmarks.items()]


def vqa_tables(run: RunRecord) -> list[Table]:
    """Make a table for each record of `visionr1 vqa`: metrics, questions, accuracy by split, and the protocol."""
    tables = []
    for name, record in run.vqa.items():
        rows: list[list[str]] = []
        for metric, value in record.get("metrics", {}).items():
            rows.append([words(metric), percent(value)])
        for row in (record.get("counts", {}), *record.get("by_split", ())):
            rows += _definition_rows(row)
        rows += _definition_rows({key: record[key] for key in ("model", "data") if key in record})
        rows += _definition_rows(record.get("protocol", {}))
        tables.append(text_table([], rows, kind="plain", title=name))
    return tables


def definition_table(record: JsonRecord) -> Table:
    """Make a table of the fields of a record."""
    return text_table([], _definition_rows(record), kind="plain")


def mark(record: JsonRecord, first: JsonRecord) -> str:
    """Return the marks of a result that cannot be compared with the first: * other protocol, + other data."""
    other_protocol = " *" if read_protocol(record) != read_protocol(first) else ""
    other_data = " +" if (record["data"], record["split"]) != (first["data"], first["split"]) else ""
    return other_protocol + other_data


def marked_title(evaluation: Evaluation, run: RunRecord) -> str:
    """Return the title of an evaluation with its marks against the first one."""
    return evaluation.title + mark(evaluation.record, run.evaluations[0].record)


def read_protocol(record: JsonRecord) -> Protocol:
    """Read the protocol of a stored result, of detection or of grounding."""
    protocol = {"name": "", **record["protocol"]}
    return Protocol.from_json(protocol)


def protocol_line(record: JsonRecord) -> str:
    """Return the protocol of a stored result in one line."""
    return read_protocol(record).line()


def _definition_rows(record: JsonRecord) -> list[list[str]]:
    """The fields of a record: texts as they are, other values as JSON."""
    rows = []
    for key, value in record.items():
        rows.append([words(key), value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)])
    return rows


def _metric_table(run: RunRecord, titles: Sequence[str], records: Sequence[JsonRecord]) -> Table:
    rows = []
    for key in dict.fromkeys(key for record in records for key in record["metrics"]):
        row = [Cell(key), *(_metric_cell(record, key) for record in records)]
        if run.gains:
            row.append(_gain_cell(run.gains.get(key)))
        rows.append(row)
    heads = ["", *titles]
    if run.gains:
        heads.append("change")
    return Table(heads, rows, "main")


def _metric_cell(record: JsonRecord, key: str) -> Cell:
    if key not in record["metrics"]:  # AR has the protocol's number of boxes in its name
        return Cell("")
    ends = record.get("interval", {}).get(key)
    interval = f"({percent(ends[0])} to {percent(ends[1])})" if ends else ""
    return Cell(percent(record["metrics"][key]), note=interval)


def _gain_cell(gain: Gain | None) -> Cell:
    if gain is None:
        return Cell("")
    return Cell(signed(gain.difference), note=f"({signed(gain.low)} to {signed(gain.high)})")


def _category_table(titles: Sequence[str], records: Sequence[JsonRecord], is_comparable: bool) -> Table | None:
    """AP by category, and the change from the first result to the last if these are comparable."""
    categories = dict.fromkeys(name for record in records for name in record.get("per_category", {}))
    if not categories:
        return None
    rows = []
    for category in categories:
        values = [record.get("per_category", {}).get(category, {}).get("AP", -1) for record in records]
        row = [category, *map(percent, values)]
        if is_comparable:
            row.append(_change(values[0], values[-1]))
        rows.append(row)
    heads = ["", *titles]
    if is_comparable:
        heads.append("change")
    return text_table(heads, rows, title="AP of each category")


def _change(before: Any, after: Any) -> str:
    """The difference of two shares; "n/a" where one of them is not measured (-1)."""
    first, last = number(before), number(after)
    if first is None or last is None or min(first, last) < 0:
        return "n/a"
    return signed(last - first)


def _count_rows(records: Sequence[JsonRecord], group: str) -> list[list[str]]:
    prefix = "fault: " if group == "faults" else ""
    rows = []
    for key in dict.fromkeys(key for record in records for key in record.get(group, {})):
        counts = [record.get(group, {}).get(key, 0) for record in records]
        if any(counts) or key in SHOWN_AT_ZERO:
            rows.append([prefix + words(key), *map(count, counts)])
    return rows


def _protocols(titles: Sequence[str], records: Sequence[JsonRecord]) -> Protocols:
    """Every protocol once: without a title where it is the same for all."""
    by_protocol = {}
    for title, record in zip(titles, records, strict=True):
        by_protocol[read_protocol(record)] = (title, definition_table(record["protocol"]))
    if len(by_protocol) == 1:
        return Protocols({"": definition_table(records[0]["protocol"])})
    return Protocols(dict(by_protocol.values()))


def _error_table(title: str, titles: Sequence[str], groups: Sequence[JsonRecord]) -> Table:
    """One grouping: true boxes, and of each evaluation the share found and the number of false boxes."""
    heads = ["", "true", *(f"{name}: found" for name in titles), *(f"{name}: false" for name in titles)]
    rows = []
    for group in dict.fromkeys(name for one in groups for name in one):
        counts = [one.get(group, {}) for one in groups]
        true = max(_count_of(row, "true_boxes") for row in counts)
        found: list[str] = []
        false: list[str] = []
        for row in counts:
            found.append(percent(_count_of(row, "found") / true if true else -1))
            false.append(count(sum(_count_of(row, kind) for kind in FALSE_KINDS)))
        rows.append([group, count(true), *found, *false])
    return text_table(heads, rows, title=title)


def _count_of(row: JsonRecord, key: str) -> float:
    """A count of a row, 0 where there is none."""
    return number(row.get(key)) or 0


def _benchmark(name: str, record: JsonRecord) -> BenchmarkView:
    sets: Mapping[str, JsonRecord] = record["results"]
    metrics = list(dict.fromkeys(key for result in sets.values() for key in result["metrics"]))
    rows = [[Cell(part), *(_metric_cell(result, key) for key in metrics)] for part, result in sets.items()]
    means = {
        "mean": record.get("mean"),
        f"mean of sets of {record.get('small_set')} images or more": record.get("mean_without_small"),
    }
    for title, mean in means.items():
        if mean:
            rows.append([Cell(title), *(Cell(percent(mean.get(key))) for key in metrics)])

    notes = [f"{part} is missing." for part in record.get("missing", ())]
    notes += [f"{note}." for note in record.get("notes", ())]
    lines = dict.fromkeys(map(protocol_line, sets.values()))
    title = f"{name}: {record.get('model', '')} on {record.get('data', '')}"
    return BenchmarkView(title, Table(["", *metrics], rows), notes, list(lines))
