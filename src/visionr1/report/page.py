"""One HTML page about a run, from the files of its folder; nothing in it is loaded from elsewhere, and nothing runs.

`record` reads the files, `results`, `image_views` and `training` prepare what is shown, and `templates/` is the page.
All text goes through the templates' autoescape. A section of which the run has no data is left out.
"""

from collections.abc import Sequence
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from visionr1.files import write_text_atomic
from visionr1.report import charts
from visionr1.report.formats import signed
from visionr1.report.image_views import draw_galleries
from visionr1.report.record import JsonRecord, RunRecord, read_run
from visionr1.report.results import (
    make_benchmarks,
    make_definition_table,
    make_errors,
    make_headline,
    make_results,
    make_vqa_tables,
)
from visionr1.report.training import choose_rollouts, draw_curves, draw_validation, make_watch

METHODS = {"grpo": "Vision-R1", "sft": "SFT"}


def write_report(run_dir: Path, out: Path) -> Path:
    """Write the page about the run in `run_dir` to `out`, and return `out`.

    Raises DataError if `run_dir` holds neither metrics nor a result, or a file cannot be read.
    """
    write_text_atomic(out, render_page(read_run(run_dir)))
    return out


def render_page(run: RunRecord) -> str:
    """Render the whole page."""
    # Whatever a run has no data of is None or empty here, and the template leaves it out.
    galleries = draw_galleries(run)
    versions = make_definition_table(run.versions) if run.versions else None
    return (
        load_templates()
        .get_template("page.html")
        .render(
            title=make_title(run),
            facts=list_facts(run),
            headline=make_headline(run),
            results=make_results(run),
            errors=make_errors(run),
            benchmarks=make_benchmarks(run),
            vqa=make_vqa_tables(run),
            gallery=galleries.gallery,
            worst=galleries.worst,
            missing_images=galleries.missing,
            validation=draw_validation(run),
            curves=draw_curves(run),
            watch=make_watch(run),
            rollouts=choose_rollouts(run),
            command=run.versions.get("command"),
            recipe=run.recipe_text,
            versions=versions,
        )
    )


def load_templates() -> Environment:
    """Load the templates of this room, in which every value is escaped, whatever its type."""
    environment = Environment(
        loader=PackageLoader("visionr1.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )

    # For what templates compute themselves: the frame of a chart, and the sign of a change.
    environment.filters["signed"] = signed
    environment.globals["frame"] = charts
    return environment


def make_title(run: RunRecord) -> str:
    """Say what was trained or measured, on what data, and from which model on."""
    # A folder without a recipe is named after its first result.
    evaluations = [evaluation.record for evaluation in run.evaluations]
    records = [*evaluations, *run.benchmarks.values(), *run.vqa.values()]
    first_record = next(iter(records), {})

    sources = []
    for phase in run.recipe.get("phase", ()):
        for data in phase.get("data", ()):
            sources.append(str(data.get("source", "")))
    data = " and ".join(dict.fromkeys(sources)) or str(first_record.get("data", ""))
    model = run.initial_model or str(first_record.get("model", ""))

    if not run.recipe_text:
        return f"{model} on {data}"
    method = METHODS.get(str(run.recipe.get("method", "")), "Evaluation")
    return f"{method} on {data}, starting from {model}"


def list_facts(run: RunRecord) -> list[str]:
    """List the small facts above the title: folder, length of training, machine, logs that were cut off."""
    listed = [run.folder.resolve().name]
    if run.metrics:
        listed.append(f"{run.metrics[-1]['step']:,} steps")
        listed.append(f"{_sum_training_seconds(run.metrics) / 60:.1f} minutes of training")
    if run.versions:
        machine = run.versions.get("cuda") or f"{run.versions.get('cpus')} CPU cores"
        listed.append(str(machine))
    for name in run.unfinished:
        listed.append(f"the last row of {name} is unfinished and left out")
    return listed


def _sum_training_seconds(rows: Sequence[JsonRecord]) -> float:
    """Add up the seconds of all parts of all steps."""
    seconds = 0.0
    for row in rows:
        for key, value in row.items():
            if key.startswith("seconds/") and value is not None:
                seconds += value
    return seconds
