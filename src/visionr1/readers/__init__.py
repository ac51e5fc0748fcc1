"""Data sets in, samples out: one file per format."""

from pathlib import Path

from visionr1.embedded import embedded_path
from visionr1.readers.coco import CocoDataset, CocoTable, find_splits, read_coco, read_table, table_of
from visionr1.readers.queries import one_category_each, present_categories
from visionr1.readers.rows import OnBad, ReadReport
from visionr1.samples import Sample

__all__ = [
    "CocoDataset",
    "CocoTable",
    "OnBad",
    "ReadReport",
    "data_path",
    "find_splits",
    "one_category_each",
    "present_categories",
    "read_coco",
    "read_source",
    "read_table",
    "table_of",
]


def data_path(source: str | Path) -> Path:
    """The path that a data source names: itself, or for "bccd" that of the blood cell images that ship."""
    return embedded_path("bccd") if source == "bccd" else Path(source)


def read_source(source: str | Path, *, split: str | None = None) -> tuple[Sample, ...]:
    """The samples of a data source: "bccd", a COCO file, or a folder that holds one; see `read_coco`."""
    return read_coco(data_path(source), split=split).samples
