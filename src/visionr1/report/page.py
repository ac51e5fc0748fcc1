"""One HTML page about a run, from the files of its folder; nothing in it is loaded from elsewhere.

It reads `recipe.toml`, `versions.json`, `metrics.jsonl`, `evaluations.jsonl`, `rollouts.jsonl` and `evaluation/`, and
shows what is there: a run that was never evaluated has its curves, a model only evaluated its table.
All text that comes from files is escaped.
"""

import json
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from importlib.resources import files
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from visionr1.data import data_path, read_dataset
from visionr1.dialects import get_dialect
from visionr1.errors import DataError
from visionr1.evaluation import Protocol
from visionr1.evaluation.detection.box_errors import FALSE_KINDS, MEANINGS
from visionr1.files import read_json, read_json_lines, read_log, read_text, write_text_atomic
from visionr1.report.charts import Series, line_chart
from visionr1.report.gallery import Shown, check, color_of, legend, side_by_side
from visionr1.rewards.hacking import WINDOW, signs
from visionr1.samples import Boxes, Sample

Row = dict[str, Any]

NUM_IMAGES = 6
NUM_WORST = 4
NUM_ROLLOUT_STEPS = 3
SHOWN_AT_ZERO = {"unparsable", "truncated", "unknown_labels"}
"""Counts that say something where they are 0; the others are left out."""
NAMES = {"base": "Base", "sft": "SFT", "trained": "Vision-R1"}


@dataclass(frozen=True, slots=True)
class Chart:
    """One chart: metric keys with their names, and the least that the y axis spans."""

    title: str
    lines: Mapping[str, str]
    y_range: tuple[float, float] | None = (0.0, 0.0)
    smoothed: bool = True


CHARTS = (
    Chart("Total reward", {"reward/total": "total"}, None),
    Chart(
        "Reward parts",
        {"reward/format": "format", "reward/recall": "recall", "reward/precision": "precision"},
        (0.0, 1.0),
    ),
    Chart("KL to the reference model, nats a token", {"kl": "KL"}),
    Chart("Boxes of a completion", {"boxes_per_completion": "predicted", "true_boxes": "true"}),
    Chart("Tokens of a completion", {"completion_length": "tokens"}),
    Chart(
        "Shares",
        {"truncated_share": "completions cut off", "groups_without_spread": "groups without spread"},
        (0.0, 0.1),
    ),
    Chart(
        "Signs of reward hacking, shares",
        {
            "watch/duplicates": "boxes that repeat another",
            "watch/whole_image": "boxes around the whole image",
            "watch/format_errors": "completions with a format error",
        },
        (0.0, 0.1),
    ),
    Chart("Label accuracy of valid pairs", {"label_accuracy": "label accuracy"}, (0.5, 1.0)),
    Chart("Loss", {"loss": "loss"}, None),
    Chart("Gradient norm before clipping", {"grad_norm": "gradient norm"}),
    Chart("Learning rate", {"learning_rate": "learning rate"}, smoothed=False),
    Chart(
        "Seconds of a step",
        {
            "seconds/rollout": "rollout",
            "seconds/update": "update",
            "seconds/preprocess": "preprocessing",
            "seconds/reward": "reward",
        },
    ),
)
"""A chart of which a run has no data is left out."""
VALIDATION_CHARTS = (
    Chart("AP x 100", {"AP": "AP", "AP strict": "AP strict"}, None, smoothed=False),
    Chart("AP50 and AP75 x 100", {"AP50": "AP50", "AP75": "AP75"}, None, smoothed=False),
    Chart(
        "Precision, recall and F1 x 100",
        {"precision": "precision", "recall": "recall", "F1": "F1"},
        None,
        smoothed=False,
    ),
    Chart("Replies x 100", {"well_formed": "well formed", "truncated": "cut off"}, (0.0, 100.0), smoothed=False),
)


@dataclass(frozen=True, slots=True)
class Evaluation:
    """`evaluation/NAME.json`, and the replies it was computed from by image id (one, or one for each category)."""

    name: str
    record: Row
    predictions: Mapping[str, Sequence[Row]]


@dataclass(frozen=True, slots=True)
class Run:
    """What the files of a run say."""

    folder: Path
    recipe: str
    versions: Row
    metrics: Sequence[Row]
    validations: Sequence[Row]
    """Evaluations during training."""
    rollouts: Sequence[Row]
    evaluations: Sequence[Evaluation]
    gain: Row
    unfinished: Sequence[str]
    """Names of logs whose last row is cut off: the run was killed while it wrote them."""


def write_report(run_dir: Path, out: Path) -> Path:
    """Write the page about the run in `run_dir` to `out`, and return `out`.

    Raises DataError if `run_dir` holds neither metrics nor an evaluation, or a file cannot be read.
    """
    write_text_atomic(out, page(read_run(run_dir)))
    return out


def read_run(folder: Path) -> Run:
    """The files of a run; those it does not have are empty."""
    stated = folder / "recipe.toml"
    unfinished: list[str] = []

    def log(name: str) -> list[Row]:
        rows, cut_off = read_log(folder / name) if (folder / name).is_file() else ([], False)
        unfinished.extend([name] * cut_off)
        return rows

    recipe = read_text(stated) if stated.is_file() else ""
    run = Run(
        folder=folder,
        recipe=recipe,
        versions=_record(folder / "versions.json"),
        metrics=log("metrics.jsonl"),
        validations=log("evaluations.jsonl"),
        rollouts=log("rollouts.jsonl"),
        evaluations=_read_evaluations(folder / "evaluation", _initial_model(recipe)),
        gain=_record(folder / "results.json").get("gain", {}),
        unfinished=unfinished,
    )
    if not run.metrics and not run.evaluations:
        raise DataError(f"{folder} is no run: it has neither metrics.jsonl nor evaluation/*.json")
    return run


def page(run: Run) -> str:
    """The whole page."""
    style = files("visionr1.report").joinpath("report.css").read_text(encoding="utf-8")
    sections = (_header, _results, _errors, _gallery, _worst, _validation, _curves, _watch, _rollouts, _recipe)
    body = "\n".join(part for part in (section(run) for section in sections) if part)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(_title(run))}</title>\n<style>\n{style}</style>\n</head>\n"
        f"<body>\n<main>\n{body}\n</main>\n</body>\n</html>\n"
    )


def _title(run: Run) -> str:
    recipe = tomllib.loads(run.recipe)
    method = {"grpo": "Vision-R1", "sft": "SFT"}.get(recipe.get("method", ""), "Evaluation")
    sources = [data["source"] for phase in recipe.get("phase", []) for data in phase.get("data", [])]
    on = " and ".join(dict.fromkeys(sources)) or next((e.record["data"] for e in run.evaluations), "")
    model = _initial_model(run.recipe) or next((e.record["model"] for e in run.evaluations), "")
    return f"{method} on {on}, starting from {model}" if run.recipe else f"{model} on {on}"


def _header(run: Run) -> str:
    facts = [f"{run.folder.resolve().name}"]
    if run.metrics:
        seconds = sum(value for row in run.metrics for key, value in row.items() if key.startswith("seconds/"))
        facts += [f"{run.metrics[-1]['step']:,} steps", f"{seconds / 60:.1f} minutes of training"]
    if run.versions:
        facts.append(str(run.versions.get("cuda") or f"{run.versions.get('cpus')} CPU cores"))
    facts += [f"the last row of {name} is unfinished and left out" for name in run.unfinished]
    return f'<p class="eyebrow">{escape(" · ".join(facts))}</p>\n<h1>{escape(_title(run))}</h1>\n{_headline(run)}'


def _headline(run: Run) -> str:
    if not run.evaluations:
        return ""
    first = run.evaluations[0].record
    alike = [evaluation.record for evaluation in run.evaluations[1:] if not _mark(evaluation.record, first)]
    last = alike[-1] if alike else run.evaluations[-1].record
    value = f"AP {_percent(last['metrics']['AP'])}"
    if alike:
        value = f'AP <span class="from">{_percent(first["metrics"]["AP"])} →</span> {_percent(last["metrics"]["AP"])}'
    gain = run.gain.get("AP")
    said = ""
    if gain:
        low, high = gain["interval"]
        sign = "up" if low > 0 else "down" if high < 0 else "soft"
        said = (
            f'<div class="gain"><strong class="{sign}">{_signed(gain["difference"])}</strong> '
            f'<span class="soft">95% interval {_signed(low)} to {_signed(high)}, paired over images</span></div>'
        )
    asked = f"{last['data']}, {last['split']}, {last['counts']['images']} images"
    return (
        f'<div class="headline"><div class="value">{value}</div>{said}</div>\n'
        f'<p class="soft">COCO AP x 100 on {escape(asked)}; {escape(_protocol(last).line())}.</p>'
    )


def _results(run: Run) -> str:
    if not run.evaluations:
        return ""
    records = [e.record for e in run.evaluations]
    marks = "".join(_mark(record, records[0]) for record in records)
    names = [_marked(e, run) for e in run.evaluations]
    compared = len(records) > 1 and not _mark(records[-1], records[0])
    heads = ["", *names]
    rows = [
        [escape(key), *(_metric_cell(record, key) for record in records), *_gain_cell(run.gain, key)]
        for key in dict.fromkeys(key for record in records for key in record["metrics"])
    ]
    categories = [
        [escape(name), *_before_after([r["per_category"].get(name, {}).get("AP", -1) for r in records], compared)]
        for name in dict.fromkeys(name for record in records for name in record["per_category"])
    ]
    change = ["change"] if compared else []
    counted = [*_counts(records, "counts"), *_counts(records, "faults")]
    return (
        f"<h2>Result</h2>\n{_table([*heads, *(['change'] if run.gain else [])], rows, 'main')}"
        '<p class="caption">All x 100; in brackets the 95% bootstrap interval over images, '
        "of a change over the same images for both."
        f"{' * Under another protocol than the first: not comparable.' if '*' in marks else ''}"
        f"{' + On other data than the first: not comparable.' if '+' in marks else ''}</p>"
        '<div class="grid2">'
        f"<div><h3>AP of each category</h3>{_table([*heads, *change], categories)}</div>"
        f"<div><h3>Replies and boxes</h3>{_table(heads, counted)}</div>"
        f"</div>{_protocols(names, records)}"
    )


def _mark(record: Row, first: Row) -> str:
    """What stands at a result that is not to be compared with the first."""
    other_data = (record["data"], record["split"]) != (first["data"], first["split"])
    return f"{' *' if _protocol(record) != _protocol(first) else ''}{' +' if other_data else ''}"


def _marked(evaluation: Evaluation, run: Run) -> str:
    return NAMES.get(evaluation.name, evaluation.name) + _mark(evaluation.record, run.evaluations[0].record)


def _before_after(values: Sequence[float], compared: bool) -> list[str]:
    """Shares x 100, and the last minus the first if these may be `compared`."""
    cells = [_percent(value) for value in values]
    if not compared:
        return cells
    return [*cells, _signed(values[-1] - values[0]) if min(values[0], values[-1]) >= 0 else "n/a"]


def _errors(run: Run) -> str:
    """Errors of boxes by kind, size, crowding and category, of each evaluation."""
    shown = [(_marked(e, run), e.record["errors"]) for e in run.evaluations if e.record.get("errors")]
    if not shown:
        return ""
    names, errors = [name for name, _ in shown], [found for _, found in shown]
    whole = [found["all"] for found in errors]
    kinds = [
        [escape(_words(kind)), *(f"{row.get(kind, 0):,}" for row in whole), f'<span class="soft">{meaning}</span>']
        for kind, meaning in MEANINGS.items()
    ]
    groups = "".join(
        f"<div><h3>{title}</h3>{_table(*_error_rows(names, [found[key] for found in errors]))}</div>"
        for key, title in (("by_category", "By category"), ("by_size", "By size"), ("by_crowding", "By crowding"))
    )
    return (
        f"<h2>What is wrong with the boxes</h2>\n{_table(['', *names, ''], kinds, 'errors')}"
        '<p class="caption">A false box is of the first kind that fits, from duplicate down, at the IoU of precision '
        "and recall. Found: share of the true boxes, x 100. Size is COCO's: of a true box by its area in the file, of "
        "a false one by its own.</p>"
        f'<div class="grid2">{groups}</div>'
    )


def _error_rows(names: Sequence[str], errors: Sequence[Row]) -> tuple[list[str], list[list[str]]]:
    """Heads and rows of one grouping: true boxes, and of each evaluation the share found and the false boxes."""
    heads = ["", "true", *(f"{name}: {what}" for what in ("found", "false") for name in names)]
    rows = []
    for group in dict.fromkeys(group for found in errors for group in found):
        own = [found.get(group, {}) for found in errors]
        true = max(row.get("true_boxes", 0) for row in own)
        shares = [_percent(row.get("found", 0) / true if true else -1) for row in own]
        false = [f"{sum(row.get(kind, 0) for kind in FALSE_KINDS):,}" for row in own]
        rows.append([escape(group), f"{true:,}", *shares, *false])
    return heads, rows


def _counts(records: Sequence[Row], group: str) -> list[list[str]]:
    prefix = "fault: " if group == "faults" else ""
    found = {key for record in records for key, count in record[group].items() if count} | SHOWN_AT_ZERO
    keys = dict.fromkeys(key for record in records for key in record[group] if key in found)
    return [[escape(prefix + _words(key)), *(f"{record[group].get(key, 0):,}" for record in records)] for key in keys]


def _protocols(names: Sequence[str], records: Sequence[Row]) -> str:
    """Once where it is the same for all."""
    stated = {
        _protocol(record): f"<h3>{escape(name)}</h3>{_definition(record['protocol'])}"
        for name, record in zip(names, records, strict=True)
    }
    text = "".join(stated.values()) if len(stated) > 1 else _definition(records[0]["protocol"])
    return f"<details><summary>The protocol: everything that these numbers depend on</summary>{text}</details>"


def _protocol(record: Row) -> Protocol:
    return Protocol.from_json(record["protocol"])


def _metric_cell(record: Row, key: str) -> str:
    if key not in record["metrics"]:  # AR has the protocol's number of boxes in its name
        return ""
    interval = record["interval"].get(key)
    around = f' <span class="soft">({_percent(interval[0])} to {_percent(interval[1])})</span>' if interval else ""
    return _percent(record["metrics"][key]) + around


def _gain_cell(gain: Row, key: str) -> list[str]:
    if not gain:
        return []
    if key not in gain:
        return [""]
    low, high = gain[key]["interval"]
    return [f'{_signed(gain[key]["difference"])} <span class="soft">({_signed(low)} to {_signed(high)})</span>']


def _gallery(run: Run) -> str:
    samples = _shown_samples(run)
    if not samples:
        return ""
    shown = _evenly_spaced(samples)
    return (
        "<h2>Boxes on test images</h2>\n"
        f"<p>{len(shown)} of {len(samples)} images, evenly spaced in the order of the file; "
        "none was picked by its result.</p>"
        f"{legend(samples[0].query.categories)}{_drawn(run, shown, 'image')}"
    )


def _evenly_spaced(samples: Sequence[Sample]) -> Sequence[Sample]:
    return samples[:: max(1, len(samples) // NUM_IMAGES)][:NUM_IMAGES]


def _worst(run: Run) -> str:
    """The images with the most errors in the last evaluation; of those drawn above, the names."""
    samples = _shown_samples(run)
    found = run.evaluations[-1].record.get("errors", {}).get("worst_images", []) if samples else []
    by_id = {str(sample.image_id): sample for sample in samples}
    shown = [by_id[str(row["image_id"])] for row in found if str(row["image_id"]) in by_id][:NUM_WORST]
    if not shown:
        return ""
    name = NAMES.get(run.evaluations[-1].name, run.evaluations[-1].name)
    above = [sample for sample in shown if sample in _evenly_spaced(samples)]
    new = [sample for sample in shown if sample not in above]
    drawn_above = f" Drawn above already: {escape(', '.join(sample.id for sample in above))}." if above else ""
    return (
        f"<h2>Worst cases</h2>\n<p>The images with the most errors of {escape(name)}, false boxes and objects not "
        f"found together. Point at a box to see its kind.{drawn_above}</p>"
        f"{legend(new[0].query.categories) + _drawn(run, new, 'worst') if new else ''}"
    )


def _shown_samples(run: Run) -> Sequence[Sample]:
    """The samples of the last evaluation, if there are replies to draw."""
    if not run.evaluations or not run.evaluations[-1].predictions:
        return ()
    record = run.evaluations[-1].record
    how: dict[str, Any] = {"split": record["split"] or None, "on_bad": record.get("on_bad", "raise")}
    return read_dataset(data_path(record["data"]), **how).samples


def _drawn(run: Run, samples: Sequence[Sample], key: str) -> str:
    colors, last = color_of(samples[0].query.categories), run.evaluations[-1].record
    shown = [e for e in run.evaluations if e.predictions and "+" not in _mark(e.record, last)]
    return "".join(
        side_by_side(sample, _panels(sample, shown), colors, f"{key}{i}") for i, sample in enumerate(samples)
    )


def _panels(sample: Sample, evaluations: Iterable[Evaluation]) -> list[Shown]:
    panels = [Shown("Truth", sample.truth)]
    for evaluation in evaluations:
        dialect = get_dialect(evaluation.record["protocol"]["dialect"])
        replies = [
            dialect.parse(said["text"], size_wh=sample.size_wh, input_size_wh=tuple(said["input_size_wh"]))
            for said in evaluation.predictions.get(str(sample.image_id), ())
        ]
        boxes = Boxes(
            np.concatenate([np.zeros((0, 4)), *(reply.boxes.xyxy for reply in replies)]),
            tuple(label for reply in replies for label in reply.boxes.labels),
        )
        panels.append(check(NAMES.get(evaluation.name, evaluation.name), boxes, sample.truth))
    return panels


def _curves(run: Run) -> str:
    if not run.metrics:
        return ""
    marks = _stage_changes(run.metrics)
    stages = "<p>The dotted line is where the thresholds of the reward rise to the next stage.</p>" if marks else ""
    return (
        "<h2>Training</h2>\n<p>Bold: a moving average over a tenth of the run. Faint: each step.</p>"
        f"{stages}{_drawn_charts(CHARTS, run.metrics, marks)}"
    )


def _validation(run: Run) -> str:
    """Evaluation during training, and which of its models is in best/."""
    if not run.validations:
        return ""
    metric = tomllib.loads(run.recipe).get("eval", {}).get("metric", "AP")
    best, last = max(run.validations, key=lambda row: row[metric]), run.validations[-1]
    kept = "; that model is in <code>best/</code>" if (run.folder / "best").is_dir() else ""
    asked = f"{last['source']}, {last['split']}, {last['images']} images; {_protocol(last).line()}"
    rows = []
    for row in run.validations:
        shares = row | {key: row["counts"][key] / row["counts"]["replies"] for key in ("well_formed", "truncated")}
        keys = [key for chart in VALIDATION_CHARTS for key in chart.lines if key in shares]
        rows.append({"step": row["step"]} | {key: 100 * shares[key] for key in keys})
    return (
        f"<h2>Evaluation during training</h2>\n<p>The dotted line is the best {escape(metric)}: "
        f"{_percent(best[metric])} at step {best['step']:,}{kept}.</p>"
        f'{_drawn_charts(VALIDATION_CHARTS, rows, [best["step"]])}<p class="caption">On {escape(asked)}.</p>'
    )


def _drawn_charts(charts: Iterable[Chart], rows: Sequence[Row], marks: Sequence[float]) -> str:
    """Those of the charts that `rows` have data for."""
    drawn = []
    for chart in charts:
        series = [line for key, name in chart.lines.items() if (line := _series(rows, key, name)).x]
        if series:
            drawn.append(line_chart(chart.title, series, y_range=chart.y_range, marks=marks, smoothed=chart.smoothed))
    return f'<div class="grid2">{"".join(drawn)}</div>'


def _watch(run: Run) -> str:
    """Signs of reward hacking."""
    found = signs(run.metrics)
    if not found:
        return ""
    raised = [sign for sign in found if sign.raised]
    verdict = (
        f"{len(raised)} of {len(found)} signs at the end of the run" if raised else "No sign at the end of the run"
    )
    rows = [
        [
            escape(sign.meaning),
            f"{sign.value:.3g}",
            f"above {sign.threshold:.3g}",
            f"{sign.worst:.3g}",
            f"step {sign.steps[0]:,}" if sign.steps else "never",
            '<strong class="down">yes</strong>' if sign.raised else "no",
        ]
        for sign in found
    ]
    return (
        f"<h2>Reward hacking watch</h2>\n<p>{verdict}. Values are of {WINDOW} consecutive steps; "
        "a sign is a reason to read what the model wrote, not a proof.</p>"
        + _table(["", "last steps", "sign if", "worst", "first seen", "now"], rows)
    )


def _series(rows: Sequence[Row], key: str, name: str) -> Series:
    points = [(row["step"], row[key]) for row in rows if row.get(key) is not None]
    return Series(name, [x for x, _ in points], [y for _, y in points])


def _stage_changes(rows: Sequence[Row]) -> list[float]:
    return [after["step"] for before, after in pairwise(rows) if before.get("stage") != after.get("stage")]


def _rollouts(run: Run) -> str:
    """The best and the worst completion of one group, early, in the middle and late."""
    if not run.rollouts:
        return ""
    steps = sorted({row["step"] for row in run.rollouts})
    chosen = [steps[i * (len(steps) - 1) // (NUM_ROLLOUT_STEPS - 1)] for i in range(NUM_ROLLOUT_STEPS)]
    parts = []
    for step in dict.fromkeys(chosen):
        rows = [row for row in run.rollouts if row["step"] == step]
        group = sorted((row for row in rows if row["sample_id"] == rows[0]["sample_id"]), key=lambda row: row["total"])
        title = f"Step {step}, sample {rows[0]['sample_id']}, {len(group)} completions"
        pair = _rollout("Best", group[-1]) + _rollout("Worst", group[0])
        parts.append(f'<h3>{escape(title)}</h3><div class="grid2 pair">{pair}</div>')
    return (
        "<h2>What the model wrote</h2>\n<p>The first group of a step; its best and its worst completion by reward. "
        f"All are in <code>rollouts.jsonl</code>.</p>{''.join(parts)}"
    )


def _rollout(which: str, row: Row) -> str:
    parts = ", ".join(f"{name} {row[name]:.2f}" for name in ("format", "recall", "precision", "count") if name in row)
    cut = ", cut off" if row["truncated"] else ""
    return (
        f'<div class="rollout"><p><strong>{which}: {row["total"]:.2f}</strong> ({parts}); '
        f"advantage {row['advantage']:+.2f}; {row['num_tokens']} tokens{cut}</p>"
        f"<pre>{escape(row['text'])}</pre></div>"
    )


def _recipe(run: Run) -> str:
    parts = ["<h2>To do it again</h2>"]
    if command := run.versions.get("command"):
        parts.append(f"<pre>{escape(command)}</pre>")
    if run.recipe:
        stated = f"<pre>{escape(run.recipe)}</pre>"
        parts.append(f"<details><summary>The recipe, every value stated</summary>{stated}</details>")
    if run.versions:
        parts.append(f"<details><summary>Versions and machine</summary>{_definition(run.versions)}</details>")
    return "\n".join(parts)


def _definition(record: Row) -> str:
    texts = {key: value if isinstance(value, str) else json.dumps(value) for key, value in record.items()}
    return _table([], [[escape(_words(key)), escape(text)] for key, text in texts.items()], "plain")


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]], kind: str = "") -> str:
    """A table of cells that are HTML already; the first of each row is its header."""
    head = "".join(f'<th scope="col">{escape(text)}</th>' for text in heads)
    body = "".join(
        f'<tr><th scope="row">{first}</th>{"".join(f"<td>{cell}</td>" for cell in cells)}</tr>'
        for first, *cells in rows
    )
    thead = f"<thead><tr>{head}</tr></thead>" if heads else ""
    return f'<div class="scroll"><table class="{kind}">{thead}<tbody>{body}</tbody></table></div>'


def _words(key: str) -> str:
    return key.replace("_", " ")


def _percent(value: float) -> str:
    """A share x 100; COCO writes -1 where there is nothing to measure."""
    return f"{100 * value:.1f}" if value >= 0 else "n/a"


def _signed(value: float) -> str:
    return f"{100 * value:+.1f}".replace("-", "\N{MINUS SIGN}")


def _initial_model(recipe: str) -> str:
    path: str = tomllib.loads(recipe).get("model", {}).get("path", "")
    return path


def _record(path: Path) -> Row:
    return read_json(path) if path.is_file() else {}


def _rows(path: Path) -> list[Row]:
    return read_json_lines(path) if path.is_file() else []


def _by_image(rows: Sequence[Row]) -> dict[str, list[Row]]:
    found: dict[str, list[Row]] = {}
    for row in rows:
        if "replies_of" not in row:
            found.setdefault(str(row["image_id"]), []).append(row)
    return found


def _read_evaluations(folder: Path, initial: str) -> list[Evaluation]:
    """That of the model which training started from (`initial`) first, the others by name."""
    found = [
        Evaluation(
            path.stem,
            read_json(path),
            _by_image(_rows(path.with_suffix(".predictions.jsonl"))),
        )
        for path in sorted(folder.glob("*.json"), key=lambda path: path.stem)
    ]
    return sorted(found, key=lambda evaluation: evaluation.record["model"] != initial)
