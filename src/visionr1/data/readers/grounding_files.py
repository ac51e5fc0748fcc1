"""Files with one expression and its box a row: the variants in which RefCOCO and LISA-Grounding are passed around.

| file | who | image | expression | box |
|---|---|---|---|---|
| .jsonl | Shikra, Griffon | img_path | expression | bbox, xyxy |
| .json, .jsonl | VLM-R1 | image | normal_caption | solution, xyxy: the annotation with 1 added to x2 and y2 |
| .json | MDETR | images[].file_name | images[].caption | annotations[].bbox, xywh |
| .parquet | lmms-lab | image (bytes) | answer, a list: one sample each | bbox, xywh |

Boxes are pixels of the original image. VLM-R1's are kept as they are, for its own evaluation scores against them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from visionr1.boxes import is_box, xywh_to_xyxy
from visionr1.data.grounding import GroundingDataset, GroundingRows
from visionr1.data.row_log import Id, OnBad, read_id
from visionr1.errors import DataError, needs_extra
from visionr1.files import read_json, read_json_lines


def read_grounding_file(path: Path, *, with_images: bool = True, on_bad: OnBad = "raise") -> GroundingDataset:
    """Read one file of the kinds above, told apart by their keys; DataError if it is none of them."""
    rows = GroundingRows(path, with_images=with_images, on_bad=on_bad)
    if path.suffix == ".parquet":
        _add_parquet(rows, path)
        return rows.dataset()
    content = read_json_lines(path) if path.suffix == ".jsonl" else read_json(path)
    if isinstance(content, dict) and isinstance(content.get("images"), list):
        _add_mdetr(rows, content)
    elif isinstance(content, list):
        _add_rows(rows, content)
    else:
        raise DataError(f"{path}: expected a list of rows, or an object with images; found a {type(content).__name__}")
    return rows.dataset()


def find_lisa(data: Path, split: str) -> Path:
    """Return LISA-Grounding's file of a split in a folder, or `data` itself; DataError saying what was expected."""
    if data.is_file():
        return data
    names = [f"lisa_{split}.json", f"lisa_{split}.jsonl"]
    for folder in (data, data / "lisa", data / "rec_jsons_processed"):
        for name in names:
            if (folder / name).is_file():
                return folder / name
    raise DataError(f"{data}: expected {' or '.join(names)} of LISA-Grounding (VLM-R1's annotations), found neither")


def _add_rows(rows: GroundingRows, content: Iterable[Any]) -> None:
    """Add the rows of Shikra, Griffon or VLM-R1."""
    for index, row in enumerate(content):
        where = f"row {index}"
        if not isinstance(row, dict):
            rows.log.bad("bad_row", where, f"expected an object, found {row!r:.60}")
            continue

        # Shikra's and Griffon's keys, or VLM-R1's.
        keys = ("img_path", "expression", "bbox") if "img_path" in row else ("image", "normal_caption", "solution")
        image, expression, box = map(row.get, keys)
        rows.add(
            where,
            identity=str(index),
            image=image,
            image_id=str(image),
            expression=expression,
            xyxy=[box],  # type: ignore[list-item]
            size_wh=(row.get("width"), row.get("height")),
        )


def _add_mdetr(rows: GroundingRows, content: Mapping[str, Any]) -> None:
    """Add the images of MDETR's file, each with its caption and the boxes of its annotations."""
    boxes: dict[Any, list[Any]] = {}
    for row in content.get("annotations") or []:
        if isinstance(row, dict) and not row.get("empty"):
            boxes.setdefault(read_id(row.get("image_id")), []).append(_xyxy(row.get("bbox")))
    for index, row in enumerate(content["images"]):
        where = f"images[{index}]"
        identity = read_id(row.get("id")) if isinstance(row, dict) else None
        if identity is None:
            rows.log.bad("images_without_id", where, f"id: expected an integer or a string, found {row!r:.60}")
            continue
        original = read_id(row.get("original_id"))
        rows.add(
            where,
            identity=str(identity),
            image=row.get("file_name"),
            image_id=identity if original is None else original,
            expression=row.get("caption"),
            xyxy=boxes.get(identity, []),
            size_wh=(row.get("width"), row.get("height")),
        )


def _add_parquet(rows: GroundingRows, path: Path) -> None:
    """Add the rows of a parquet file; DataError if it cannot be read or lacks a column."""
    with needs_extra("parquet"):
        from pyarrow import ArrowException, parquet
    columns = ["question_id", "image", "answer", "bbox", "file_name"]
    try:
        with parquet.ParquetFile(path) as file:
            if missing := [column for column in columns if column not in file.schema_arrow.names]:
                columns_there = ", ".join(file.schema_arrow.names)
                raise DataError(f"{path}: expected the columns {', '.join(missing)}, found only {columns_there}")
            batches = (row for batch in file.iter_batches(batch_size=256, columns=columns) for row in batch.to_pylist())
            for index, row in enumerate(batches):
                _add_parquet_row(rows, f"row {index}", row)
    except (ArrowException, OSError) as error:
        raise DataError(f"{path}: cannot read this parquet file: {error!s:.200}") from error


def _add_parquet_row(rows: GroundingRows, where: str, row: Mapping[str, Any]) -> None:
    """Add a sample for each expression of a row."""
    image, answers = row["image"], row["answer"]
    for number, expression in enumerate(answers if isinstance(answers, list) else [answers]):
        rows.add(
            where,
            identity=f"{row['question_id']}/{number}",
            image=image["bytes"] if isinstance(image, dict) else image,
            image_id=_coco_image(str(row["file_name"])),
            expression=expression,
            xyxy=[_xyxy(row["bbox"])],
        )


def _coco_image(name: str) -> Id:
    """Return the image id in `COCO_train2014_000000581857_16.jpg`, whose last number counts objects; else the name."""
    match = re.match(r"COCO_\w+?2014_(\d{12})", name)
    return int(match[1]) if match else name


def _xyxy(xywh: Any) -> Any:
    """Return the corners of a box xywh; what is no box is left for the check of the row to name."""
    return xywh_to_xyxy(np.array([xywh], dtype=np.float64))[0].tolist() if is_box(xywh) else xywh
