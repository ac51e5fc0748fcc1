"""V3Det (V3Det/V3Det): COCO with 13,204 categories, which of them are novel, and a tree above and below them.

In the data folder: `annotations/v3det_2023_v1_val.json`, `annotations/v3det_2023_v1_category_tree.json`, and the images
where `file_name` says below it (`images/n07745046/21_371_....jpg`). 45 pairs of names differ in case only.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from visionr1.data.dataset import dataset_from_table
from visionr1.data.readers.coco import read_table
from visionr1.data.row_log import OnBad, RowLog, read_id
from visionr1.data.table import BoxTable
from visionr1.errors import DataError
from visionr1.files import read_json
from visionr1.samples import Sample

TREE_FILE = "v3det_2023_v1_category_tree.json"


@dataclass(frozen=True, slots=True, eq=False)
class V3Det:
    """The samples (none if read without images), the table with its tree, and all, base and novel categories."""

    samples: tuple[Sample, ...]
    table: BoxTable
    parts: Mapping[str, tuple[int, ...]]
    report_lines: tuple[str, ...]


def read_v3det(folder: Path, split: str = "val", *, with_images: bool = True, on_bad: OnBad = "raise") -> V3Det:
    """A split of V3Det; DataError naming the file that is missing or wrong."""
    file = _file(folder, f"v3det_2023_v1_{split}.json")
    table = read_table(file, on_bad=on_bad)
    table = replace(table, descendants=read_tree(_file(folder, TREE_FILE), table))
    novel = {read_id(row.get("id")): bool(row.get("novel")) for row in read_json(file)["categories"]}
    of_kind = {
        kind: tuple(i for i, key in enumerate(table.category_ids) if novel[key] == kind) for kind in (False, True)
    }
    parts = {"all": tuple(range(len(table.categories))), "base": of_kind[False], "novel": of_kind[True]}
    parts = {name: kept for name, kept in parts.items() if kept}
    if not with_images:
        return V3Det((), table, parts, tuple(table.report.lines()))
    root = file.parent.parent if file.parent.name == "annotations" else file.parent
    dataset = dataset_from_table(table, RowLog(file, on_bad), root)
    return V3Det(dataset.samples, dataset.table, parts, tuple(dataset.report.lines()))


def read_tree(path: Path, table: BoxTable) -> dict[int, frozenset[int]]:
    """The positions of all categories below each one; DataError if the file is not V3Det's category tree."""
    tree = read_json(path)
    nodes = _mapping(tree, "categoryid2treeid", path)
    below = _mapping(tree, "ancestor2descendant", path)
    places = {key: place for place, key in enumerate(table.category_ids)}
    of_node = {node: places[key] for name, node in nodes.items() if (key := read_id(name)) in places}
    descendants: dict[int, frozenset[int]] = {}
    for node, place in of_node.items():
        found = below.get(node, [])
        if not isinstance(found, list):
            raise DataError(f"{path}: ancestor2descendant: {node}: expected a list of nodes, found {found!r:.60}")
        if found := frozenset(of_node[one] for one in found if one in of_node):
            descendants[place] = found
    return descendants


def _mapping(tree: Any, key: str, path: Path) -> Mapping[str, Any]:
    value = tree.get(key) if isinstance(tree, dict) else None
    if not isinstance(value, dict):
        raise DataError(f"{path}: {key}: expected an object; is this V3Det's category tree?")
    return value


def _file(folder: Path, name: str) -> Path:
    places = [folder / "annotations" / name, folder / name]
    if file := next((place for place in places if place.is_file()), None):
        return file
    raise DataError(f"{folder}: expected annotations/{name} or {name} of V3Det, found neither")
