"""Data sets in, samples out: one file per format."""

from pathlib import Path

from visionr1.assets import embedded_path
from visionr1.data.coco import BoxDataset, BoxTable, find_splits, read_coco, read_table, table_of
from visionr1.data.queries import one_category_each, present_categories
from visionr1.data.row_log import OnBad, ReadReport
from visionr1.data.vlm_r1 import read_vlm_r1
from visionr1.data.voc import is_voc, read_voc
from visionr1.samples import Sample

__all__ = [
    "BoxDataset",
    "BoxTable",
    "OnBad",
    "ReadReport",
    "data_path",
    "find_splits",
    "one_category_each",
    "present_categories",
    "read_coco",
    "read_dataset",
    "read_source",
    "read_table",
    "table_of",
    "truth_table",
]


def data_path(source: str | Path) -> Path:
    """The path that a data source names: itself, or for "bccd" that of the blood cell images that ship."""
    return embedded_path("bccd") if source == "bccd" else Path(source)


def read_dataset(path: str | Path, *, split: str | None = None, on_bad: OnBad = "raise") -> BoxDataset:
    """A data set of any layout: VLM-R1's rows (.jsonl), a folder of Pascal VOC, else COCO; see their readers."""
    path = Path(path)
    if path.suffix == ".jsonl":
        return read_vlm_r1(path, on_bad=on_bad)
    return read_voc(path, split=split, on_bad=on_bad) if is_voc(path) else read_coco(path, split=split, on_bad=on_bad)


def truth_table(path: str | Path, *, split: str | None = None, on_bad: OnBad = "raise") -> BoxTable:
    """The true boxes of a data set of any layout; of COCO's, image files are not touched."""
    path = Path(path)
    if path.suffix == ".jsonl" or is_voc(path):
        return read_dataset(path, split=split, on_bad=on_bad).table
    return read_table(path, split=split, on_bad=on_bad)


def read_source(source: str | Path, *, split: str | None = None) -> tuple[Sample, ...]:
    """The samples of a data source: "bccd", or what `read_dataset` reads."""
    return read_dataset(data_path(source), split=split).samples
