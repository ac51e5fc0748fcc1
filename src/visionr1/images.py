"""Image files in, RGB pixels out: the one place that opens them, so that sizes, boxes and what a model sees agree.

An image is turned as its EXIF orientation says, as detectron2, cv2 (mmdetection) and transformers do. 16-bit grey keeps
its upper 8 bits, as cv2 does; transparency lies on white, as in transformers' `convert_to_rgb`.

Only the formats of FORMATS are opened: for others Pillow may start another program (Ghostscript for EPS). An image of
more pixels than `max_pixels()` is refused by its header, so that a small file cannot fill the memory.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from io import BytesIO
from pathlib import Path
from threading import Lock

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, UnidentifiedImageError

from visionr1.errors import DataError

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM", "JPEG2000", "AVIF")
"""The formats that are read, by Pillow's names; a Pillow without one of them (AVIF before 11.3) reads the others."""
MAX_PIXELS = 178_956_970
"""The most pixels of an image that is read, as many as Pillow decodes; MAX_PIXELS_VARIABLE sets another number."""
MAX_PIXELS_VARIABLE = "VISIONR1_MAX_IMAGE_PIXELS"

_STRIP_PIXELS = 1 << 22
"""Modes that are converted by way of larger types are converted in strips of so many pixels, to save memory."""
_opening = Lock()
"""Pillow's own limit of pixels is a variable of its module, which is changed while an image is opened."""

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


def has_size(path: Path, size_wh: tuple[int, int]) -> bool:
    """Return True if `read_image` takes an image file as one of `size_wh`: upright, or as stored; by its header."""
    try:
        with _open_image(path, str(path)) as opened:
            stored = opened.size
    except DataError:
        return False
    return stored == size_wh or image_size(path) == size_wh


def max_pixels() -> int:
    """Return the most pixels of an image that is read; DataError if MAX_PIXELS_VARIABLE is set to no such number."""
    setting = os.environ.get(MAX_PIXELS_VARIABLE, "")
    if not setting:
        return MAX_PIXELS
    if not setting.isascii() or not setting.isdecimal() or len(setting) > 18 or int(setting) < 1:
        raise DataError(f"{MAX_PIXELS_VARIABLE}: expected a number of pixels, such as 400000000, found {setting!r:.60}")
    return int(setting)


def to_rgb(image: Image.Image) -> Image.Image:
    """Copy an image of any mode to RGB; ValueError for whole numbers beyond 16 bits or floats beyond 0 to 1."""
    if image.mode == "F" or image.mode.startswith("I"):
        return _grey_to_rgb(image)
    if not image.has_transparency_data:
        return image.convert("RGB")

    # Transparent parts show the white of a page.
    rgb = Image.new("RGB", image.size)
    for top, strip in _cut_strips(image):
        white = Image.new("RGBA", strip.size, "white")
        rgb.paste(Image.alpha_composite(white, strip.convert("RGBA")).convert("RGB"), (0, top))
    return rgb


def _grey_to_rgb(image: Image.Image) -> Image.Image:
    """Convert an image of 16-bit whole numbers, or of floats from 0 to 1, to RGB."""
    full = 1 if image.mode == "F" else 65535
    lows = []
    highs = []
    for _, strip in _cut_strips(image):
        values = np.asarray(strip)
        lows.append(float(values.min()))
        highs.append(float(values.max()))

    # Not by Python's min and max, which can pass over NaN.
    low, high = float(np.min(lows)), float(np.max(highs))
    if not 0 <= low <= high <= full:
        raise ValueError(f"expected grey values from 0 to {full}, found {low:g} to {high:g}; save it with 8 bits")

    grey = Image.new("L", image.size)
    for top, strip in _cut_strips(image):
        grey.paste(Image.fromarray(_eight_bits(np.asarray(strip))), (0, top))
    return grey.convert("RGB")


def _eight_bits(grey: NDArray[np.generic]) -> NDArray[np.uint8]:
    """Convert (H, W) of 16-bit whole numbers, or of floats from 0 to 1, to 8 bits."""
    if np.issubdtype(grey.dtype, np.floating):
        return np.rint(grey.astype(np.float64) * 255).astype(np.uint8)
    return (grey.astype(np.int32) // 256).astype(np.uint8)


def _cut_strips(image: Image.Image) -> Iterator[tuple[int, Image.Image]]:
    """Yield the image in strips of whole rows, each with its top row."""
    num_rows = max(1, _STRIP_PIXELS // image.width)
    for top in range(0, image.height, num_rows):
        yield top, image.crop((0, top, image.width, min(top + num_rows, image.height)))


@contextmanager
def _open_image(source: Path | bytes, name: str) -> Iterator[Image.Image]:
    """Open an image inside this block, decoded when it is used; whatever fails there is a DataError that names it."""
    try:
        with _open_any_size(source) as image:
            _check_pixels(image, name)
            yield image
    except DataError:
        raise
    # Pillow's decoders raise errors of many kinds on broken files: RuntimeError, TypeError, NotImplementedError ...
    except Exception as error:
        problem = _describe_problem(source, error)
        raise DataError(f"{name}: cannot read this image ({problem}); replace the file or leave it out") from error


def _check_pixels(image: Image.Image, name: str) -> None:
    """Raise DataError for an image of more than `max_pixels()`."""
    num_pixels = image.width * image.height
    limit = max_pixels()
    if num_pixels > limit:
        size = f"{image.width}x{image.height} = {num_pixels} pixels"
        raise DataError(
            f"{name}: the image has {size}, and only those of up to {limit} are read; cut it into tiles, with their "
            f"boxes, or raise the limit by the environment: {MAX_PIXELS_VARIABLE}={num_pixels} "
            "(docs/faq.md#an-image-has-too-many-pixels)"
        )


def _open_any_size(source: Path | bytes) -> Image.Image:
    """Open an image, which reads its header alone, without Pillow's own limit of pixels."""
    with _opening:
        limit = Image.MAX_IMAGE_PIXELS
        Image.MAX_IMAGE_PIXELS = None
        try:
            return Image.open(BytesIO(source) if isinstance(source, bytes) else source, formats=_list_formats())
        finally:
            Image.MAX_IMAGE_PIXELS = limit


@cache
def _list_formats() -> tuple[str, ...]:
    """Return those of FORMATS that the installed Pillow can open."""
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


def _describe_problem(source: Path | bytes, error: Exception) -> str:
    """Return the words for an error of Pillow's."""
    if isinstance(error, UnidentifiedImageError):
        num_bytes = len(source) if isinstance(source, bytes) else source.stat().st_size
        if num_bytes == 0:
            return "the file is empty"
        return f"its content is none of {', '.join(_list_formats())}"
    return str(error) or type(error).__name__


def _find_turn(image: Image.Image) -> Image.Transpose | None:
    """Return what puts an opened image upright. Pillow turns TIFF by itself; EXIF that cannot be read says nothing."""
    if image.format == "TIFF":
        return None
    try:
        return _TURNS.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # noqa: BLE001 (EXIF breaks in as many ways as images, and the pixels may be whole)
        return None
