"""Protocols: everything that an evaluation number depends on, as a record with a name.

Under another protocol the same boxes give an AP that differs by more than the gains papers claim, so no number is
printed without one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class Protocol:
    """How a set is asked, read and scored."""

    name: str
    prompt: Literal["joint", "per_category"] = "joint"
    """All categories in one prompt, or one prompt for each."""
    categories: Literal["all", "present"] = "all"
    """Which are asked for: all of the set, or those that the image's own truth holds (which tells what is there)."""
    scores: Literal["constant", "rank", "file"] = "constant"
    """Of a box: one number for all; 1 - 0.001 x its place in the reply; or as a results file gives it."""
    constant_score: float = 1.0
    parse: Literal["salvage", "strict"] = "salvage"
    """Boxes of a faulty reply: every complete one, or none. Salvage reports the strict AP beside it."""
    order: Literal["file", "image_id"] = "file"
    """Of images, which decides between equal scores: the file's, or by image id as pycocotools; then emission."""
    max_dets: tuple[int, int, int] = (1, 10, 100)
    """Boxes of one category in one image for the three AR; the last is that of every AP too."""
    match_iou: float = 0.5
    """IoU (>=) from which a box counts in precision, recall and F1; one-to-one by largest total IoU, labels equal."""
    dialect: str = ""
    """How the replies write boxes, and in which coordinate space; empty for boxes in original pixels."""
    decoding: str = "greedy"
    max_new_tokens: int = 0
    """Of a reply; 0 where a file of predictions does not say."""

    def line(self) -> str:
        """The protocol in one line, to stand under a number."""
        asked = f"{self.categories} categories {'in one prompt' if self.prompt == 'joint' else 'in a prompt each'}"
        score = f"constant {self.constant_score:g}" if self.scores == "constant" else self.scores
        tokens = f", {self.max_new_tokens} tokens" if self.max_new_tokens else ""
        replies = f"{self.dialect}, {self.decoding}{tokens}; {asked}; {self.parse} parse; " if self.dialect else ""
        return (
            f"protocol {self.name}: {replies}box score {score}; "
            f"ties by {self.order.replace('_', ' ')} order, then emission; "
            f"maxDets {'/'.join(map(str, self.max_dets))}; IoU >=; precision, recall, F1 at IoU {self.match_iou:g}"
        )

    def to_json(self) -> dict[str, Any]:
        """The record as a JSON object."""
        return {**asdict(self), "max_dets": list(self.max_dets)}

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Protocol:
        """The protocol in a stored result; keys of later versions are left out."""
        known = {field.name for field in fields(cls)} & set(record)
        return replace(cls(**{key: record[key] for key in known}), max_dets=tuple(record["max_dets"]))


DEFAULT = Protocol(name="default")
"""All categories in one prompt, salvaged parse with the strict AP beside it, constant score, file order."""

COCO_RESULTS = Protocol(name="coco_results", scores="file", order="image_id", decoding="")
"""A file of COCO results as pycocotools scores it: scores as in the file, ties by image id."""
