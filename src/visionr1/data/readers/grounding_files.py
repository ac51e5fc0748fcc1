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
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from visionr1.boxes import is_box, xywh_to_xyxy
from visionr1.data.grounding import GroundingDataset, GroundingRows
from visionr1.data.ids import Id, IdIndex, read_id
from visionr1.data.row_log import OnBad, first_file, get_field
from visionr1.errors import DataError, needs_extra, short_repr
from visionr1.files import read_json, read_json_lines

if TYPE_CHECKING:
    from pyarrow import parquet


def read_grounding_file(path: Path, *, with_images: bool = True, on_bad: OnBad = "raise") -> GroundingDataset:
    """Read one file of the kinds above, told apart by their keys; DataError if it is none of them."""
    rows = GroundingRows(path, with_images=with_images, on_bad=on_bad)
    if path.suffix == ".parquet":
        _add_parquet(rows, path)
        return rows.dataset()

    # MDETR's file is an object; the others are lists, as JSON or as JSON Lines.
    content = read_json_lines(path) if path.suffix == ".jsonl" else read_json(path)
    if isinstance(content, dict) and isinstance(content.get("images"), list):
        _add_mdetr(rows, content)
    elif isinstance(content, list):
        _add_rows(rows, content)
    else:
        kind = type(content).__name__
        raise DataError(f"{path}: expected a list of rows, or an object with images; found a {kind}")
    return rows.dataset()


def find_lisa(data: Path, split: str) -> Path:
    """Return LISA-Grounding's file of a split in a folder, or `data` itself; DataError saying what was expected."""
    if data.is_file():
        return data
    names = [f"lisa_{split}.json", f"lisa_{split}.jsonl"]
    for folder in (data, data / "lisa", data / "rec_jsons_processed"):
        file = first_file(folder / name for name in names)
        if file is not None:
            return file
    expected = f"{' or '.join(names)} of LISA-Grounding (VLM-R1's annotations)"
    raise DataError(f"{data}: expected {expected}, found neither")


def _add_rows(rows: GroundingRows, content: Iterable[Any]) -> None:
    """Add the rows of Shikra, Griffon or VLM-R1."""
    for index, row in enumerate(content):
        where = f"row {index}"
        if not isinstance(row, dict):
            rows.bad("bad_row", where, f"expected an object, found {short_repr(row)}", identity=str(index))
            continue

        # VLM-R1's keys, or Shikra's and Griffon's.
        keys = ("image", "normal_caption", "solution")
        if "img_path" in row:
            keys = ("img_path", "expression", "bbox")
        image, expression, box = map(row.get, keys)
        rows.add(
            where,
            identity=str(index),
            image=image,
            image_id=image if isinstance(image, str) else "",
            expression=expression,
            xyxy=[box],  # type: ignore[list-item]
            size_wh=(row.get("width"), row.get("height")),
        )


def _add_mdetr(rows: GroundingRows, content: Mapping[str, Any]) -> None:
    """Add the images of MDETR's file, each with its caption and the boxes of its annotations."""
    boxes_of_image = _group_boxes(rows, content)

    # Each "image" of the file is one expression; the image itself has the original id.
    for index, row in enumerate(content["images"]):
        where = f"images[{index}]"
        identity = read_id(get_field(row, "id"))
        if identity is None:
            message = f"id: expected an integer or a string, found {short_repr(row)}"
            rows.log.bad("images_without_id", where, message)
            continue
        image_id = read_id(row.get("original_id"))
        if image_id is None:
            image_id = identity
        rows.add(
            where,
            identity=str(identity),
            image=row.get("file_name"),
            image_id=image_id,
            expression=row.get("caption"),
            xyxy=boxes_of_image.get(identity, []),
            size_wh=(row.get("width"), row.get("height")),
        )


def _group_boxes(rows: GroundingRows, content: Mapping[str, Any]) -> Mapping[Id, Sequence[Any]]:
    """Return the boxes of the annotations of each "image"; DataError, or a count, for those that have no such image."""
    expression_ids = IdIndex()
    for row in content["images"]:
        identity = read_id(get_field(row, "id"))
        if identity is not None:
            expression_ids.add(identity)
    annotations = content.get("annotations")
    if not isinstance(annotations, list):
        expected = "annotations: expected a list, each with image_id and bbox"
        raise DataError(f"{rows.log.path}: {expected}; found {short_repr(annotations)}")

    boxes_of_image: dict[Id, list[Any]] = {}
    for index, row in enumerate(annotations):
        where = f"annotations[{index}]"
        if not isinstance(row, dict):
            rows.log.bad("bad_annotation", where, f"expected an object, found {short_repr(row)}")
            continue
        expression_id = expression_ids.find(row.get("image_id"))
        if expression_id is None:
            message = f"image_id: expected the id of one of the images, found {short_repr(row.get('image_id'))}"
            rows.log.bad("unknown_image_id", where, message)
            continue

        # An expression that names nothing has an annotation marked as empty.
        if not row.get("empty"):
            boxes_of_image.setdefault(expression_id, []).append(_to_xyxy(row.get("bbox")))
    return boxes_of_image


def _add_parquet(rows: GroundingRows, path: Path) -> None:
    """Add the rows of a parquet file; DataError if it cannot be read or lacks a column."""
    with needs_extra("parquet"):
        from pyarrow import ArrowException, parquet
    columns = ["question_id", "image", "answer", "bbox", "file_name"]
    try:
        with parquet.ParquetFile(path) as file:
            names = file.schema_arrow.names
            missing = [column for column in columns if column not in names]
            if missing:
                expected = ", ".join(missing)
                raise DataError(f"{path}: expected the columns {expected}, found only {', '.join(names)}")
            for index, row in enumerate(_iterate_rows(file, columns)):
                _add_parquet_row(rows, f"row {index}", row)
    except (ArrowException, OSError) as error:
        raise DataError(f"{path}: cannot read this parquet file: {error!s:.200}") from error


def _iterate_rows(file: parquet.ParquetFile, columns: Sequence[str]) -> Iterator[Mapping[str, Any]]:
    """Yield the rows of a parquet file, a few hundred at a time, because they hold images."""
    for batch in file.iter_batches(batch_size=256, columns=columns):
        yield from batch.to_pylist()


def _add_parquet_row(rows: GroundingRows, where: str, row: Mapping[str, Any]) -> None:
    """Add a sample for each expression of a row."""
    image = row["image"]
    if isinstance(image, dict):
        image = image["bytes"]

    # One expression, or several of the same box.
    expressions = row["answer"]
    if not isinstance(expressions, list):
        expressions = [expressions]
    for number, expression in enumerate(expressions):
        rows.add(
            where,
            identity=f"{row['question_id']}/{number}",
            image=image,
            image_id=_read_coco_id(str(row["file_name"])),
            expression=expression,
            xyxy=[_to_xyxy(row["bbox"])],
        )


def _read_coco_id(name: str) -> Id:
    """Return the image id in `COCO_train2014_000000581857_16.jpg`, whose last number counts objects; else the name."""
    match = re.match(r"COCO_\w+?2014_(\d{12})", name)
    if match is None:
        return name
    return int(match[1])


def _to_xyxy(xywh: Any) -> Any:
    """Return the corners of a box xywh; what is no box is left for the check of the row to name."""
    if not is_box(xywh):
        return xywh
    return xywh_to_xyxy(np.array([xywh], dtype=np.float64))[0].tolist()
