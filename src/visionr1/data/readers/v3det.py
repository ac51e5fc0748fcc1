"""V3Det (V3Det/V3Det): COCO with 13,204 categories, which of them are novel, and a tree above and below them.

In the data folder: `annotations/v3det_2023_v1_val.json`, `annotations/v3det_2023_v1_category_tree.json`, and the images
where `file_name` says below it (`images/n07745046/21_371_....jpg`). 45 pairs of names differ in case only.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from visionr1.data.dataset import PartedDataset, dataset_from_table, keep_filled_parts
from visionr1.data.ids import IdIndex, read_id
from visionr1.data.readers.coco import read_table
from visionr1.data.row_log import OnBad, RowLog, first_file, get_field
from visionr1.data.table import BoxTable, map_positions
from visionr1.errors import DataError, short_repr
from visionr1.files import read_json

TREE_FILE = "v3det_2023_v1_category_tree.json"


def read_v3det(folder: Path, split: str = "val", *, with_images: bool = True, on_bad: OnBad = "raise") -> PartedDataset:
    """Read a split of V3Det; DataError naming the file that is missing or wrong."""
    file = _find_file(folder, f"v3det_2023_v1_{split}.json")
    table = read_table(file, on_bad=on_bad)
    table = replace(table, descendants=read_tree(_find_file(folder, TREE_FILE), table))
    parts = _split_into_parts(file, table)
    if not with_images:
        return PartedDataset((), table, table.report, parts)

    # File names start at the data folder, wherever the annotations lie.
    root = file.parent
    if root.name == "annotations":
        root = root.parent
    dataset = dataset_from_table(table, RowLog(file, on_bad, table.report), root)
    return PartedDataset(dataset.samples, dataset.table, dataset.report, parts)


def _split_into_parts(file: Path, table: BoxTable) -> dict[str, tuple[int, ...]]:
    """Return the positions of all, base and novel categories."""
    novel_ids = {read_id(row.get("id")) for row in read_json(file)["categories"] if row.get("novel")}
    parts: dict[str, list[int]] = {"all": [], "base": [], "novel": []}
    for position, identity in enumerate(table.category_ids):
        parts["all"].append(position)
        if identity in novel_ids:
            parts["novel"].append(position)
        else:
            parts["base"].append(position)
    return keep_filled_parts(parts)


def read_tree(path: Path, table: BoxTable) -> dict[int, frozenset[int]]:
    """Return the positions of all categories below each one; DataError if the file is not V3Det's category tree."""
    tree = read_json(path)
    node_of_category = _read_mapping(tree, "categoryid2treeid", path)
    nodes_below = _read_mapping(tree, "ancestor2descendant", path)

    # The tree is over nodes of its own, some of which are categories of the data set.
    positions = map_positions(table.category_ids)
    category_ids = IdIndex(table.category_ids)
    position_of_node: dict[Any, int] = {}
    for category_id, node in node_of_category.items():
        _check_node(node, f"{path}: categoryid2treeid: {category_id}")
        identity = category_ids.find(category_id)
        if identity is not None:
            position_of_node[node] = positions[identity]

    descendants: dict[int, frozenset[int]] = {}
    for node, position in position_of_node.items():
        below = nodes_below.get(node, [])
        if not isinstance(below, list):
            where = f"{path}: ancestor2descendant: {node}"
            raise DataError(f"{where}: expected a list of nodes, found {short_repr(below)}")
        for other in below:
            _check_node(other, f"{path}: ancestor2descendant: {node}")

        # Nodes that only group others are no categories.
        categories = frozenset(position_of_node[other] for other in below if other in position_of_node)
        if categories:
            descendants[position] = categories
    return descendants


def _check_node(node: object, where: str) -> None:
    """Raise DataError for what is no node of a tree: a number or a text."""
    if not isinstance(node, int | str):
        raise DataError(f"{where}: expected a node, found {short_repr(node)}")


def _read_mapping(tree: Any, key: str, path: Path) -> Mapping[str, Any]:
    """Return an object of the tree by its key; DataError if there is none."""
    value = get_field(tree, key)
    if not isinstance(value, dict):
        raise DataError(f"{path}: {key}: expected an object; is this V3Det's category tree?")
    return value


def _find_file(folder: Path, name: str) -> Path:
    """Return a file of V3Det in `annotations/` or beside it; DataError if it is in neither."""
    file = first_file((folder / "annotations" / name, folder / name))
    if file is None:
        raise DataError(f"{folder}: expected annotations/{name} or {name} of V3Det, found neither")
    return file
