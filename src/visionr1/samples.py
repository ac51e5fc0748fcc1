"""The records that every room shares: boxes, queries, samples, replies.

Boxes are `xyxy` float64 pixels of the ORIGINAL image. Other coordinate spaces (model pixels, 0-1000, unit) exist only
inside `dialects/` and carry their name there. Sizes are `(width, height)`.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import lru_cache
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from visionr1.images import read_image, to_rgb

Size = tuple[int, int]
Task = Literal["detection", "grounding", "referring", "question"]


@dataclass(frozen=True, slots=True, eq=False)
class Boxes:
    """N labelled boxes: `xyxy` (N, 4) float64 pixels of the original image, one label each.

    Raises ValueError if the shape is not (N, 4) or the number of labels differs from N.
    """

    xyxy: NDArray[np.float64]
    labels: tuple[str, ...]

    def __post_init__(self) -> None:
        if self.xyxy.ndim != 2 or self.xyxy.shape[1] != 4:
            raise ValueError(f"xyxy must have shape (N, 4), but has shape {self.xyxy.shape}")
        if len(self.labels) != len(self.xyxy):
            raise ValueError(f"{len(self.xyxy)} boxes need as many labels, but there are {len(self.labels)}")

    def __len__(self) -> int:
        return len(self.labels)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Boxes):
            return NotImplemented
        return self.labels == other.labels and np.array_equal(self.xyxy, other.xyxy)

    @classmethod
    def empty(cls) -> Boxes:
        """Return no boxes: `xyxy` of shape (0, 4)."""
        return cls(np.zeros((0, 4)), ())

    @classmethod
    def of(cls, xyxy: object, labels: object) -> Boxes:
        """Return boxes of anything that numpy reads as (N, 4) numbers and any iterable of labels."""
        return cls(np.asarray(xyxy, dtype=np.float64).reshape(-1, 4), tuple(labels))  # type: ignore[arg-type]

    def take(self, rows: Sequence[int] | NDArray[np.intp]) -> Boxes:
        """Return the boxes at these positions, in this order."""
        rows = np.asarray(rows, dtype=np.intp)
        labels = tuple(self.labels[row] for row in rows.tolist())
        return Boxes(self.xyxy[rows], labels)


@dataclass(frozen=True, slots=True)
class Query:
    """A question about an image.

    `categories` holds the category set for detection, the one category for grounding, and the one expression for
    referring (the paper's three localisation tasks, Table 8). For a question, which is answered in words, it holds the
    text of the question.
    """

    task: Task
    categories: tuple[str, ...]

    def __post_init__(self) -> None:
        if not self.categories:
            raise ValueError("a query needs at least one category or expression, but has none")
        if self.task != "detection" and len(self.categories) != 1:
            raise ValueError(f"a {self.task} query asks for exactly one thing, but names {list(self.categories)}")


@dataclass(frozen=True, slots=True)
class GroundTruth:
    """All that a reward needs to know of a sample.

    `boxes` are the K true boxes; `size_wh` is the original image and `input_size_wh` what the processor feeds to the
    model (grid x patch size): dialects in model pixels are rescaled by the two. `num_instances` is a number of objects
    that the data states beside its boxes, which preset `release` divides recall by; None: as many as boxes.
    """

    boxes: Boxes
    categories: tuple[str, ...]
    size_wh: Size
    input_size_wh: Size
    num_instances: int | None = None

    def __post_init__(self) -> None:
        for name, size in (("size_wh", self.size_wh), ("input_size_wh", self.input_size_wh)):
            if size[0] <= 0 or size[1] <= 0:
                raise ValueError(f"{name} must be two positive numbers (width, height), but is {size}")


@dataclass(frozen=True, slots=True)
class Sample:
    """One image, one query, the true boxes.

    `image` is a path (opened when needed), the bytes of an image file (parquet) or a PIL image (synthetic scenes).
    `image_id` is the id in the annotation file the sample came from, for evaluation. `reward` is the key of the reward
    that its data source names, "" for that of the run. `answer` is the true answer to a question, which has no boxes.
    """

    id: str
    image: Path | Image.Image | bytes
    query: Query
    truth: Boxes
    size_wh: Size
    image_id: int | str = ""
    reward: str = ""
    answer: str = ""

    @property
    def image_key(self) -> int | str:
        """The id of its image, or the sample's own where the data names no images: equal for samples of one image."""
        return self.image_id if self.image_id != "" else self.id

    def load_image(self) -> Image.Image:
        """Return a copy in RGB; of a file, upright unless `size_wh` is its size as stored (`images.read_image`).

        Raises DataError, naming the file, if it is missing, cannot be decoded or has another size than `size_wh`.
        """
        if isinstance(self.image, Image.Image):
            return to_rgb(self.image)

        # Bytes have no path that a message could name.
        name = f"image of sample {self.id!r}" if isinstance(self.image, bytes) else None
        return read_image(self.image, name=name, size_wh=self.size_wh)

    def ground_truth(self, input_size_wh: Size) -> GroundTruth:
        """Return what a reward needs of this sample, given the size that the processor made of the image."""
        return GroundTruth(self.truth, self.query.categories, self.size_wh, input_size_wh)


class FaultKind(StrEnum):
    """The kinds of faults of a reply."""

    UNREADABLE = "unreadable"  # the text cannot be read in the dialect's syntax
    NOT_A_LIST = "not_a_list"  # readable, but not a flat list of items
    TRUNCATED = "truncated"  # the list does not end; a cut-off last item does not count
    SURROUNDING_TEXT = "surrounding_text"  # prose, a wrong fence or a second one
    WRONG_KEYS = "wrong_keys"  # an item has missing, extra or repeated keys, or no label
    OTHER_SYNTAX = "other_syntax"  # not the dialect's, such as other quotes or a stray one, but read
    OTHER_KEY = "other_key"  # box or label under another key than the dialect's
    OTHER_BOX_FORM = "other_box_form"  # a box in another form, such as nested, as text or with a score behind
    ASSUMED_LABEL = "assumed_label"  # none is given: it is the one category that was asked for
    NOT_FOUR_NUMBERS = "not_four_numbers"  # an item has no box
    WRONG_NUMBER_FORM = "wrong_number_form"  # e.g. 12.0 where the dialect writes integers
    OUT_OF_BOUNDS = "out_of_bounds"  # clipped to the image
    INVERTED = "inverted"  # x1 >= x2 or y1 >= y2: corners in another order are put in order, an empty box is none
    UNKNOWN_LABEL = "unknown_label"  # not among the categories asked for: no format fault
    TOO_MANY_BOXES = "too_many_boxes"  # beyond the dialect's limit: they count, but match nothing


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing wrong with a reply: its kind, the item's position in the list (None: the whole text), the finding."""

    kind: FaultKind
    item: int | None
    detail: str


@dataclass(frozen=True, slots=True)
class Reply:
    """A parsed completion.

    `boxes` are the usable ones, clipped to the image; `num_malformed` counts complete items without a usable box. Both
    are predictions: a malformed one has IoU 0 with everything.
    """

    boxes: Boxes
    num_malformed: int = 0
    faults: tuple[Fault, ...] = field(default=())

    @property
    def num_predicted(self) -> int:
        """Return P, the number of complete items of the list."""
        return len(self.boxes) + self.num_malformed

    @property
    def well_formed(self) -> bool:
        """Return True if template and content are both right: the paper's dual format (Eq. 4).

        An unknown label is no format fault.
        """
        return all(fault.kind is FaultKind.UNKNOWN_LABEL for fault in self.faults)


def compose_text(text: str) -> str:
    """Return text in Unicode's composed form (NFC), the only one that Qwen's tokenizers can write.

    Names that come from macOS may be decomposed (NFD): "A" and two dots for "Ä".
    """
    return unicodedata.normalize("NFC", text)


def normalize_label(label: str) -> str:
    """Return a label as it is compared: stripped, composed (NFC), casefolded."""
    return compose_text(label.strip()).casefold()


@lru_cache(maxsize=4096)
def normalized_labels(labels: tuple[str, ...]) -> frozenset[str]:
    """Return the set of `labels` as they are compared."""
    return frozenset(map(normalize_label, labels))
