"""From a table to the samples that a model is trained on and shown.

A sample holds the boxes of one image clipped to it. A box partly outside is clipped; one of zero size or wholly
outside, and a crowd region, is left out. All of it is counted in the report.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from visionr1.boxes import clip_xyxy, xywh_to_xyxy
from visionr1.data.image_lookup import NAME_FOLDER, ImageLookup, is_spelled_so
from visionr1.data.row_log import ReadReport, RowLog, is_safe_name
from visionr1.data.table import BoxTable, table_of
from visionr1.errors import DataError, short_repr
from visionr1.images import image_size
from visionr1.samples import Boxes, Query, Sample, Size


@dataclass(frozen=True, slots=True, eq=False)
class BoxDataset:
    """Samples with detection queries, the table of their true boxes, and what the reader left out or changed."""

    samples: tuple[Sample, ...]
    table: BoxTable
    report: ReadReport

    @classmethod
    def from_samples(cls, path: Path, samples: Iterable[Sample], report: ReadReport) -> BoxDataset:
        """Return the data set of the samples that a reader made of the file or folder `path`; DataError if none.

        Samples of images that the report says are left out (`RowLog.bad`) are none of it.
        """
        samples = tuple(sample for sample in samples if sample.image_key not in report.images_left_out)
        if not samples:
            reasons = "; ".join(report.lines())
            raise DataError(f"{path}: no image is left: {reasons or 'there is none'}")
        return cls(samples, replace(table_of(samples), path=path, report=report), report)


@dataclass(frozen=True, slots=True, eq=False)
class PartedDataset(BoxDataset):
    """A data set of a benchmark that also reports some of its categories; it has no samples if read without images."""

    parts: Mapping[str, tuple[int, ...]]
    """The positions of each part's categories, by its name."""


def keep_filled_parts(parts: Mapping[str, Sequence[int]]) -> dict[str, tuple[int, ...]]:
    """Return the parts that have at least one category."""
    return {name: tuple(positions) for name, positions in parts.items() if positions}


def dataset_from_table(
    table: BoxTable, log: RowLog, images: Path | ImageLookup, asked: Sequence[Sequence[str]] | None = None
) -> BoxDataset:
    """Make a sample of each image of `table` whose file `images` finds; `table` of the result has those alone.

    `asked` are the categories that each image is asked for; without it all are asked of every image, in file order. An
    image that is asked for none is a bad row. Image files must exist; their content is checked when they are loaded.
    Raises DataError if no image is left, and for a bad row as `log` says.
    """
    truths = _gather_true_boxes(table, log)
    if isinstance(images, Path):
        images = ImageLookup([images])
    paths = images.find_all(table.file_names, list(map(tuple, table.sizes_wh.tolist())))

    kept, samples = [], []
    for index, image_id in enumerate(table.image_ids):
        if image_id in log.images_left_out:
            continue

        # The categories asked for, and the true boxes of those alone.
        categories = table.categories
        truth = truths[index]
        if asked is not None:
            categories = tuple(asked[index])
            truth = _keep_labels(truth, set(categories))
        if not categories:
            message = "expected categories to ask for, found none"
            log.bad("images_without_categories", _name_image(table, index), message, image=image_id)
            continue

        path = paths[index]
        if path is None:
            _log_missing_image(table, index, images, log)
            continue
        _count_other_place(table, index, path, images, log)
        size_wh = _read_size(table, index, path, log)
        if size_wh is None:
            continue

        sample = Sample(
            id=str(image_id),
            image=path,
            query=Query("detection", categories),
            truth=clip_boxes(truth, size_wh, f"image id {image_id}", log),
            size_wh=size_wh,
            image_id=image_id,
        )
        kept.append(index)
        samples.append(sample)

    report = log.report()
    if not samples:
        # The images that the reader left out stand in the table no more, or still do.
        num_images = len({*table.image_ids, *report.images_left_out})
        raise DataError(f"{table.path}: no image is left of {num_images}: {'; '.join(report.lines())}")
    return BoxDataset(tuple(samples), replace(table.take(kept), report=report), report)


def clip_boxes(boxes: Boxes, size_wh: Size, where: str, log: RowLog) -> Boxes:
    """Cut `boxes` off at the image and leave out those of zero size, both counted in `log`."""
    xyxy = clip_xyxy(boxes.xyxy, size_wh)
    whole = np.all(xyxy == boxes.xyxy, axis=1)
    filled = np.all(xyxy[:, 2:] > xyxy[:, :2], axis=1)

    # In the order of the boxes, so that the report's example is the first one in the file.
    for row in np.flatnonzero(~whole | ~filled).tolist():
        reason = "boxes_clipped" if filled[row] else "empty_boxes_left_out"
        box = boxes.xyxy[row].tolist()
        log.adjust(reason, where, f"box {box} in an image of {size_wh[0]}x{size_wh[1]}")
    return Boxes(xyxy, boxes.labels).take(np.flatnonzero(filled))


def _gather_true_boxes(table: BoxTable, log: RowLog) -> list[Boxes]:
    """Return the boxes of each image that a model can be asked for, not yet clipped."""
    for row in np.flatnonzero(table.iscrowd).tolist():
        log.adjust("crowd_regions_left_out", f"annotation {row}", "iscrowd is 1")

    # One pass over the annotations, because a search for those of each image would be quadratic.
    rows_of_image: list[list[int]] = [[] for _ in range(len(table))]
    for row in np.flatnonzero(~table.iscrowd).tolist():
        rows_of_image[table.image[row]].append(row)

    labels = tuple(table.categories[position] for position in table.category.tolist())
    boxes = Boxes(xywh_to_xyxy(table.xywh), labels)
    return list(map(boxes.take, rows_of_image))


def _keep_labels(boxes: Boxes, labels: set[str]) -> Boxes:
    """Return the boxes that have one of the `labels`."""
    rows = [row for row, label in enumerate(boxes.labels) if label in labels]
    return boxes.take(rows)


def _name_image(table: BoxTable, index: int) -> str:
    """Return the words for an image in messages."""
    return f"images[{index}] (id {table.image_ids[index]})"


def _log_missing_image(table: BoxTable, index: int, images: ImageLookup, log: RowLog) -> None:
    """Log an image whose name is unsafe, or that was not found."""
    name = table.file_names[index]
    reason = "missing_image"
    expected = f"expected an image at {images.folders[0] / name!s:.300}"
    if "://" in name:
        expected = f"expected the image of {name:.120} in {images.folders[0]} (nothing is downloaded)"
    if not is_safe_name(name):
        reason = "unsafe_file_name"
        message = f"file_name: expected a path below the image folder, found {short_repr(name)}"
    elif images.is_guess:
        message = f"file_name: {expected}, found no such file there nor in {images.describe_others()}; {NAME_FOLDER}"
    else:
        message = f"file_name: {expected}, found no such file"
    log.bad(reason, _name_image(table, index), message, image=table.image_ids[index])


def _count_other_place(table: BoxTable, index: int, path: Path, images: ImageLookup, log: RowLog) -> None:
    """Count an image that is found under another spelling of its name, or in another folder than most."""
    name = table.file_names[index]
    if path == images.folders[0] / name:
        return
    reason = "images_in_other_folders"
    if not is_spelled_so(name, path):
        reason = "images_under_another_spelling"
    log.adjust(reason, _name_image(table, index), f"{short_repr(name)} is {path}")


def _read_size(table: BoxTable, index: int, image: Path, log: RowLog) -> Size | None:
    """Return width and height from the table, else from the image, upright; None, logged, if that cannot be read."""
    width, height = table.sizes_wh[index].tolist()
    if width and height:
        return width, height

    # The file gives no size, so the image's header has to.
    where = _name_image(table, index)
    try:
        size = image_size(image)
    except DataError as error:
        message = f"no width and height in the file, and {error}"
        log.bad("unreadable_image", where, message, image=table.image_ids[index])
        return None
    log.adjust("images_without_size", where, "width and height were read from the image")
    return size
