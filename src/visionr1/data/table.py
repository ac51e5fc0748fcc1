"""The true boxes of a data set of any format, in columns: what an evaluation counts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from visionr1.boxes import Array, xyxy_to_xywh
from visionr1.data.ids import Id
from visionr1.data.row_log import ReadReport
from visionr1.errors import DataError
from visionr1.samples import Sample, Size, compose_text, normalize_label

Index = NDArray[np.intp]
Value = TypeVar("Value")


def map_positions(keys: Iterable[Value]) -> dict[Value, int]:
    """Return the position of each key; of one that comes more than once, the last."""
    return {key: position for position, key in enumerate(keys)}


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class BoxTable:
    """One set of annotations, rows in file order: N images, C categories, A annotations.

    Boxes are `xywh` float64 pixels, exactly as in the file. `image` and `category` (A,) index into the images and the
    categories; `sizes_wh` (N, 2) is 0 where the file gives no size.
    """

    path: Path
    image_ids: tuple[Id, ...]
    file_names: tuple[str, ...]
    sizes_wh: NDArray[np.int64]
    category_ids: tuple[Id, ...]
    categories: tuple[str, ...]
    image: Index
    category: Index
    xywh: Array
    area: Array
    iscrowd: NDArray[np.bool_]
    descendants: Mapping[int, frozenset[int]] = field(default_factory=dict)
    """Positions of the categories below one in a tree: on its objects, their boxes are neither right nor wrong."""
    report: ReadReport = field(default_factory=ReadReport)

    def __len__(self) -> int:
        return len(self.image_ids)

    def take(self, images: Sequence[int]) -> BoxTable:
        """Return the table of the images at these positions, in this order; a position may come more than once."""
        positions = np.asarray(images, dtype=np.intp)

        # Annotations sorted by image, those of one image in file order: each image has a slice of them.
        order = np.argsort(self.image, kind="stable")
        ends = np.searchsorted(self.image[order], np.arange(len(self) + 1))
        starts = ends[positions]
        counts = ends[positions + 1] - starts

        # The slices one after the other: a running number within each, counted from where it starts.
        offsets = np.cumsum(counts) - counts
        rows = order[np.arange(counts.sum()) + np.repeat(starts - offsets, counts)]
        return replace(
            self._take_rows(rows),
            image_ids=_pick(self.image_ids, images),
            file_names=_pick(self.file_names, images),
            sizes_wh=self.sizes_wh[positions],
            image=np.repeat(np.arange(len(positions)), counts),
        )

    def without(self, image_ids: Container[Id]) -> BoxTable:
        """Return the table without the images of these ids, such as those that a reader left out."""
        return self.take([place for place, image_id in enumerate(self.image_ids) if image_id not in image_ids])

    def take_categories(self, kept: Sequence[int]) -> BoxTable:
        """Return the table with the categories at these positions alone, in this order; every image stays."""
        # A table from old to new positions, -1 for those that go.
        new_position = np.full(len(self.categories), -1, dtype=np.intp)
        new_position[list(kept)] = np.arange(len(kept))
        table = self._take_rows(np.flatnonzero(new_position[self.category] >= 0))
        return replace(
            table,
            category_ids=_pick(self.category_ids, kept),
            categories=_pick(self.categories, kept),
            category=new_position[table.category],
            descendants={},
        )

    def _take_rows(self, rows: Index) -> BoxTable:
        """Return the table with these annotations alone; images and categories stay."""
        return replace(
            self,
            image=self.image[rows],
            category=self.category[rows],
            xywh=self.xywh[rows],
            area=self.area[rows],
            iscrowd=self.iscrowd[rows],
        )

    def check_names(self) -> None:
        """Raise DataError if two categories have one name as labels are compared (strip, casefold)."""
        spellings: dict[str, list[str]] = {}
        for name in self.categories:
            spellings.setdefault(normalize_label(name), []).append(name)
        for name, names in spellings.items():
            if len(names) > 1:
                differing = list(dict.fromkeys(names))
                written = f" (as {', '.join(map(repr, differing[:4]))})" if len(differing) > 1 else ""
                raise DataError(
                    f"{self.path}: categories: {len(names)} categories are called {name!r}{written}, so that a label "
                    "does not say which is meant; give each its own name, or all of one kind the same"
                )

    def label_indexes(self, asked: Iterable[Sequence[str]]) -> dict[tuple[str, ...], dict[str, int]]:
        """Map, for each set of categories asked for, a label to the position of its category.

        The labels are the names stripped and composed (NFC), and those casefolded. A label that means two of a set
        without regard to case (V3Det has 45 such pairs) is only found as it stands. Raises DataError if two categories
        have the very same name.
        """
        positions = map_positions(compose_text(name.strip()) for name in self.categories)
        if len(positions) < len(self.categories):
            self.check_names()

        # The same without regard to case, for labels that stand nowhere as they are.
        folded = {normalize_label(name): position for name, position in positions.items()}

        indexes: dict[tuple[str, ...], dict[str, int]] = {}
        for names in set(map(tuple, asked)):
            index = {}
            for name in [compose_text(name.strip()) for name in names]:
                index[name] = positions.get(name, folded.get(normalize_label(name), -1))

            # Without regard to case, only the labels that mean one category of this set.
            meanings = Counter(map(normalize_label, index))
            for name in list(index):
                if meanings[normalize_label(name)] == 1:
                    index[normalize_label(name)] = index[name]
            indexes[names] = index
        return indexes


def table_of(samples: Sequence[Sample]) -> BoxTable:
    """Return the table that samples of any origin make, each image once, in order.

    Samples that share an image (one query each) share a row; categories are all that are asked or true, in order. Area
    is width x height, nothing is crowd.
    """
    images: dict[Id, int] = {}
    sizes: list[Size] = []
    names: dict[str, int] = {}
    image: list[int] = []
    category: list[int] = []
    boxes: list[Array] = [np.zeros((0, 4))]
    for sample in samples:
        image_id = sample.image_key
        if image_id not in images:
            images[image_id] = len(images)
            sizes.append(sample.size_wh)

        # Images and categories are numbered as they come.
        for label in (*sample.query.categories, *sample.truth.labels):
            names.setdefault(label, len(names))
        for label in sample.truth.labels:
            image.append(images[image_id])
            category.append(names[label])
        boxes.append(sample.truth.xyxy)

    xywh = xyxy_to_xywh(np.concatenate(boxes))
    return BoxTable(
        path=Path("samples"),
        image_ids=tuple(images),
        file_names=("",) * len(images),
        sizes_wh=np.array(sizes, dtype=np.int64).reshape(-1, 2),
        category_ids=tuple(range(1, len(names) + 1)),
        categories=tuple(names),
        image=np.array(image, dtype=np.intp),
        category=np.array(category, dtype=np.intp),
        xywh=xywh,
        area=xywh[:, 2] * xywh[:, 3],
        iscrowd=np.zeros(len(xywh), dtype=bool),
    )


def _pick(values: Sequence[Value], positions: Iterable[int]) -> tuple[Value, ...]:
    """Return the values at these positions, in this order."""
    return tuple(values[position] for position in positions)
