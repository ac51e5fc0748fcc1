"""Boxes over the same image, side by side, as inline SVG: what is true, and what each model predicted.

Colours mark categories; a dashed box is a false one, a filled one an object that was not found. This file prepares the
panels; `templates/gallery.html` draws them, with the classes of `report.css`.
"""

import base64
import io
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from PIL import Image

from visionr1.evaluation.detection.box_errors import image_errors
from visionr1.report.formats import words
from visionr1.samples import Boxes, Sample, normalize_label

LONGEST_EDGE = 560
JPEG_QUALITY = 80
NUM_COLORS = 6


@dataclass(frozen=True, slots=True)
class Prediction:
    """Boxes that a model predicted on an image, compared with the truth.

    `kinds` are the errors of the boxes, "" for a right box; `not_found` are the true boxes that no box is matched to.
    Boxes are xyxy pixels of the original image.
    """

    name: str
    boxes: Boxes
    kinds: Sequence[str]
    not_found: Boxes = field(default_factory=Boxes.empty)


@dataclass(frozen=True, slots=True)
class DrawnBox:
    """A rectangle in original pixels, its classes of `report.css`, and the title that pointing at it shows."""

    x: float
    y: float
    width: float
    height: float
    classes: str
    title: str


@dataclass(frozen=True, slots=True)
class Panel:
    """One picture of a row: its name, its caption, and its boxes from below to above."""

    name: str
    caption: str
    boxes: Sequence[DrawnBox]


@dataclass(frozen=True, slots=True)
class ImageRow:
    """An image with its panels; `key` is its id in the page and `image` a data URL of it."""

    key: str
    name: str
    width: int
    height: int
    image: str
    panels: Sequence[Panel]


def compare_with_truth(name: str, predicted: Boxes, truth: Boxes, threshold: float = 0.5) -> Prediction:
    """Compare boxes with the truth: one is right if it is matched one-to-one at IoU >= `threshold` in its category."""
    kinds, is_lost = image_errors(predicted, truth, threshold)
    lost_rows = np.flatnonzero(is_lost)
    lost_labels = [truth.labels[row] for row in lost_rows]
    not_found = Boxes(truth.xyxy[lost_rows], tuple(lost_labels))
    return Prediction(name, predicted, kinds, not_found)


def make_image_row(sample: Sample, predictions: Sequence[Prediction], colors: Mapping[str, int], key: str) -> ImageRow:
    """Prepare `sample` once for its truth and once for each of `predictions`.

    `colors` numbers the normalised labels (see `number_colors`); `key` is unique in the page.
    """
    width, height = sample.size_wh
    panels = [_draw_truth_panel(sample.truth, colors)]
    for prediction in predictions:
        panels.append(_draw_prediction_panel(prediction, len(sample.truth), colors))
    return ImageRow(key, sample.id, width, height, _encode_image(sample), panels)


def number_colors(labels: Sequence[str]) -> dict[str, int]:
    """Number the colour of each category, in their order."""
    return {normalize_label(label): index % NUM_COLORS for index, label in enumerate(labels)}


def _draw_truth_panel(truth: Boxes, colors: Mapping[str, int]) -> Panel:
    return Panel("Truth", f"{len(truth)} objects", _draw(truth, [""] * len(truth), colors))


def _draw_prediction_panel(prediction: Prediction, num_true: int, colors: Mapping[str, int]) -> Panel:
    """Draw a model's boxes over the true ones that it did not find, with the counts of errors in words."""
    not_found = _draw(prediction.not_found, ["not found"] * len(prediction.not_found), colors)
    predicted = _draw(prediction.boxes, prediction.kinds, colors)

    # The kind of a right box is "".
    kinds = Counter(prediction.kinds)
    num_right = kinds.pop("", 0)
    caption = f"{num_right} of {num_true} found, {kinds.total()} false"
    if kinds:
        false_counts = [f"{number} {words(kind)}" for kind, number in kinds.most_common()]
        caption += f" ({', '.join(false_counts)})"
    return Panel(prediction.name, caption, [*not_found, *predicted])


def _draw(boxes: Boxes, kinds: Sequence[str], colors: Mapping[str, int]) -> list[DrawnBox]:
    """Prepare the rectangles of boxes: `kinds` holds the error of each, "" for a right one."""
    rectangles = []
    for (x1, y1, x2, y2), label, kind in zip(boxes.xyxy.tolist(), boxes.labels, kinds, strict=True):
        classes = f"box {_find_style(kind)}{_find_color_class(label, colors)}"
        title = f"{label}: {words(kind)}" if kind else label
        rectangles.append(DrawnBox(x1, y1, x2 - x1, y2 - y1, classes, title))
    return rectangles


def _find_style(kind: str) -> str:
    """Return the class of `report.css` for an error of a box, with a blank behind it; "" for a right box."""
    if kind == "":
        return ""
    if kind == "not found":
        return "lost "
    return "false "


def _find_color_class(label: str, colors: Mapping[str, int]) -> str:
    # A model may write a label that is no category of the set.
    number = colors.get(normalize_label(label))
    return "unknown" if number is None else f"k{number}"


def _encode_image(sample: Sample) -> str:
    """Return the image as a small JPEG in a data URL."""
    image = sample.load_image()
    # The page holds its images, so their size is the page's.
    image.thumbnail((LONGEST_EDGE, LONGEST_EDGE), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=JPEG_QUALITY)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
