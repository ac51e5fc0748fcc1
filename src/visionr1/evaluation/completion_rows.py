"""Completions with their truth, such as a run's rollouts.jsonl, as predictions: each completion is an image of its own.

A run samples several completions of one prompt, so that one image has as many replies. Each is scored as if it were the
only one, of an image that stands as often in the set; precision, recall and AP are then means over completions too.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from visionr1.completions import CompletionRow, check_box_order, completion_from_fields
from visionr1.data.table import BoxTable
from visionr1.errors import DataError, naming
from visionr1.evaluation.predictions import JsonRows, Prediction
from visionr1.evaluation.units import Unit
from visionr1.samples import Query, Sample

RULE = "every completion counts as an image"
"""The words of the protocol about such a result."""


def hold_completions(files: Iterable[JsonRows]) -> bool:
    """Say whether the rows of files carry their truth."""
    return any(rows and "text" in rows[0] and "boxes" in rows[0] for rows in files)


def read_completion_rows(files: Mapping[Path, JsonRows]) -> list[CompletionRow]:
    """Read the rows of all files; DataError names the row."""
    completions = []
    for path, rows in files.items():
        for index, row in enumerate(rows):
            with naming(f"{path}: row {index}"):
                completion = completion_from_fields(row)
                check_box_order(completion.truth.boxes)
                completions.append(completion)
    return completions


def completions_unit(unit: Unit, completions: Sequence[CompletionRow]) -> tuple[Unit, list[Prediction]]:
    """Return a unit with an image for each completion, and the completions as its predictions.

    The truth is that of the unit's annotations, with crowd regions and areas, or where it has none that of the rows.
    """
    samples = []
    predictions = []
    for place, completion in enumerate(completions):
        # Ids are places: an image comes once for each of its completions.
        key = str(place)
        truth = completion.truth
        query = Query("detection", _asked_categories(completion))
        sample = Sample(key, Path(), query, truth.boxes, truth.size_wh, image_id=key)
        samples.append(sample)
        prediction = Prediction(
            image_id=key,
            sample_id=key,
            text=completion.text,
            truncated=completion.truncated,
            input_size_wh=truth.input_size_wh,
            categories=query.categories,
        )
        predictions.append(prediction)

    annotations = unit.annotations
    if annotations is not None:
        annotations = _repeat_images(annotations, completions)
    return replace(unit, samples=samples, annotations=annotations), predictions


def _asked_categories(completion: CompletionRow) -> tuple[str, ...]:
    """Return the categories that were asked for; where a row does not say, those of its true boxes."""
    truth = completion.truth
    if truth.categories:
        return truth.categories
    return tuple(dict.fromkeys(truth.boxes.labels)) or ("object",)


def _repeat_images(table: BoxTable, completions: Sequence[CompletionRow]) -> BoxTable:
    """Return the table with the image of each completion, numbered as the completions are."""
    place_by_image = {image_id: place for place, image_id in enumerate(table.image_ids)}
    places = []
    for completion in completions:
        if completion.image_id not in place_by_image:
            raise DataError(
                f"a completion has image_id {completion.image_id!r}, which {table.path} does not have; "
                "name the data and split it was sampled from, or leave out --data"
            )
        places.append(place_by_image[completion.image_id])

    # New ids, for an image that stands in the table twice would have its id twice.
    return replace(table.take(places), image_ids=tuple(map(str, range(len(places)))))
