"""Results as a plain text table with the protocol under it."""

from __future__ import annotations

from collections.abc import Mapping

from visionr1.evaluation.benchmarks.suite import Result, aligned, boxes_an_image, cell, footer

_COUNTS = (
    "replies well_formed unparsable truncated unknown_labels malformed_boxes images_without_reply "
    "prompts_answered_again unknown_categories boxes_beyond_image"
).split()


def format_results(results: Mapping[str, Result]) -> str:
    """One column per result, x 100, with intervals; results under another protocol than the first are marked with *."""
    names = list(results)
    first = results[names[0]].protocol
    marked = {name: f"{name} *" if results[name].protocol != first else name for name in names}
    keys = dict.fromkeys(key for result in results.values() for key in result.metrics)
    rows = [["", *(marked[name] for name in names)]]
    rows += [[key, *(cell(results[name], key) for name in names)] for key in keys]
    rows.append(["boxes an image / true", *(boxes_an_image(results[name]) for name in names)])
    if any(_asked_fewer(result) for result in results.values()):
        rows.append(["categories asked, of all", *(_asked(results[name]) for name in names)])
    counts = [key for key in _COUNTS if any(result.counts.get(key) for result in results.values())]
    rows += [[key.replace("_", " "), *(str(results[name].counts.get(key, "")) for name in names)] for key in counts]
    kinds = dict.fromkeys(kind for result in results.values() for kind in result.faults)
    rows += [
        [f"fault: {kind.replace('_', ' ')}", *(str(results[name].faults.get(kind, 0)) for name in names)]
        for kind in kinds
    ]
    return "\n".join(aligned(rows) + footer(results))


def _asked_fewer(result: Result) -> bool:
    return result.counts.get("categories_asked", 0) < result.counts.get("categories_times_images", 0)


def _asked(result: Result) -> str:
    """How often a category was asked for, of all occasions to find one that is not there."""
    if "categories_asked" not in result.counts:
        return ""
    return f"{result.counts['categories_asked']} / {result.counts['categories_times_images']}"
