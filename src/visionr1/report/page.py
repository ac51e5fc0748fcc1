"""One HTML page about a run, from the files of its folder; nothing in it is loaded from elsewhere, and nothing runs.

`record` reads the files, `results`, `image_views` and `training` prepare what is shown, and `templates/` is the page.
All text goes through the templates' autoescape. A section of which the run has no data is left out.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from visionr1.files import write_text_atomic
from visionr1.report import charts
from visionr1.report.formats import signed
from visionr1.report.image_views import galleries
from visionr1.report.record import RunRecord, read_run
from visionr1.report.results import benchmarks, definition_table, errors, headline, results, vqa_tables
from visionr1.report.training import curves, rollouts, validation, watch

METHODS = {"grpo": "Vision-R1", "sft": "SFT"}


def write_report(run_dir: Path, out: Path) -> Path:
    """Write the page about the run in `run_dir` to `out`, and return `out`.

    Raises DataError if `run_dir` holds neither metrics nor a result, or a file cannot be read.
    """
    write_text_atomic(out, page(read_run(run_dir)))
    return out


def page(run: RunRecord) -> str:
    """Render the whole page."""
    gallery, worst = galleries(run)
    return (
        templates()
        .get_template("page.html")
        .render(
            title=title(run),
            facts=facts(run),
            headline=headline(run),
            results=results(run),
            errors=errors(run),
            benchmarks=benchmarks(run),
            vqa=vqa_tables(run),
            gallery=gallery,
            worst=worst,
            validation=validation(run),
            curves=curves(run),
            watch=watch(run),
            rollouts=rollouts(run),
            command=run.versions.get("command"),
            recipe=run.recipe_text,
            versions=definition_table(run.versions) if run.versions else None,
        )
    )


def templates() -> Environment:
    """Load the templates of this room, in which every value is escaped, whatever its type."""
    environment = Environment(
        loader=PackageLoader("visionr1.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["signed"] = signed
    environment.globals["frame"] = charts
    return environment


def title(run: RunRecord) -> str:
    """Say what was trained or measured, on what data, and from which model on."""
    results = [evaluation.record for evaluation in run.evaluations] + [*run.benchmarks.values(), *run.vqa.values()]
    first: Mapping[str, Any] = results[0] if results else {}
    sources = [data["source"] for phase in run.recipe.get("phase", ()) for data in phase.get("data", ())]
    data = " and ".join(dict.fromkeys(sources)) or str(first.get("data", ""))
    model = run.initial_model or str(first.get("model", ""))
    if not run.recipe_text:
        return f"{model} on {data}"
    method = METHODS.get(run.recipe.get("method", ""), "Evaluation")
    return f"{method} on {data}, starting from {model}"


def facts(run: RunRecord) -> list[str]:
    """List the small facts above the title: folder, length of training, machine, logs that were cut off."""
    listed = [run.folder.resolve().name]
    if run.metrics:
        seconds = 0.0
        for row in run.metrics:
            seconds += sum(value for key, value in row.items() if key.startswith("seconds/") and value is not None)
        listed += [f"{run.metrics[-1]['step']:,} steps", f"{seconds / 60:.1f} minutes of training"]
    if run.versions:
        listed.append(str(run.versions.get("cuda") or f"{run.versions.get('cpus')} CPU cores"))
    listed += [f"the last row of {name} is unfinished and left out" for name in run.unfinished]
    return listed
