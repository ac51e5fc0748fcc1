"""The interface of a dialect: how one model family is asked for boxes, writes them as text, and in which space."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from visionr1.boxes import Array, box_area, clip_xyxy, rescale_xyxy
from visionr1.samples import (
    Boxes,
    Fault,
    FaultKind,
    Reply,
    Size,
    Task,
    normalize_label,
    normalized_labels,
)

MAX_BOXES = 1000
"""A reply's first 1000 items are read as boxes; those beyond count as predictions that match nothing."""

NORM1000_WH = (1000.0, 1000.0)
"""The span of coordinates relative to the image in several dialects, 0 to 1000."""


class Dialect(Protocol):
    """Asks for boxes, renders them as the text a model should write, and reads what it wrote.

    Coordinates go from and to original pixels by the processor's true input size; the space is never guessed.
    """

    @property
    def name(self) -> str:
        """The name in recipes, on the command line and in a model folder's visionr1.json."""

    @property
    def templates(self) -> Mapping[Task, str]:
        """The instruction for each task; {} stands for the categories or the expression (see `instruction`)."""

    @property
    def in_model_px(self) -> bool:
        """True if coordinates are pixels of the model's input, so that no reply can be read without its size."""

    def grid_wh(self, *, size_wh: Size, input_size_wh: Size) -> tuple[float, float]:
        """Return the span of the coordinates, from 0, both ends inclusive: a size in pixels, 1000 x 1000 or 1 x 1."""

    def render(self, boxes: Boxes, *, size_wh: Size, input_size_wh: Size) -> str:
        """Return the text for `boxes`, each rounded so that its IoU with the true box is the largest possible.

        Raises ValueError for a label that the dialect cannot write.
        """

    def parse(self, text: str, *, size_wh: Size, input_size_wh: Size, categories: Sequence[str] = ()) -> Reply:
        """Return what can be read of `text`, with typed faults. Never raises on text and takes bounded time.

        A label that is not among `categories` is a fault, unless that is empty.
        """


@runtime_checkable
class HasTokens(Protocol):
    """A dialect that is written in tokens which a tokenizer may hold as special ones: these are sampled and read."""

    @property
    def tokens(self) -> Sequence[str]:
        """All of them: tags, and coordinates where these are tokens."""


@runtime_checkable
class JoinsCategories(Protocol):
    """A dialect whose prompt joins categories by another mark than a comma and a blank."""

    @property
    def category_joiner(self) -> str:
        """The mark, with its blanks."""


def check_encodable(label: str) -> None:
    """Raise ValueError for a label with half a character (a lone surrogate), as a cut-off escape of JSON leaves it."""
    try:
        label.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"label {label!r} holds half a character, which no tokenizer can write") from error


def round_to_grid(xyxy: Array) -> Array:
    """Round boxes (N, 4) in grid units to the integer boxes of largest IoU with them; never empty.

    Along one coordinate IoU falls on both sides of the true value, so the best integer is its floor or its ceiling:
    all 16 combinations are tried.
    """
    if not len(xyxy):
        return xyxy

    # Each of the 16 ways to round the four coordinates down (0) or up (1).
    choices = np.array(np.meshgrid(*[[0, 1]] * 4, indexing="ij")).reshape(4, 16).T  # (16, 4)
    low, high = np.floor(xyxy), np.ceil(xyxy)
    candidates = np.where(choices[None] == 0, low[:, None], high[:, None])  # (N, 16, 4)
    best = find_most_alike(candidates, xyxy)
    return np.take_along_axis(candidates, best[:, None, None], axis=1)[:, 0]


def find_most_alike(candidates: Array, xyxy: Array) -> NDArray[np.intp]:
    """Return for each of the boxes (N, 4) which of its candidates (N, C, 4) has the largest IoU with it: (N,).

    An empty candidate is never chosen where there is another.
    """
    overlap_end = np.minimum(candidates[..., 2:], xyxy[:, None, 2:])
    overlap = overlap_end - np.maximum(candidates[..., :2], xyxy[:, None, :2])
    intersection = np.maximum(overlap, 0.0).prod(axis=-1)
    sides = candidates[..., 2:] - candidates[..., :2]
    union = sides.prod(axis=-1) + box_area(xyxy)[:, None] - intersection
    iou = np.where((sides > 0).all(axis=-1), intersection / np.maximum(union, 1e-12), -1.0)
    best: NDArray[np.intp] = iou.argmax(axis=1)
    return best


def read_reply(
    numbers: list[list[float]],
    labels: list[str],
    items: Sequence[int],
    *,
    num_malformed: int,
    faults: list[Fault],
    grid_wh: tuple[float, float],
    size_wh: Size,
    categories: Sequence[str],
) -> Reply:
    """Return the reply of `numbers` (N lists of four), in a dialect whose coordinates span `grid_wh`, in pixels.

    `items` are the boxes' positions in the reply. Empty boxes, and those wholly outside, become malformed. Those
    partly outside are clipped, and corners in another order are put in order. Appends to `faults`.
    """
    if not numbers:
        return Reply(Boxes.empty(), num_malformed, tuple(faults))

    width, height = grid_wh
    numbers = list(numbers)
    usable: list[int] = []
    for row, (x1, y1, x2, y2) in enumerate(numbers):
        if 0 <= x1 < x2 <= width and 0 <= y1 < y2 <= height:
            usable.append(row)
            continue
        box, box_faults = _order_corners(numbers[row], grid_wh)
        for kind, detail in box_faults:
            faults.append(Fault(kind, items[row], detail))
        if box is not None:
            numbers[row] = box
            usable.append(row)

    # An unknown label is a fault only where the query names its categories.
    kept_labels = [labels[row] for row in usable]
    if categories:
        known = normalized_labels(tuple(categories))
        for row, label in zip(usable, kept_labels, strict=True):
            if normalize_label(label) not in known:
                detail = f"{label!r} was not asked for"
                faults.append(Fault(FaultKind.UNKNOWN_LABEL, items[row], detail))

    # From the dialect's coordinates to original pixels.
    grid_xyxy = np.array(numbers, dtype=np.float64)
    if len(usable) < len(numbers):
        grid_xyxy = grid_xyxy[usable]
    xyxy = clip_xyxy(rescale_xyxy(grid_xyxy, grid_wh, size_wh), size_wh)
    num_unusable = len(numbers) - len(usable)
    return Reply(Boxes(xyxy, tuple(kept_labels)), num_malformed + num_unusable, tuple(faults))


def _order_corners(
    box: list[float], grid_wh: tuple[float, float]
) -> tuple[list[float] | None, list[tuple[FaultKind, str]]]:
    """Return a faulty box with its corners in order, None if nothing of it lies in the image; and its faults."""
    x1, x2 = sorted((box[0], box[2]))
    y1, y2 = sorted((box[1], box[3]))
    faults = []
    if box != [x1, y1, x2, y2] or x1 == x2 or y1 == y2:
        faults.append((FaultKind.INVERTED, f"{box} is empty or inverted"))
    if x1 == x2 or y1 == y2:
        return None, faults

    # Partly outside it will be clipped; wholly outside nothing would be left of it.
    width, height = grid_wh
    if x1 < 0 or y1 < 0 or x2 > width or y2 > height:
        detail = f"{box} leaves the image, {width} x {height} in this dialect"
        faults.append((FaultKind.OUT_OF_BOUNDS, detail))
        if x1 >= width or y1 >= height or x2 <= 0 or y2 <= 0:
            return None, faults
    return [x1, y1, x2, y2], faults
