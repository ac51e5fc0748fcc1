"""Training as the page shows it: curves, evaluation during training, signs of reward hacking, what the model wrote."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from visionr1.evaluation.table import merge_names
from visionr1.report.charts import LineChart, Series, lay_out_line_chart
from visionr1.report.formats import count, fixed, number, percent
from visionr1.report.record import NUM_ROLLOUT_STEPS, JsonRecord, RunRecord, choose_first_to_last
from visionr1.report.results import format_protocol
from visionr1.report.tables import Cell, Table
from visionr1.rewards.hacking import WINDOW, signs

MAX_LINES = 5
"""Lines of one chart; `report.css` has as many colours."""


@dataclass(frozen=True, slots=True)
class ChartSpec:
    """One chart: metric keys with their names, and the least that the y axis spans."""

    title: str
    lines: Mapping[str, str]
    y_range: tuple[float, float] | None = (0.0, 0.0)
    smoothed: bool = True


TOTAL = ChartSpec("Total reward", {"reward/total": "total"}, None)
CHARTS = (
    ChartSpec("KL to the reference model, nats a token", {"kl": "KL"}),
    ChartSpec("Boxes of a completion", {"boxes_per_completion": "predicted", "true_boxes": "true"}),
    ChartSpec("Tokens of a completion", {"completion_length": "tokens"}),
    ChartSpec(
        "Shares",
        {"truncated_share": "completions cut off", "groups_without_spread": "groups without spread"},
        (0.0, 0.1),
    ),
    ChartSpec(
        "Signs of reward hacking, shares",
        {
            "watch/duplicates": "boxes that repeat another",
            "watch/whole_image": "boxes around the whole image",
            "watch/format_errors": "completions with a format error",
        },
        (0.0, 0.1),
    ),
    ChartSpec("Label accuracy of valid pairs", {"label_accuracy": "label accuracy"}, (0.5, 1.0)),
    ChartSpec("Loss", {"loss": "loss"}, None),
    ChartSpec("Gradient norm before clipping", {"grad_norm": "gradient norm"}),
    ChartSpec("Learning rate", {"learning_rate": "learning rate"}, smoothed=False),
    ChartSpec(
        "Seconds of a step",
        {
            "seconds/rollout": "rollout",
            "seconds/update": "update",
            "seconds/preprocess": "preprocessing",
            "seconds/reward": "reward",
        },
    ),
)
"""The charts of training after those of the reward. A chart of which a run has no data is left out."""
VALIDATION_CHARTS = (
    ChartSpec("AP x 100", {"AP": "AP", "AP strict": "AP strict"}, None, smoothed=False),
    ChartSpec("AP50 and AP75 x 100", {"AP50": "AP50", "AP75": "AP75"}, None, smoothed=False),
    ChartSpec(
        "Precision, recall and F1 x 100",
        {"precision": "precision", "recall": "recall", "F1": "F1"},
        None,
        smoothed=False,
    ),
    ChartSpec("Replies x 100", {"well_formed": "well formed", "truncated": "cut off"}, (0.0, 100.0), smoothed=False),
)


@dataclass(frozen=True, slots=True)
class Curves:
    """The charts of training; `has_stages` if the reward's thresholds changed while it went on."""

    charts: Sequence[LineChart]
    has_stages: bool


@dataclass(frozen=True, slots=True)
class Validation:
    """Evaluation during training: its charts, and which of its models is the best."""

    charts: Sequence[LineChart]
    metric: str
    best: str
    best_step: str
    is_kept: bool
    setting: str


@dataclass(frozen=True, slots=True)
class Watch:
    """Signs of reward hacking: how many there are at the end, and a row for each."""

    verdict: str
    window: int
    table: Table


@dataclass(frozen=True, slots=True)
class Completion:
    """One completion with its score in words."""

    title: str
    total: str
    parts: str
    facts: str
    text: str


@dataclass(frozen=True, slots=True)
class Group:
    """The best and the worst completion of a group."""

    title: str
    completions: Sequence[Completion]


def draw_curves(run: RunRecord) -> Curves | None:
    """Draw the metrics of training: the reward and each of its parts, then the charts that every run has."""
    if not run.metrics:
        return None

    # The reward is another one from the first step of a stage on, so charts have a mark there.
    stage_starts = []
    for before, after in pairwise(run.metrics):
        if before.get("stage") != after.get("stage"):
            stage_starts.append(after["step"])
    charts = draw_charts([TOTAL, *choose_reward_charts(run.metrics), *CHARTS], run.metrics, stage_starts)
    return Curves(charts, has_stages=bool(stage_starts))


def list_reward_parts(rows: Iterable[JsonRecord]) -> list[str]:
    """List the names of all parts of the reward that the metrics hold, in their order."""
    parts = []
    for key in merge_names(rows):
        if key.startswith("reward/") and key != "reward/total":
            parts.append(key.removeprefix("reward/"))
    return parts


def choose_reward_charts(rows: Sequence[JsonRecord]) -> list[ChartSpec]:
    """Choose the charts of the parts of a reward: those that stay within 0 and 1 together, every other one alone."""
    unit_scale: list[str] = []
    others: list[str] = []
    for name in list_reward_parts(rows):
        _, values = select_measured(rows, f"reward/{name}")
        if values and min(values) >= 0 and max(values) <= 1:
            unit_scale.append(name)
        else:
            others.append(name)

    # The parts that share a scale, so many to a chart as there are colours.
    charts = []
    for start in range(0, len(unit_scale), MAX_LINES):
        names = unit_scale[start : start + MAX_LINES]
        title = "Reward parts"
        if start > 0:
            title += f" {start + 1} to {start + len(names)}"
        lines = {f"reward/{name}": name for name in names}
        charts.append(ChartSpec(title, lines, (0.0, 1.0)))

    for name in others:
        charts.append(ChartSpec(f"Reward part: {name}", {f"reward/{name}": name}, None))
    return charts


def select_measured(rows: Iterable[JsonRecord], key: str) -> tuple[list[float], list[float]]:
    """Return the steps of the rows in which `key` is a number, and these numbers."""
    steps = []
    values = []
    for row in rows:
        value = number(row.get(key))
        if value is not None:
            steps.append(row["step"])
            values.append(value)
    return steps, values


def draw_validation(run: RunRecord) -> Validation | None:
    """Draw the evaluations during training, and name the best of them (the first of equal ones)."""
    if not run.validations:
        return None
    metric = str(run.recipe.get("eval", {}).get("metric", "AP"))
    # The first of equal rows, as training keeps the model of the first; a figure that is no number counts as 0.
    best = max(run.validations, key=lambda row: number(row.get(metric)) or 0.0)

    last = run.validations[-1]
    figures = [_make_validation_row(row) for row in run.validations]
    return Validation(
        charts=draw_charts(VALIDATION_CHARTS, figures, [best["step"]]),
        metric=metric,
        best=percent(best.get(metric)),
        best_step=count(best["step"]),
        is_kept=(run.folder / "best").is_dir(),
        setting=f"{last['source']}, {last['split']}, {last['images']} images; {format_protocol(last)}",
    )


def _make_validation_row(row: JsonRecord) -> JsonRecord:
    """Return the figures of an evaluation x 100, with the shares of its replies."""
    figures = {"step": row["step"]}
    for chart in VALIDATION_CHARTS:
        for key in chart.lines:
            share = number(row.get(key))
            if share is not None:
                figures[key] = 100 * share

    # Counts of replies are stored, not their shares.
    counts = row.get("counts", {})
    replies = number(counts.get("replies"))
    for key in ("well_formed", "truncated"):
        value = number(counts.get(key))
        if value is not None and replies:
            figures[key] = 100 * value / replies
    return figures


def draw_charts(
    charts: Iterable[ChartSpec], rows: Sequence[JsonRecord], marks: Sequence[float] = ()
) -> list[LineChart]:
    """Draw those of the charts that `rows` have data for."""
    drawn = []
    for chart in charts:
        lines = []
        for key, name in chart.lines.items():
            steps, values = select_measured(rows, key)
            if steps:
                lines.append(Series(name, steps, values))
        if lines:
            drawn.append(
                lay_out_line_chart(chart.title, lines, y_range=chart.y_range, marks=marks, smoothed=chart.smoothed)
            )
    return drawn


def make_watch(run: RunRecord) -> Watch | None:
    """Show the signs of reward hacking that the metrics can tell of."""
    all_signs = signs(run.metrics)
    if not all_signs:
        return None

    num_raised = 0
    rows = []
    for sign in all_signs:
        first_seen = "never"
        if sign.steps:
            first_seen = f"step {sign.steps[0]:,}"
        now = Cell("no")
        if sign.raised:
            num_raised += 1
            now = Cell("yes", tone="down")
        figures = [sign.meaning, f"{sign.value:.3g}", f"above {sign.threshold:.3g}", f"{sign.worst:.3g}", first_seen]
        rows.append([*map(Cell, figures), now])

    verdict = "No sign at the end of the run"
    if num_raised > 0:
        verdict = f"{num_raised} of {len(all_signs)} signs at the end of the run"
    table = Table(["", "last steps", "sign if", "worst", "first seen", "now"], rows)
    return Watch(verdict, min(WINDOW, len(run.metrics)), table)


def choose_rollouts(run: RunRecord) -> list[Group]:
    """Choose the first group of an early, a middle and a late step: its best and its worst completion."""
    if not run.rollouts:
        return []
    rows_of_step: dict[float, list[JsonRecord]] = {}
    for row in run.rollouts:
        rows_of_step.setdefault(row["step"], []).append(row)

    # A group is what was sampled for one prompt; of the groups of a step the first one is shown.
    parts = list_reward_parts(run.metrics)
    groups = []
    for step in choose_first_to_last(sorted(rows_of_step), NUM_ROLLOUT_STEPS):
        sample_id = rows_of_step[step][0].get("sample_id", "")
        group = [row for row in rows_of_step[step] if row.get("sample_id", "") == sample_id]
        group.sort(key=_read_total)
        title = f"Step {step}, sample {sample_id}, {len(group)} completions"
        groups.append(
            Group(title, [_make_completion("Best", group[-1], parts), _make_completion("Worst", group[0], parts)])
        )
    return groups


def _read_total(row: JsonRecord) -> float:
    """Return the reward of a completion, by which it is ranked; one without a reward is the worst."""
    total = number(row.get("total"))
    if total is None:
        return float("-inf")
    return total


def _make_completion(title: str, row: JsonRecord, parts: Sequence[str]) -> Completion:
    facts = f"advantage {fixed(row.get('advantage'), '+')}; {row.get('num_tokens')} tokens"
    if row.get("truncated"):
        facts += ", cut off"

    part_scores = []
    for name in parts:
        if name in row:
            part_scores.append(f"{name} {fixed(row[name])}")
    return Completion(
        title=title,
        total=fixed(row.get("total")),
        parts=", ".join(part_scores),
        facts=facts,
        text=str(row.get("text", "")),
    )
