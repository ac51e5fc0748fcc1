"""The true boxes of a data set of any format, in columns: what an evaluation counts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from visionr1.boxes import Array, xyxy_to_xywh
from visionr1.data.row_log import Id, ReadReport
from visionr1.errors import DataError
from visionr1.samples import Sample, Size, normalize_label

Index = NDArray[np.intp]


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
    ids_as_strings: bool = False
    descendants: Mapping[int, frozenset[int]] = field(default_factory=dict)
    """Positions of the categories below one in a tree: on its objects, their boxes are neither right nor wrong."""
    report: ReadReport = field(default_factory=ReadReport)

    def __len__(self) -> int:
        return len(self.image_ids)

    def take(self, images: Sequence[int]) -> BoxTable:
        """Return the table of the images at these positions, in this order; a position may come more than once."""
        rows = [np.flatnonzero(self.image == index) for index in range(len(self))]
        order = np.concatenate([rows[i] for i in images]) if len(images) else np.zeros(0, dtype=np.intp)
        return replace(
            self._take_rows(order),
            image_ids=tuple(self.image_ids[i] for i in images),
            file_names=tuple(self.file_names[i] for i in images),
            sizes_wh=self.sizes_wh[list(images)],
            image=np.repeat(np.arange(len(images)), [len(rows[i]) for i in images]),
        )

    def of_categories(self, kept: Sequence[int]) -> BoxTable:
        """Return the table with the categories at these positions alone, in this order; every image stays."""
        new_position = np.full(len(self.categories), -1, dtype=np.intp)
        new_position[list(kept)] = np.arange(len(kept))
        table = self._take_rows(np.flatnonzero(new_position[self.category] >= 0))
        return replace(
            table,
            category_ids=tuple(self.category_ids[i] for i in kept),
            categories=tuple(self.categories[i] for i in kept),
            category=new_position[table.category],
            descendants={},
        )

    def _take_rows(self, rows: Index) -> BoxTable:
        columns = {name: getattr(self, name)[rows] for name in ("image", "category", "xywh", "area", "iscrowd")}
        return replace(self, **columns)

    def check_names(self) -> None:
        """Raise DataError if two categories have one name as labels are compared (strip, casefold)."""
        names = Counter(map(normalize_label, self.categories))
        if twice := next((name for name, count in names.items() if count > 1), None):
            raise DataError(
                f"{self.path}: categories: {names[twice]} categories are called {twice!r}, so that a label does not "
                "say which is meant; give each its own name"
            )

    def label_indexes(self, asked: Iterable[Sequence[str]]) -> dict[tuple[str, ...], dict[str, int]]:
        """Map, for each set of categories asked for, a label to the position of its category.

        The labels are the names as they stand, and stripped and casefolded. A label that means two of a set without
        regard to case (V3Det has 45 such pairs) is only found as it stands. Raises DataError if two categories have
        the very same name.
        """
        positions = {name.strip(): position for position, name in enumerate(self.categories)}
        if len(positions) < len(self.categories):
            self.check_names()
        folded = {normalize_label(name): position for name, position in positions.items()}

        indexes: dict[tuple[str, ...], dict[str, int]] = {}
        for names in set(map(tuple, asked)):
            index = {}
            for name in map(str.strip, names):
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
        key = sample.image_id if sample.image_id != "" else sample.id
        if key not in images:
            images[key] = len(images)
            sizes.append(sample.size_wh)
        for label in (*sample.query.categories, *sample.truth.labels):
            names.setdefault(label, len(names))
        image += [images[key]] * len(sample.truth)
        category += [names[label] for label in sample.truth.labels]
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
