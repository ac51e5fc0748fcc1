"""OVDEval (om-ai-lab/OVDEval): a COCO file for each subtask, whose images name the labels that they are asked for.

In the data folder: `annotations/SUBTASK.json` and `images/SUBTASK/`. An image is asked for its own `text` (what is
there) and `neg_text` (hard negatives), in the order of the file's categories, so that the order does not tell which is
which. Ids start at 0; none is lost.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from visionr1.data.dataset import BoxDataset, dataset_from_table
from visionr1.data.readers.coco import find_image_folder, read_table
from visionr1.data.row_log import OnBad, RowLog, read_id
from visionr1.errors import DataError
from visionr1.files import read_json

SUBTASKS = ("celebrity", "color", "landmark", "logo", "material", "negation", "position", "relationship")


def ovdeval_file(folder: Path, subtask: str) -> Path | None:
    """Return the annotation file of a subtask, if the folder has it."""
    files = (folder / "annotations" / f"{subtask}.json", folder / f"{subtask}.json")
    return next((file for file in files if file.is_file()), None)


def read_ovdeval(file: Path, *, with_images: bool = True, on_bad: OnBad = "raise") -> BoxDataset:
    """Read a subtask; without images its table alone. DataError if it is no COCO file, or an image has no labels."""
    table = read_table(file, on_bad=on_bad)
    if not with_images:
        return BoxDataset((), table, table.report)

    log = RowLog(file, on_bad)
    rows = {read_id(row.get("id")): row for row in read_json(file)["images"] if isinstance(row, dict)}
    positions = {name: position for position, name in enumerate(table.categories)}
    asked = []
    for identity in table.image_ids:
        where = f"image {identity!r}"
        texts = []
        for key in ("text", "neg_text"):
            texts += _read_labels(rows[identity], key, f"{file}: {where}")
        for text in texts:
            if text not in positions:
                log.adjust("labels_without_category", where, f"{text!r} is asked for and is no category of the file")
        asked.append(sorted(dict.fromkeys(texts), key=lambda text: positions.get(text, len(positions))))
    folder = next((folder for folder in _image_folders(file) if folder.is_dir()), None)
    return dataset_from_table(table, log, folder or find_image_folder(file, table.file_names), asked)


def _image_folders(file: Path) -> tuple[Path, ...]:
    """Return where the images of a subtask may be."""
    root = file.parent.parent if file.parent.name == "annotations" else file.parent
    return root / "images" / file.stem, root / file.stem, root / "images"


def _read_labels(row: dict[str, Any], key: str, where: str) -> list[str]:
    """Return the labels of an image under one key; DataError if they are no list of texts."""
    texts = row.get(key, [])
    if not isinstance(texts, list) or not all(isinstance(text, str) and text.strip() for text in texts):
        raise DataError(f"{where}: {key}: expected a list of labels, found {texts!r:.80}")
    return texts
