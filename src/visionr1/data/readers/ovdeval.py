"""OVDEval (om-ai-lab/OVDEval): a COCO file for each subtask, whose images name the labels that they are asked for.

In the data folder: `annotations/SUBTASK.json` and `images/SUBTASK/`. An image is asked for its own `text` (what is
there) and `neg_text` (hard negatives), in the order of the file's categories, so that the order does not tell which is
which. Ids start at 0; none is lost.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from visionr1.data.dataset import BoxDataset, dataset_from_table
from visionr1.data.ids import read_id
from visionr1.data.image_lookup import ImageLookup
from visionr1.data.readers.coco import read_table
from visionr1.data.readers.coco_layout import open_images
from visionr1.data.row_log import OnBad, RowLog, first_file, is_name_list
from visionr1.data.table import BoxTable, map_positions
from visionr1.errors import DataError, short_repr
from visionr1.files import read_json

SUBTASKS = ("celebrity", "color", "landmark", "logo", "material", "negation", "position", "relationship")


def find_subtask_file(folder: Path, subtask: str) -> Path | None:
    """Return the annotation file of a subtask, if the folder has it."""
    return first_file((folder / "annotations" / f"{subtask}.json", folder / f"{subtask}.json"))


def read_ovdeval(file: Path, *, with_images: bool = True, on_bad: OnBad = "raise") -> BoxDataset:
    """Read a subtask; without images its table alone. DataError if it is no COCO file, or an image has no labels."""
    table = read_table(file, on_bad=on_bad)
    if not with_images:
        return BoxDataset((), table, table.report)

    log = RowLog(file, on_bad, table.report)
    labels = _read_asked_labels(file, table, log)
    return dataset_from_table(table, log, _open_images(file, table), labels)


def _read_asked_labels(file: Path, table: BoxTable, log: RowLog) -> list[list[str]]:
    """Return the labels that each image of the table is asked for, in the order of the file's categories."""
    rows = {read_id(row.get("id")): row for row in read_json(file)["images"] if isinstance(row, dict)}
    positions = map_positions(table.categories)
    labels_of_images = []
    for image_id in table.image_ids:
        where = f"image {short_repr(image_id)}"
        labels: list[str] = []
        for key in ("text", "neg_text"):
            labels += _read_labels(rows[image_id], key, f"{file}: {where}")
        for label in labels:
            if label not in positions:
                message = f"{short_repr(label)} is asked for and is no category of the file"
                log.adjust("labels_without_category", where, message)

        # Each label once; those without a category come last, in the order of the image.
        labels = list(dict.fromkeys(labels))
        labels.sort(key=lambda label: positions.get(label, len(positions)))
        labels_of_images.append(labels)
    return labels_of_images


def _open_images(file: Path, table: BoxTable) -> Path | ImageLookup:
    """Return where a subtask's images are: where OVDEval puts them, or else where COCO's users would."""
    root = file.parent
    if root.name == "annotations":
        root = root.parent
    for folder in (root / "images" / file.stem, root / file.stem, root / "images"):
        if folder.is_dir():
            return folder
    return open_images(file, table.file_names)


def _read_labels(row: dict[str, Any], key: str, where: str) -> list[str]:
    """Return the labels of an image under one key; DataError if they are no list of texts."""
    labels = row.get(key, [])
    if not is_name_list(labels):
        raise DataError(f"{where}: {key}: expected a list of labels, found {short_repr(labels)}")
    return labels
