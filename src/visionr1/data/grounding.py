"""Samples that ask for what one expression names: the record, and the checks that every reader of such rows shares.

A row that cannot be used (no expression, a box that is not four finite numbers or is inverted, an image that is missing
or leaves its folder, an id twice) is an error, or skipped and counted. Boxes stay as the file has them, also where they
leave the image by a pixel: they are the truth of a benchmark. One of zero size can never be found; it stays, counted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeGuard

from visionr1.boxes import MAX_COORDINATE, is_box, is_number
from visionr1.data.ids import Id
from visionr1.data.image_lookup import ImageLookup
from visionr1.data.row_log import OnBad, ReadReport, RowLog, is_file, is_safe_name
from visionr1.errors import DataError, short_repr
from visionr1.images import image_size
from visionr1.samples import Boxes, Query, Sample, Size

IMAGE_FOLDERS = (
    "",
    "images",
    "train2014",
    "images/train2014",
    "images/mscoco/images/train2014",
    "coco",
    "coco/train2014",
    "val2014",
    "lisa",
    "lisa-test",
)
"""Where users of these data sets keep the images, below the annotations' folder or the one above it."""


@dataclass(frozen=True, slots=True, eq=False)
class GroundingDataset:
    """Samples with a referring query each: the expression, and the boxes it names (none, one or several)."""

    samples: tuple[Sample, ...]
    path: Path
    report: ReadReport


class _UnusableImage(DataError):
    """An image that a row cannot be used with; `reason` is what such rows are counted by."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class GroundingRows:
    """Turn rows into samples. `with_images` demands the image files; scoring a file of predictions needs none.

    `image_dir` is the folder of the images, if they lie in none of IMAGE_FOLDERS.
    """

    def __init__(
        self, path: Path, *, with_images: bool, on_bad: OnBad = "raise", image_dir: Path | None = None
    ) -> None:
        self._image_dir = image_dir
        self.log = RowLog(path, on_bad)
        self._with_images = with_images
        self._lookup: ImageLookup | None = None
        self._lookups: list[ImageLookup] = []
        self._samples: dict[str, Sample] = {}
        self._reasons: dict[Id, str] = {}

    def bad(self, reason: str, where: str, message: str, *, identity: str, image_id: Id = "") -> None:
        """Log a row that cannot be used (`RowLog.bad`), and that its sample is left out; `image_id` is "" if unknown.

        The sample of an id that another row has already is not left out.
        """
        self.log.bad(reason, where, message)
        if identity not in self._samples:
            self.log.samples_left_out.add(identity)
            self._reasons.setdefault(image_id, reason)

    def add(
        self,
        where: str,
        *,
        identity: str,
        image: object,
        image_id: Id,
        expression: object,
        xyxy: Sequence[Sequence[object]],
        size_wh: tuple[object, object] = (0, 0),
    ) -> None:
        """Add one sample; `image` is a file name below an image folder or the bytes of a file, `xyxy` in pixels."""
        if not isinstance(expression, str) or not expression.strip():
            message = f"expected an expression, found {short_repr(expression)}"
            self.bad("rows_without_expression", where, message, identity=identity, image_id=image_id)
            return

        # Line breaks and double blanks would not survive a dialect.
        name = " ".join(expression.split())
        try:
            truth = Boxes.of([checked_box(box) for box in xyxy], [name] * len(xyxy))
        except DataError as error:
            self.bad("bad_box", where, str(error), identity=identity, image_id=image_id)
            return

        self.add_query(
            where,
            identity=identity,
            image=image,
            image_id=image_id,
            query=Query("referring", (name,)),
            truth=truth,
            size_wh=size_wh,
        )

    def add_query(
        self,
        where: str,
        *,
        identity: str,
        image: object,
        image_id: Id,
        query: Query,
        truth: Boxes,
        size_wh: tuple[object, object] = (0, 0),
    ) -> None:
        """Add one sample of any query, whose boxes are checked."""
        if identity in self._samples:
            message = f"id: expected one that no other row has, found {short_repr(identity)} again"
            self.bad("duplicate_ids", where, message, identity=identity, image_id=image_id)
            return
        try:
            content = image if isinstance(image, bytes) else self._find_image(image)
            size = self._read_size(where, content, size_wh)
        except _UnusableImage as error:
            self.bad(error.reason, where, str(error), identity=identity, image_id=image_id)
            return

        # Without images the bytes would fill memory for nothing; the name is enough.
        if isinstance(content, bytes) and not self._with_images:
            content = Path(str(image_id))

        is_empty = (truth.xyxy[:, 2:] == truth.xyxy[:, :2]).any(axis=1)
        for box in truth.xyxy[is_empty].tolist():
            self.log.adjust("truths_of_zero_size", where, f"{box} can never be found, and counts")
        self._samples[identity] = Sample(identity, content, query, truth, size, image_id)

    def dataset(self) -> GroundingDataset:
        """Return what was added; DataError if nothing is left."""
        if not self._samples:
            reasons = "; ".join(self.log.report().lines())
            raise DataError(f"{self.log.path}: no usable row; {reasons or 'it has none'}")

        # An image is left out if no row of it is left.
        images = {sample.image_key for sample in self._samples.values()}
        for image_id, reason in self._reasons.items():
            if image_id != "" and image_id not in images:
                self.log.images_left_out.setdefault(image_id, reason)
        return GroundingDataset(tuple(self._samples.values()), self.log.path, self.log.report())

    def _find_image(self, name: object) -> Path:
        """Return the path of an image; _UnusableImage if its name is unsafe or, where it is needed, it is missing."""
        if not isinstance(name, str) or not is_safe_name(name):
            message = f"image: expected a path below its folder, found {short_repr(name)}"
            raise _UnusableImage("unsafe_file_name", message)

        # The folder in which the first image was found comes first for all.
        parent = self.log.path.parent
        path = None
        if self._lookup is not None:
            path = self._lookup.find(name)
        if path is None:
            lookup = self._choose_folder(name)
            if lookup is not None:
                path = lookup.find(name)
                self._lookup = self._lookup or lookup
        if path is None and self._with_images:
            folders = ", ".join(filter(None, IMAGE_FOLDERS))
            tried = str(self._image_dir or f"{parent} or the folder above it, below {folders}")
            message = f"image: expected {name} in {tried}; found no such file"
            raise _UnusableImage("missing_image", message)
        return path or parent / name

    def _choose_folder(self, name: str) -> ImageLookup | None:
        """Return the first of the folders of images in which the image `name` lies; None if in none."""
        # Each folder is listed once, also if many rows name images that are in none.
        if not self._lookups and self._image_dir is not None:
            self._lookups = [ImageLookup([self._image_dir])]
        if not self._lookups:
            parent = self.log.path.parent
            for base in (parent, parent.parent):
                self._lookups += [ImageLookup([base / below]) for below in IMAGE_FOLDERS]
        for lookup in self._lookups:
            if lookup.find(name) is not None:
                return lookup
        return None

    def _read_size(self, where: str, image: Path | bytes, size_wh: tuple[object, object]) -> Size:
        """Return width and height as the row gives them, else from the image, upright, else unknown: (0, 0).

        Raises _UnusableImage if the image has to say, and cannot be read.
        """
        width, height = size_wh
        if _is_side(width) and _is_side(height):
            return int(width), int(height)
        if width or height:
            message = f"width, height: expected pixels, found {short_repr(size_wh)}; the size of the image is used"
            self.log.adjust("unusable_sizes", where, message)

        # Predictions can be scored without the images, and without their sizes.
        if isinstance(image, Path) and not is_file(image):
            return 0, 0
        try:
            return image_size(image, name="its bytes" if isinstance(image, bytes) else None)
        except DataError as error:
            raise _UnusableImage("unreadable_image", f"image: no width and height, and {error}") from error


def checked_box(box: object) -> list[float]:
    """Return `box` as four floats xyxy in order; DataError if it is not four finite numbers, or inverted."""
    if not is_box(box):
        raise DataError(f"box: expected four finite numbers, found {short_repr(box)}")
    x1, y1, x2, y2 = map(float, box)
    if x2 < x1 or y2 < y1:
        raise DataError(f"box: expected x1 <= x2 and y1 <= y2, found {[x1, y1, x2, y2]}")
    return [x1, y1, x2, y2]


def _is_side(value: object) -> TypeGuard[int | float]:
    """Return True for a number of pixels that a picture can have along one side."""
    return is_number(value, MAX_COORDINATE) and value >= 1
