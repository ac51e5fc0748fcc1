"""Boxes for supervision (github.com/roboflow/supervision)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from visionr1.boxes import Array
from visionr1.errors import needs_extra
from visionr1.samples import Boxes, normalize_label


def to_supervision(boxes: Boxes, categories: Sequence[str], scores: Array | None = None) -> Any:
    """Return the boxes as `supervision.Detections`, xyxy pixels.

    `class_id` is the place in `categories` (-1 for another label); the labels are in `data["class_name"]`. Raises
    MissingDependency if supervision is not installed.
    """
    with needs_extra("supervision"):
        import supervision

    places = {normalize_label(name): place for place, name in enumerate(categories)}
    class_ids = []
    for label in boxes.labels:
        class_ids.append(places.get(normalize_label(label), -1))
    confidence = None
    if scores is not None:
        confidence = scores.astype(np.float32)
    return supervision.Detections(
        xyxy=boxes.xyxy.astype(np.float32),
        class_id=np.array(class_ids, dtype=int),
        confidence=confidence,
        data={"class_name": np.array(boxes.labels, dtype=str)},
    )
