"""Data sets in, samples out: readers of every format, synthetic scenes, random views, checks."""

from collections.abc import Callable, Sequence
from pathlib import Path

from visionr1.assets import embedded_path
from visionr1.data.dataset import BoxDataset
from visionr1.data.queries import one_category_each, present_categories
from visionr1.data.readers import READERS, Reader, describe_readers, find_reader, resolve_reader
from visionr1.data.readers.coco import read_coco, read_table
from visionr1.data.row_log import OnBad, ReadReport, RowLog
from visionr1.data.table import BoxTable, table_of
from visionr1.errors import DataError
from visionr1.samples import Sample

__all__ = [
    "READERS",
    "BoxDataset",
    "BoxTable",
    "OnBad",
    "ReadReport",
    "Reader",
    "RowLog",
    "data_path",
    "describe_readers",
    "find_splits",
    "one_category_each",
    "present_categories",
    "read_coco",
    "read_dataset",
    "read_source",
    "read_table",
    "resolve_reader",
    "table_of",
    "truth_table",
]


def data_path(source: str | Path) -> Path:
    """Return the path that a data source names: itself, or for "bccd" that of the blood cell images that ship."""
    return embedded_path("bccd") if source == "bccd" else Path(source)


def read_dataset(
    path: str | Path,
    *,
    split: str | None = None,
    on_bad: OnBad = "raise",
    reader: Reader | None = None,
    image_dir: str | Path | None = None,
) -> BoxDataset:
    """Read a data set by `reader`, by default that of the format it looks like.

    `image_dir` says where the images are, if not in a usual place near the annotations. Raises DataError if it cannot
    be read or its format has no such choice, and for a bad row unless `on_bad` is "skip".
    """
    path = Path(path)
    reader = reader or find_reader(path)
    if not image_dir:
        return reader.read(path, split=split, on_bad=on_bad)
    if reader.read_with_images is None:
        problem = f"--images (data.images) is not for the reader {reader.name}, whose files say where images are"
        raise DataError(f"{path}: {problem}; leave it out")
    return reader.read_with_images(path, split=split, on_bad=on_bad, image_dir=Path(image_dir))


def truth_table(
    path: str | Path,
    *,
    split: str | None = None,
    on_bad: OnBad = "raise",
    reader: Reader | None = None,
    image_dir: str | Path | None = None,
) -> BoxTable:
    """Read the true boxes of a data set alone; image files are not touched if its format (COCO) can do without."""
    path = Path(path)
    reader = reader or find_reader(path)
    if reader.read_table is None:
        return read_dataset(path, split=split, on_bad=on_bad, reader=reader, image_dir=image_dir).table
    return reader.read_table(path, split=split, on_bad=on_bad)


def find_splits(path: str | Path, reader: Reader | None = None) -> Sequence[str]:
    """List the splits of a data set that are checked one by one; none where it is checked as a whole."""
    path = Path(path)
    return (reader or find_reader(path)).find_splits(path)


def read_source(
    source: str | Path,
    *,
    split: str | None = None,
    on_bad: OnBad = "raise",
    reader: Reader | None = None,
    image_dir: str | Path | None = None,
    notify: Callable[[str], None] = lambda line: None,
) -> tuple[Sample, ...]:
    """Return the samples of a data source: "bccd", or what `read_dataset` reads.

    `notify` gets the lines of the report if rows were skipped, else its notes alone.
    """
    dataset = read_dataset(data_path(source), split=split, on_bad=on_bad, reader=reader, image_dir=image_dir)
    report = dataset.report
    for line in report.lines() if report.skipped else report.notes:
        notify(line)
    return dataset.samples
