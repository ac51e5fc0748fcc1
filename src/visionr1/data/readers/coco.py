"""COCO instances, as a JSON file or a folder: what a folder holds is in `coco_layout`, a file in `coco_annotations`.

An image file that is missing, or whose name leaves the image folder, is a bad row: DataError, or skipped and counted.
"""

from __future__ import annotations

from pathlib import Path

from visionr1.data.dataset import BoxDataset, dataset_from_table
from visionr1.data.readers.base import Reader
from visionr1.data.readers.coco_annotations import read_coco_file
from visionr1.data.readers.coco_layout import find_annotations, find_direct, find_split_files, open_images
from visionr1.data.row_log import OnBad, RowLog
from visionr1.data.table import BoxTable


def read_coco(
    path: str | Path,
    *,
    split: str | None = None,
    image_dir: str | Path | None = None,
    on_bad: OnBad = "raise",
) -> BoxDataset:
    """Read the samples in a COCO annotation file, or in a folder of a layout that is known.

    `split` chooses within a folder; `image_dir` says where the images are, if not in a usual place near the file.
    Image files must exist; their content is checked when they are loaded. `table` holds the images that became samples.
    Raises DataError for what the policies of `coco_annotations` do not cover, for an empty data set, and under
    `on_bad="raise"` for every bad row.
    """
    file = find_annotations(Path(path), split)
    log = RowLog(file, on_bad)
    table = read_coco_file(file, log, needs_sizes=True)
    table.check_names()
    images = open_images(file, table.file_names, Path(image_dir) if image_dir is not None else None)
    return dataset_from_table(table, log, images)


def read_table(path: str | Path, *, split: str | None = None, on_bad: OnBad = "raise") -> BoxTable:
    """Read the table of an annotation file or folder, as `read_coco` finds it; image files are not touched."""
    file = find_annotations(Path(path), split)
    return read_coco_file(file, RowLog(file, on_bad), needs_sizes=False)


def sniff(path: Path) -> bool:
    """Return True for a .json file, and a folder that has an annotation file or a split with one."""
    if path.is_dir():
        return bool(find_direct(path) or find_split_files(path))
    return path.suffix == ".json"


READER = Reader(
    name="coco",
    description="a COCO JSON file, a folder that holds one",
    sniff=sniff,
    read=read_coco,
    read_with_images=read_coco,
    read_table=read_table,
    find_splits=lambda path: tuple(find_split_files(path)),
)
