"""Test images as the page shows them: evenly spaced ones, and those with the most errors."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import numpy as np

from visionr1.data import READERS, Reader, data_path, read_dataset, table_of
from visionr1.dialects import get_dialect
from visionr1.errors import DataError, RecipeError
from visionr1.evaluation.detection.replies import parse_replies
from visionr1.report.gallery import ImageRow, Prediction, compare_with_truth, make_image_row, number_colors
from visionr1.report.record import JsonRecord, RunRecord, StoredEvaluation
from visionr1.report.results import find_marks
from visionr1.samples import Boxes, Sample

NUM_IMAGES = 6
NUM_WORST = 4

Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class Gallery:
    """Images with their boxes; `num_samples` is the size of the whole set, `colors` numbers those of the categories.

    `match_iou` is the IoU from which a box is right, in words.
    """

    rows: Sequence[ImageRow]
    num_samples: int
    colors: Sequence[tuple[str, int]]
    match_iou: str


@dataclass(frozen=True, slots=True)
class Worst:
    """The images with the most errors of `name`: those that are new, and the ids of those drawn above already."""

    name: str
    gallery: Gallery | None
    drawn_above: Sequence[str]


@dataclass(frozen=True, slots=True)
class Galleries:
    """The galleries of a page; `missing` says why there are none, where there could be."""

    gallery: Gallery | None = None
    worst: Worst | None = None
    missing: str = ""


def draw_galleries(run: RunRecord) -> Galleries:
    """Draw evenly spaced images of the last evaluation, and those on which it makes the most errors.

    A run may be sent to someone who does not have its data: the page is then without images, and says why.
    """
    if not run.evaluations or not run.evaluations[-1].predictions:
        return Galleries()
    last = run.evaluations[-1]
    if not _is_readable(last):
        return Galleries()
    try:
        return _draw_galleries(run, last)
    except DataError as error:
        return Galleries(missing=f"The images of {last.record['data']} are left out: {error}")


def _draw_galleries(run: RunRecord, last: StoredEvaluation) -> Galleries:
    """Draw the galleries; DataError if the data or an image cannot be read."""
    samples = _read_asked_samples(last)
    if not samples:
        return Galleries()

    # Only evaluations on the same data have replies to these images.
    evaluations = []
    for evaluation in run.evaluations:
        is_of_same_data = "+" not in find_marks(evaluation.record, last.record)
        if evaluation.predictions and is_of_same_data and _is_readable(evaluation):
            evaluations.append(evaluation)

    shown = choose_evenly_spaced(samples, NUM_IMAGES)
    gallery = _draw(shown, samples, evaluations, "image")
    return Galleries(gallery, _draw_worst(last, samples, shown, evaluations))


def _draw_worst(
    last: StoredEvaluation, samples: Sequence[Sample], shown: Sequence[Sample], evaluations: Sequence[StoredEvaluation]
) -> Worst | None:
    """Draw the images on which `last` makes the most errors, but those that are `shown` already."""
    worst_images = last.record.get("errors", {}).get("worst_images", ())
    samples_by_id = {str(sample.image_id): sample for sample in samples}
    worst = []
    for row in worst_images:
        sample = samples_by_id.get(str(row["image_id"]))
        if sample is not None:
            worst.append(sample)
    if not worst:
        return None

    # An image that stands above already is named only.
    drawn_above = []
    new = []
    for sample in worst[:NUM_WORST]:
        if sample in shown:
            drawn_above.append(sample.id)
        else:
            new.append(sample)
    gallery = _draw(new, samples, evaluations, "worst") if new else None
    return Worst(last.title, gallery, drawn_above)


def choose_evenly_spaced(items: Sequence[Item], number: int) -> list[Item]:
    """Choose `number` of `items` at equal distances, in their order, from the first on; all if there are no more."""
    if len(items) <= number:
        return list(items)
    chosen = []
    for index in range(number):
        # Rounded half up: rounding down would choose the first six of seven.
        chosen.append(items[(2 * index * len(items) + number) // (2 * number)])
    return chosen


def _find_reader(record: JsonRecord) -> Reader | None:
    """Return the reader that a stored result names, if it does; RecipeError if it is unknown."""
    name = record.get("reader")
    if not name:
        return None
    return READERS.known(name)


def _is_readable(evaluation: StoredEvaluation) -> bool:
    """Return True if dialect and reader are known: for a stored name, no code from a user's file is imported."""
    try:
        get_dialect(evaluation.record["protocol"].get("dialect", ""))
        _find_reader(evaluation.record)
    except RecipeError:
        return False
    return True


def _read_asked_samples(evaluation: StoredEvaluation) -> list[Sample]:
    """Return the samples of an evaluation that have replies: with --limit these are not all of the set."""
    record = evaluation.record
    path = data_path(record["data"])
    dataset = read_dataset(
        path,
        split=record["split"] or None,
        on_bad=record.get("on_bad", "raise"),
        reader=_find_reader(record),
        image_dir=record.get("images"),
    )
    # Stored replies have the image's id as text, whatever it is in the annotations.
    asked = []
    for sample in dataset.samples:
        if str(sample.image_id) in evaluation.predictions:
            _check_inside(sample, path)
            asked.append(sample)
    return asked


def _check_inside(sample: Sample, data: Path) -> None:
    """Raise DataError if the image of a sample is a symbolic link that leads out of the data.

    The name of the data stands in a file of the run, and a page is made to be shown: it must not hold other files.
    """
    image = sample.image
    folder = data if data.is_dir() else data.parent
    if isinstance(image, Path) and image.is_symlink() and not image.resolve().is_relative_to(folder.resolve()):
        raise DataError(f"{image} is a link to a file outside of {folder}, which a page does not show")


def _draw(
    shown: Sequence[Sample], samples: Sequence[Sample], evaluations: Sequence[StoredEvaluation], key: str
) -> Gallery:
    """Draw the samples that are `shown` of all `samples`, each with the boxes of every evaluation.

    `key` begins the ids of the images in the page.
    """
    # All samples of a set ask for the same categories.
    categories = samples[0].query.categories
    colors = number_colors(categories)
    rows = []
    for index, sample in enumerate(shown):
        predictions = [_predict(sample, evaluation) for evaluation in evaluations]
        rows.append(make_image_row(sample, predictions, colors, f"{key}{index}"))
    match_iou = f"{evaluations[-1].protocol.match_iou:g}"
    return Gallery(rows, len(samples), list(zip(categories, colors.values(), strict=True)), match_iou)


def _predict(sample: Sample, evaluation: StoredEvaluation) -> Prediction:
    """Read the replies to an image (one, or one for each category) as the figures do, and compare their boxes."""
    protocol = evaluation.protocol
    dialect = get_dialect(protocol.dialect)
    table = table_of([sample])

    # Stored replies are found by the image's id as text; the table has it as the annotations do.
    predictions = []
    for prediction in evaluation.predictions.get(str(sample.image_id), ()):
        predictions.append(replace(prediction, image_id=sample.image_key))
    parsed = parse_replies(predictions, table, dialect, protocol)

    # Without a reply there are no boxes: concatenate needs at least one array.
    corners = [np.zeros((0, 4))]
    labels: list[str] = []
    for reply in parsed.replies:
        if protocol.parse == "strict" and not reply.well_formed:
            continue
        corners.append(reply.boxes.xyxy)
        labels += reply.boxes.labels
    predicted = Boxes(np.concatenate(corners), tuple(labels))
    return compare_with_truth(evaluation.title, predicted, sample.truth, protocol.match_iou)
