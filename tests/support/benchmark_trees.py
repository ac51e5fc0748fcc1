"""Small trees in the true layouts of the benchmarks, all images 100 x 80 pixels and black."""

from __future__ import annotations

import json
import pickle
from collections.abc import Iterable
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image

SIZE = (100, 80)


def write_json(path: Path, content: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return path


def write_lines(path: Path, rows: Iterable[Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def write_pickle(path: Path, content: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps(content, protocol=2))
    return path


def write_images(folder: Path, names: Iterable[str]) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", SIZE).save(folder / name)


def image_bytes() -> bytes:
    content = BytesIO()
    Image.new("RGB", SIZE).save(content, "PNG")
    return content.getvalue()


def image_row(identity: int, name: str, **more: Any) -> dict[str, Any]:
    return {"id": identity, "file_name": name, "width": SIZE[0], "height": SIZE[1], **more}


TRAIN2014 = "COCO_train2014_{:012d}.jpg"
BOXES = {11: [10, 10, 20, 20], 12: [50, 10, 20, 20], 21: [0, 0, 50, 40]}
"""xywh by annotation id; 11 and 12 lie in image 1, 21 in image 2."""


def instances() -> dict[str, Any]:
    return {
        "images": [image_row(i, TRAIN2014.format(i)) for i in (1, 2)],
        "annotations": [
            {"id": key, "image_id": key // 10, "category_id": 1, "bbox": box, "area": 1.0, "iscrowd": 0}
            for key, box in BOXES.items()
        ],
        "categories": [{"id": 1, "name": "person", "supercategory": "person"}],
    }


def ref(ref_id: int, ann_id: Any, split: str, *sentences: tuple[int, str]) -> dict[str, Any]:
    """A row of refs(...).p; its file_name carries the annotation id, as in the true files, and no image has it."""
    first = ann_id[0] if isinstance(ann_id, list) else ann_id
    image = max(first // 10, 1)
    return {
        "ref_id": ref_id,
        "ann_id": ann_id,
        "category_id": [1] if isinstance(ann_id, list) else 1,
        "image_id": image,
        "file_name": f"COCO_train2014_{image:012d}_{first}.jpg",
        "split": split,
        "sent_ids": [key for key, _ in sentences],
        "sentences": [{"sent_id": k, "sent": s, "raw": s.upper(), "tokens": s.split()} for k, s in sentences],
    }


REFS = [
    ref(0, 11, "val", (100, "left man"), (101, "man in red")),
    ref(1, 12, "testA", (102, "right man")),
    ref(2, 21, "val", (103, "the bus")),
    ref(3, 21, "train", (104, "a bus")),
]
GREFS = [
    ref(0, [11, 12], "val", (200, "both men")),
    ref(1, [-1], "val", (201, "the elephant")),
    ref(2, [21], "val", (202, "bus")),
]


def write_refcoco(root: Path, name: str = "refcoco", refs: Any = REFS, by: str = "unc") -> Path:
    """As lichengunc/refer lays it out: NAME/refs(unc).p, NAME/instances.json, images/mscoco/images/train2014."""
    write_pickle(root / name / f"refs({by}).p", refs)
    write_json(root / name / "instances.json", instances())
    write_images(root / "images/mscoco/images/train2014", (TRAIN2014.format(i) for i in (1, 2)))
    return root


def write_grefcoco(root: Path) -> Path:
    write_json(root / "grefcoco/grefs(unc).json", GREFS)
    write_json(root / "grefcoco/instances.json", instances())
    write_images(root / "images/train2014", (TRAIN2014.format(i) for i in (1, 2)))
    return root


def write_lisa(root: Path) -> Path:
    rows = [
        {
            "image": f"lisa-test/{i}.jpg",
            "problem": f"Please provide the bounding box coordinate of the region this sentence describes: {caption}.",
            "normal_caption": caption,
            "solution": solution,
            "width": SIZE[0],
            "height": SIZE[1],
        }
        for i, (caption, solution) in enumerate(
            [("what holds the water", [10, 10, 31, 31]), ("the part to sit on", [50, 40, 91, 71])]
        )
    ]
    write_json(root / "lisa_test.json", rows)
    write_images(root / "lisa-test", ("0.jpg", "1.jpg"))
    return root


D3_SENTENCES = {
    1: ("a dog", False, 1),
    2: ("dog not led by ropes", True, 1),
    3: ("a sailboat", False, 2),
    4: ("a boat with someone rowing on the calm blue water", False, 2),
}
"""Sentence id -> words, whether by absence, group."""


def write_d3(root: Path) -> Path:
    """Image 0 is of group 1, images 1 and 2 of group 2; ids of images start at 0."""
    groups = {0: 1, 1: 2, 2: 2}
    names = {i: f"{group}/{i}.jpg" for i, group in groups.items()}
    boxes = [(0, 1, [10, 10, 20, 20]), (0, 2, [10, 10, 20, 20]), (1, 3, [0, 0, 40, 40]), (2, 4, [20, 20, 40, 40])]
    coco = {
        "images": [image_row(i, name) for i, name in names.items()],
        "categories": [{"id": key, "name": words} for key, (words, _, _) in D3_SENTENCES.items()],
        "annotations": [
            {"id": n, "image_id": i, "category_id": c, "bbox": box, "area": box[2] * box[3], "iscrowd": 0}
            for n, (i, c, box) in enumerate(boxes)
        ],
    }
    write_json(root / "d3_json/d3_full_annotations.json", coco)
    pkl = root / "d3_pkl"
    write_pickle(
        pkl / "sentences.pkl",
        {
            key: {"id": key, "anno_id": [], "group_id": [group], "is_negative": absent, "raw_sent": words}
            for key, (words, absent, group) in D3_SENTENCES.items()
        },
    )
    write_pickle(
        pkl / "images.pkl",
        {i: {"id": i, "file_name": name, "group_id": groups[i], "anno_id": []} for i, name in names.items()},
    )
    members = {group: [key for key, (_, _, own) in D3_SENTENCES.items() if own == group] for group in (1, 2)}
    write_pickle(pkl / "groups.pkl", {g: {"id": g, "inner_sent_id": own, "img_id": []} for g, own in members.items()})
    write_pickle(pkl / "annotations.pkl", {0: {"id": 0, "segmentation": {"counts": b"\xff0", "size": [80, 100]}}})
    write_images(root / "d3_images", names.values())
    return root


def write_ovdeval(root: Path, subtasks: Iterable[str] = ("color", "negation")) -> Path:
    """Every id starts at 0. Image 0 holds a red car and is asked for a blue one too; image 1 the reverse."""
    for subtask in subtasks:
        texts = (("a red car", "a blue car"), ("a blue car", "a red car"))
        content = {
            "categories": [
                {"supercategory": "object", "id": i, "name": name} for i, name in enumerate(("a blue car", "a red car"))
            ],
            "images": [image_row(i, f"{i}.jpg", text=[yes], neg_text=[no]) for i, (yes, no) in enumerate(texts)],
            "annotations": [
                {"id": i, "image_id": i, "category_id": 1 - i, "bbox": [10, 10, 40, 40], "area": 1600, "iscrowd": 0}
                for i in (0, 1)
            ],
        }
        write_json(root / f"annotations/{subtask}.json", content)
        write_images(root / "images" / subtask, ("0.jpg", "1.jpg"))
    return root


V3DET = {1: ("animal", 0), 2: ("bird", 0), 3: ("robin", 1), 4: ("Sword", 0), 5: ("sword", 1)}
"""Category id -> name, novel."""


def write_v3det(root: Path) -> Path:
    folder = root / "annotations"
    rows = [(1, 2, [10, 10, 20, 20]), (1, 4, [50, 50, 20, 20]), (2, 3, [0, 0, 30, 30])]
    content = {
        "images": [image_row(i, f"images/n0{i}/{i}.jpg") for i in (1, 2)],
        "categories": [
            {"id": i, "name": name, "novel": novel, "cat_info": ["x"]} for i, (name, novel) in V3DET.items()
        ],
        "annotations": [
            {"id": n, "image_id": i, "category_id": c, "bbox": box, "area": box[2] * box[3], "iscrowd": 0}
            for n, (i, c, box) in enumerate(rows, 1)
        ],
    }
    write_json(folder / "v3det_2023_v1_val.json", content)
    tree = {
        "categoryid2treeid": {str(i): f"n{i}" for i in V3DET},
        "ancestor2descendant": {"n1": ["n2", "n3", "n77"], "n2": ["n3"], "n99": ["n1"]},
        "id2name": {},
    }
    write_json(folder / "v3det_2023_v1_category_tree.json", tree)
    write_images(root, (f"images/n0{i}/{i}.jpg" for i in (1, 2)))
    return root
