"""The interface of a reader: one format in which box annotations are kept."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from visionr1.data.dataset import BoxDataset
from visionr1.data.row_log import OnBad
from visionr1.data.table import BoxTable

CHOOSE_SPLIT = "choose with split= (--split; in a recipe data.split, eval.split)"


class Read(Protocol):
    """Read a data set, or one split of it; DataError if it cannot be read, and for a bad row as `on_bad` says."""

    def __call__(self, path: Path, *, split: str | None, on_bad: OnBad) -> BoxDataset: ...


class ReadWithImages(Protocol):
    """Read a data set whose images are below the folder `image_dir`, which a user named; raises as `Read`."""

    def __call__(self, path: Path, *, split: str | None, on_bad: OnBad, image_dir: Path) -> BoxDataset: ...


class ReadTable(Protocol):
    """Read the true boxes alone, without image files; raises as `Read`."""

    def __call__(self, path: Path, *, split: str | None, on_bad: OnBad) -> BoxTable: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Reader:
    """One format of data sets: how it is recognized and read."""

    name: str
    description: str
    """A data source of this format in words, for help texts and messages: "a COCO JSON file"."""
    sniff: Callable[[Path], bool]
    """Return True if the file or folder looks like this format; cheap, and never raises."""
    read: Read
    read_with_images: ReadWithImages | None = None
    """None where the format itself says where its images are."""
    read_table: ReadTable | None = None
    """None where the true boxes cannot be read without the images."""
    find_splits: Callable[[Path], Sequence[str]] = lambda path: ()
    """List the splits of a data set that `visionr1 data check` checks one by one; none checks it as a whole."""
