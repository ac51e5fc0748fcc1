"""Image files in, RGB pixels out: the one place that opens them, so that sizes, boxes and what a model sees agree.

An image is turned as its EXIF orientation says, as detectron2, cv2 (mmdetection) and transformers do. 16-bit grey keeps
its upper 8 bits, as cv2 does; transparency lies on white, as in transformers' `convert_to_rgb`.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image

from visionr1.errors import DataError

_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""The transpose that puts an image of each EXIF orientation upright."""


def read_image(source: Path | bytes, *, name: str | None = None, size_wh: tuple[int, int] | None = None) -> Image.Image:
    """Return the image in RGB, upright; `size_wh` is what the annotations say of it.

    Where only the size as stored, before turning, is `size_wh`, the boxes were made on that, and it is not turned.
    Raises DataError, naming the file (or `name`), if it is missing, cannot be decoded or has another size.
    """
    name = name or str(source)
    with _open_image(source, name) as opened:
        turn = _find_turn(opened)
        stored = to_rgb(opened)
    upright = stored if turn is None else stored.transpose(turn)
    if size_wh is None or upright.size == size_wh:
        return upright
    if stored.size == size_wh:
        return stored

    turned = ""
    if turn is not None:
        turned = f" as stored, {upright.width}x{upright.height} turned as its EXIF says"
    raise DataError(
        f"{name}: the annotations say {size_wh[0]}x{size_wh[1]} pixels, but the file has "
        f"{stored.width}x{stored.height}{turned}; put the image there that was annotated (boxes do not fit one turned "
        "or resized since), or correct width and height if they alone are wrong"
    )


def image_size(source: Path | bytes, *, name: str | None = None) -> tuple[int, int]:
    """Return width and height of the upright image, from its header; DataError if it cannot be read."""
    with _open_image(source, name or str(source)) as opened:
        width, height = opened.size
        turn = _find_turn(opened)

    # Orientations 5 to 8 lie on their side.
    if turn in (_TURNS[5], _TURNS[6], _TURNS[7], _TURNS[8]):
        return height, width
    return width, height


def to_rgb(image: Image.Image) -> Image.Image:
    """Copy an image of any mode to RGB; ValueError for whole numbers beyond 16 bits or floats beyond 0 to 1."""
    if image.mode == "F" or image.mode.startswith("I"):
        return Image.fromarray(_eight_bits(np.asarray(image))).convert("RGB")
    if not image.has_transparency_data:
        return image.convert("RGB")

    # Transparent parts show the white of a page.
    white = Image.new("RGBA", image.size, "white")
    return Image.alpha_composite(white, image.convert("RGBA")).convert("RGB")


def _eight_bits(grey: NDArray[np.generic]) -> NDArray[np.uint8]:
    """Convert (H, W) of 16-bit whole numbers, or of floats from 0 to 1, to 8 bits."""
    is_float = np.issubdtype(grey.dtype, np.floating)
    full = 1 if is_float else 65535
    low = float(grey.min())
    high = float(grey.max())
    if not 0 <= low <= high <= full:
        raise ValueError(f"expected grey values from 0 to {full}, found {low:g} to {high:g}; save it with 8 bits")

    values = grey.astype(np.float64)
    if is_float:
        return np.rint(values * 255).astype(np.uint8)
    return (values // 256).astype(np.uint8)


@contextmanager
def _open_image(source: Path | bytes, name: str) -> Iterator[Image.Image]:
    try:
        with Image.open(BytesIO(source) if isinstance(source, bytes) else source) as image:
            yield image
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(f"{name}: cannot read this image ({error}); replace the file or leave it out") from error


def _find_turn(image: Image.Image) -> Image.Transpose | None:
    """Return what puts an opened image upright. Pillow turns TIFF by itself; EXIF that cannot be read says nothing."""
    if image.format == "TIFF":
        return None
    try:
        return _TURNS.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    except (OSError, SyntaxError, ValueError, TypeError, struct.error):
        return None
