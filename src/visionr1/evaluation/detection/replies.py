"""Replies of a model as boxes of a table: their image, category and score, and what was wrong with the text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from visionr1.boxes import Array, xyxy_to_xywh
from visionr1.data.ids import IdIndex
from visionr1.data.table import BoxTable, Index, map_positions
from visionr1.dialects import Dialect
from visionr1.dialects.json_dialect import JsonDialect
from visionr1.errors import DataError
from visionr1.evaluation.detection.coco import Detections
from visionr1.evaluation.detection.release_salvage import release_list
from visionr1.evaluation.detection.token_scores import token_scores
from visionr1.evaluation.predictions import Prediction
from visionr1.evaluation.protocols import Protocol
from visionr1.samples import FaultKind, Reply, Size, compose_text, normalize_label

RANK_DECAY = 0.001
NOT_ASKED_FOR = -1
"""The category of a box whose label its own prompt did not ask for."""


@dataclass(frozen=True, slots=True, eq=False)
class TableReplies:
    """R parsed replies to images of a table: the position of each one's image, and the categories it was asked for."""

    predictions: Sequence[Prediction]
    replies: Sequence[Reply]
    images: Sequence[int]
    asked: Sequence[tuple[str, ...]]

    def boxes(self, table: BoxTable, scores: Sequence[Array]) -> tuple[Detections, Index]:
        """Return all D boxes in emission order, NOT_ASKED_FOR among them, and the place (D,) of each one's reply."""
        indexes = table.label_indexes(self.asked)
        categories: list[int] = []
        num_boxes: list[int] = []
        xyxy = [np.zeros((0, 4))]
        for reply, asked in zip(self.replies, self.asked, strict=True):
            index = indexes[asked]
            for label in reply.boxes.labels:
                # As it stands, then as labels are compared: V3Det has categories that differ in case alone.
                category = index.get(compose_text(label.strip()))
                if category is None:
                    category = index.get(normalize_label(label), NOT_ASKED_FOR)
                categories.append(category)
            num_boxes.append(len(reply.boxes))
            xyxy.append(reply.boxes.xyxy)

        detections = Detections(
            image=np.repeat(np.array(self.images, dtype=np.intp), num_boxes),
            category=np.array(categories, dtype=np.intp),
            xywh=xyxy_to_xywh(np.concatenate(xyxy)),
            score=np.concatenate([np.zeros(0), *scores]),
        )
        return detections, np.repeat(np.arange(len(self.replies)), num_boxes)

    def names_only_what_is_there(self, table: BoxTable) -> bool:
        """Return True if prompts name only categories that their image holds, so that naming one tells it is there."""
        # Where every image is asked for every category, naming one tells nothing.
        if not self.asked or sum(map(len, self.asked)) >= len(table) * len(table.categories):
            return False

        present = set()
        for image, category in zip(table.image.tolist(), table.category.tolist(), strict=True):
            present.add((image, normalize_label(table.categories[category])))
        for image, names in zip(self.images, self.asked, strict=True):
            for name in names:
                if (image, normalize_label(name)) not in present:
                    return False
        return True

    def counts(self, table: BoxTable) -> dict[str, int]:
        """Count replies by what became of them, and prompts."""
        prompts = set(zip(self.images, self.asked, strict=True))
        return {
            **count_replies(self.predictions, self.replies),
            "images_without_reply": len(table) - len(set(self.images)),
            "prompts_answered_again": len(self.images) - len(prompts),
            "categories_asked": sum(map(len, self.asked)),
            "categories_times_images": len(table) * len(table.categories),
        }


def parse_replies(
    predictions: Sequence[Prediction], table: BoxTable, dialect: Dialect, protocol: Protocol
) -> TableReplies:
    """Parse raw replies to images of a table.

    Raises DataError for an image id that the table does not have, and for a reply whose dialect needs a size that is
    missing.
    """
    places = map_positions(table.image_ids)
    image_ids = IdIndex(table.image_ids)
    images = []
    replies = []
    asked = []
    for prediction in predictions:
        image_id = image_ids.find(prediction.image_id)
        if image_id is None:
            raise DataError(
                f"a prediction has image_id {prediction.image_id!r}, which {table.path} does not have "
                "(docs/faq.md#a-prediction-has-an-image_id-that-the-data-does-not-have)"
            )
        image = places[image_id]
        images.append(image)
        replies.append(_parse(prediction, table, image, dialect, protocol))
        # A prediction that names no categories was asked for all.
        asked.append(tuple(prediction.categories or table.categories))
    return TableReplies(predictions, replies, images, asked)


def score_boxes(parsed: TableReplies, table: BoxTable, dialect: Dialect, protocol: Protocol) -> list[Array]:
    """Return the scores of the boxes of each reply, as the protocol has them. Ranks go on over replies to one image."""
    scores: list[Array] = []
    if protocol.scores == "token":
        for prediction, reply, image in zip(parsed.predictions, parsed.replies, parsed.images, strict=True):
            parse = partial(_parse_text, prediction, table, image, dialect, protocol)
            scores.append(token_scores(prediction, reply, parse))
        return scores
    if protocol.scores == "constant":
        for reply in parsed.replies:
            scores.append(np.full(len(reply.boxes), protocol.constant_score))
        return scores

    # Ranks: the first box of an image scores 1, each further one a little less.
    emitted: Counter[int] = Counter()
    for image, reply in zip(parsed.images, parsed.replies, strict=True):
        ranks = np.arange(emitted[image], emitted[image] + len(reply.boxes), dtype=np.float64)
        scores.append(1 - RANK_DECAY * ranks)
        emitted[image] += len(reply.boxes)
    return scores


def count_stray_boxes(
    parsed: TableReplies, table: BoxTable, image_of_unasked: Index, reply_of_unasked: Index, kept: Sequence[int] | None
) -> NDArray[np.int64]:
    """Count the boxes (N,) of each image that no category takes: malformed, or with a label not asked for.

    With `kept`, positions of categories, only those of replies that were asked for one of them.
    """
    # The replies concerned: all, or those that were asked for one of the kept categories.
    is_concerned = np.ones(len(parsed.replies), dtype=bool)
    if kept is not None:
        kept_names = {table.categories[place] for place in kept}
        for place, asked in enumerate(parsed.asked):
            is_concerned[place] = not kept_names.isdisjoint(asked)
    num_malformed = np.array([reply.num_malformed for reply in parsed.replies], dtype=np.int64)

    stray = np.bincount(image_of_unasked[is_concerned[reply_of_unasked]], minlength=len(table))
    np.add.at(stray, parsed.images, is_concerned * num_malformed)
    return stray


def count_replies(predictions: Sequence[Prediction], replies: Sequence[Reply]) -> dict[str, int]:
    """Count replies, and their boxes that are of no use, by what is wrong with them."""
    counts = dict.fromkeys(
        ("replies", "well_formed", "unparsable", "truncated", "unknown_labels", "malformed_boxes"), 0
    )
    for prediction, reply in zip(predictions, replies, strict=True):
        kinds = [fault.kind for fault in reply.faults]
        counts["replies"] += 1
        counts["well_formed"] += reply.well_formed
        counts["unparsable"] += not reply.well_formed and not reply.num_predicted
        counts["truncated"] += prediction.truncated or FaultKind.TRUNCATED in kinds
        counts["unknown_labels"] += kinds.count(FaultKind.UNKNOWN_LABEL)
        counts["malformed_boxes"] += reply.num_malformed
    return counts


def count_faults(replies: Sequence[Reply]) -> dict[str, int]:
    """Count the replies that have each kind of fault, by the kind's name."""
    faults: Counter[str] = Counter()
    for reply in replies:
        faults.update({str(fault.kind) for fault in reply.faults})
    return dict(sorted(faults.items()))


def input_size_of(prediction: Prediction, size_wh: Size, dialect: Dialect, reply: str) -> Size:
    """Return the size of the image as the model saw it; any will do for a dialect that is not in those pixels.

    Raises DataError, calling the reply `reply`, if it is needed and missing.
    """
    if prediction.input_size_wh is None and dialect.in_model_px:
        raise DataError(
            f"{reply} has no input_size_wh; boxes of dialect {dialect.name} "
            "are in pixels of the image as the model saw it, so its [width, height] must be given"
        )
    return prediction.input_size_wh or size_wh


def _parse(prediction: Prediction, table: BoxTable, image: int, dialect: Dialect, protocol: Protocol) -> Reply:
    """Parse one reply; with salvage=release its boxes are those that Vision-R1's release reads, its faults the same."""
    width, height = table.sizes_wh[image].tolist()
    if not (width and height):
        raise DataError(
            f"{table.path}: image {prediction.image_id!r}: width, height: needed to read replies, but missing"
        )

    size_wh = (width, height)
    where = f"the prediction for image {prediction.image_id!r}"
    parse = partial(
        dialect.parse,
        size_wh=size_wh,
        input_size_wh=input_size_of(prediction, size_wh, dialect, where),
        categories=prediction.categories or table.categories,
    )
    reply = parse(prediction.text)

    # The release reads a list of JSON objects.
    if protocol.salvage == "release" and isinstance(dialect, JsonDialect):
        salvaged = parse(release_list(prediction.text))
        reply = replace(reply, boxes=salvaged.boxes, num_malformed=salvaged.num_malformed)
    return reply


def _parse_text(
    prediction: Prediction, table: BoxTable, image: int, dialect: Dialect, protocol: Protocol, text: str
) -> Reply:
    """Parse `text` as if it were the whole reply."""
    return _parse(replace(prediction, text=text), table, image, dialect, protocol)
