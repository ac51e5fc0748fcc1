"""Random views of annotated images: crop, mirror, light and colour, and which categories are asked for.

A view is a function of its sample and the random numbers given. Boxes follow the image; one of which a crop leaves less
than `MIN_VISIBLE` is no longer asked for, and the rest are clipped.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from PIL import Image

from visionr1.boxes import box_area
from visionr1.samples import Boxes, Query, Sample, normalize_label, normalized_labels

Rng = np.random.Generator

MIN_VISIBLE = 0.35  # share of a box's area
MIN_CROP = 0.55  # share of the image's width and height
MIN_SIDE = 6.0  # pixels of the original image
SUBSET_SHARE = 0.2  # of the views are asked for some of the categories only
COLOR_RANGE = 0.15  # gains and offsets, relative to full scale


def augment_sample(sample: Sample, image: Image.Image, rng: Rng) -> Sample:
    """Return a random view of `sample`, whose decoded RGB image is `image`."""
    image, boxes = _crop(image, sample.truth, rng)
    image, boxes = _mirror(image, boxes, rng)
    query = _choose_categories(sample.query, rng)

    # Boxes of categories that are no longer asked for are no longer true.
    labels = normalized_labels(query.categories)
    kept = []
    for row, label in enumerate(boxes.labels):
        if normalize_label(label) in labels:
            kept.append(row)
    return replace(
        sample,
        image=_recolor(image, rng),
        query=query,
        truth=boxes.take(kept),
        size_wh=image.size,
    )


def _crop(image: Image.Image, boxes: Boxes, rng: Rng) -> tuple[Image.Image, Boxes]:
    """Return the whole image in three of ten views, else a part of it of nearly the same shape."""
    if rng.random() < 0.3:
        return image, boxes

    # One scale for both sides, each of which then differs a little.
    scale = rng.uniform(MIN_CROP, 1.0)
    width = round(image.width * min(1.0, scale * rng.uniform(0.9, 1.1)))
    height = round(image.height * min(1.0, scale * rng.uniform(0.9, 1.1)))
    left = int(rng.integers(0, image.width - width + 1))
    top = int(rng.integers(0, image.height - height + 1))

    # A box that the crop cut down to a sliver cannot be recognized, and would teach to guess.
    moved = boxes.xyxy - (left, top, left, top)
    clipped = moved.clip(0, (width, height, width, height))
    visible = box_area(clipped) >= MIN_VISIBLE * box_area(boxes.xyxy)
    large = (clipped[:, 2:] - clipped[:, :2] >= MIN_SIDE).all(1)
    kept = np.flatnonzero(visible & large)
    view = image.crop((left, top, left + width, top + height))
    return view, Boxes(clipped, boxes.labels).take(kept)


def _mirror(image: Image.Image, boxes: Boxes, rng: Rng) -> tuple[Image.Image, Boxes]:
    """Mirror left to right in half of the views, and top to bottom in half of them."""
    xyxy = boxes.xyxy
    if rng.random() < 0.5:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        xyxy = np.stack([image.width - xyxy[:, 2], xyxy[:, 1], image.width - xyxy[:, 0], xyxy[:, 3]], 1)
    if rng.random() < 0.5:
        image = image.transpose(Image.Transpose.FLIP_TOP_BOTTOM)
        xyxy = np.stack([xyxy[:, 0], image.height - xyxy[:, 3], xyxy[:, 2], image.height - xyxy[:, 1]], 1)
    return image, Boxes(xyxy, boxes.labels)


def _recolor(image: Image.Image, rng: Rng) -> Image.Image:
    """Scale and shift each channel, by a table of its 256 values."""
    gain = rng.uniform(-COLOR_RANGE, COLOR_RANGE) + rng.uniform(-COLOR_RANGE, COLOR_RANGE, 3) / 2
    offset = rng.uniform(-COLOR_RANGE, COLOR_RANGE) + rng.uniform(-COLOR_RANGE, COLOR_RANGE, 3) / 2

    # Contrast turns about mid-grey, 128; the table is red's, then green's, then blue's.
    levels = np.arange(256)[None]
    table = (levels - 128) * (1 + 2 * gain[:, None]) + 128 + 128 * offset[:, None]
    return image.point(table.clip(0, 255).astype(int).ravel().tolist())


def _choose_categories(query: Query, rng: Rng) -> Query:
    """Ask for some of the categories alone in SUBSET_SHARE of the views."""
    if query.task != "detection" or rng.random() >= SUBSET_SHARE:
        return query
    order = rng.permutation(len(query.categories))
    count = int(rng.integers(1, len(query.categories) + 1))
    return Query("detection", tuple(query.categories[position] for position in order[:count]))
