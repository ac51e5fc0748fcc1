"""Boxes with labels on images, readable on light and dark ones; a label has the same colour everywhere."""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from zlib import crc32

from PIL import Image, ImageColor, ImageDraw

from visionr1.errors import DataError
from visionr1.files import encode_text, write_bytes_atomic
from visionr1.images import to_rgb
from visionr1.report.fonts import choose_font
from visionr1.rewards import Score
from visionr1.samples import Boxes, GroundTruth, compose_text, normalize_label

Color = tuple[int, ...]
Chip = tuple[float, float, float, float]
"""The ground of a caption: left, top, right, bottom in pixels of the canvas."""

HEX_COLORS = "#e63946 #1d7ac4 #2ea043 #f59f00 #8c52c7 #00a8a8 #de58a0 #79553d #62721e #ff7043 #3f51b5 #9e9d24"
PALETTE: tuple[Color, ...] = tuple(map(ImageColor.getrgb, HEX_COLORS.split()))
DARK, LIGHT = (20, 20, 20), (255, 255, 255)
SMALLEST_EDGE = 480


def label_color(label: str, labels: Sequence[str] = ()) -> Color:
    """Return the colour of `label`: by its place in `labels` if it is there, else by its name."""
    name = normalize_label(label)
    names = list(map(normalize_label, labels))
    if name in names:
        return PALETTE[names.index(name) % len(PALETTE)]
    # Unlike Python's own hash, a checksum is the same in every process.
    return PALETTE[crc32(encode_text(name)) % len(PALETTE)]


def draw_boxes(
    image: Image.Image,
    boxes: Boxes,
    *,
    categories: Sequence[str] = (),
    captions: Sequence[str] | None = None,
    title: str = "",
) -> Image.Image:
    """Return a copy of `image` in RGB with `boxes` (xyxy original pixels) and their captions, by default the labels.

    Small images are enlarged so that the text can be read. `categories` fixes the colours; `title` stands above.
    """
    scale = max(1.0, SMALLEST_EDGE / min(image.size))
    canvas = to_rgb(image)
    if scale > 1:
        canvas = canvas.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.LANCZOS)

    # Line width and text grow with the image.
    unit = max(1, round(min(canvas.size) / 300))
    text_size = max(11, round(min(canvas.size) / 40))
    pen = ImageDraw.Draw(canvas)
    corners = (scale * boxes.xyxy).tolist()
    for box, label in zip(corners, boxes.labels, strict=True):
        _draw_outline(pen, box, label_color(label, categories), unit)

    # Captions come after all outlines, so that none is crossed by the line of another box.
    taken: list[Chip] = []
    for box, label, caption in zip(corners, boxes.labels, captions or boxes.labels, strict=True):
        _draw_caption(pen, box, caption, label_color(label, categories), text_size, canvas.size, taken)
    if title:
        return _add_title(canvas, title, text_size)
    return canvas


def draw_score(image: Image.Image, score: Score, truth: GroundTruth) -> Image.Image:
    """Draw the predicted boxes, each with the IoU of its pair, beside the true ones, of which the missed are named."""
    if score.reply is None or score.pairs is None:
        raise DataError("this reward tells no boxes and matched pairs to draw")

    # Captions of boxes without a partner, replaced below for those that have one.
    predicted_captions = [f"{label}: none" for label in score.reply.boxes.labels]
    true_captions = [f"{label}: missed" for label in truth.boxes.labels]
    for pair in score.pairs:
        predicted_captions[pair.predicted] = f"{score.reply.boxes.labels[pair.predicted]} {pair.iou:.2f}"
        true_captions[pair.true] = truth.boxes.labels[pair.true]

    parts = " + ".join(f"{name} {value:.2f}" for name, value in score.parts.items())
    predicted = draw_boxes(
        image,
        score.reply.boxes,
        categories=truth.categories,
        captions=predicted_captions,
        title=f"predicted: {score.total:.2f} = {parts}",
    )
    true = draw_boxes(image, truth.boxes, categories=truth.categories, captions=true_captions, title="true")
    return side_by_side([predicted, true])


def side_by_side(images: Sequence[Image.Image], *, gap: int = 8) -> Image.Image:
    """Put the images in a row, aligned at the top, on white."""
    width = gap * (len(images) - 1)
    height = 0
    for image in images:
        width += image.width
        height = max(height, image.height)

    row = Image.new("RGB", (width, height), LIGHT)
    left = 0
    for image in images:
        row.paste(image, (left, 0))
        left += image.width + gap
    return row


def save_png(image: Image.Image, path: Path) -> None:
    """Write a PNG file, whole or not at all."""
    buffer = BytesIO()
    image.save(buffer, "PNG")
    write_bytes_atomic(path, buffer.getvalue())


def _draw_outline(pen: ImageDraw.ImageDraw, box: Sequence[float], color: Color, unit: int) -> None:
    """Draw a line in `color` between two thin dark ones, so that it stands out on any ground."""
    # A model may write corners in the wrong order, which Pillow refuses.
    x1, y1 = box[0], box[1]
    x2 = max(x1, box[2])
    y2 = max(y1, box[3])

    width = 2 * unit
    pen.rectangle((x1 - 1, y1 - 1, x2 + 1, y2 + 1), outline=DARK, width=width + 2)
    pen.rectangle((x1, y1, x2, y2), outline=color, width=width)


def _draw_caption(
    pen: ImageDraw.ImageDraw,
    box: Sequence[float],
    caption: str,
    color: Color,
    text_size: int,
    size: tuple[int, int],
    taken: list[Chip],
) -> None:
    """Write the caption on a chip of `color` at the box's corner: the first free of four places, inside the image."""
    caption = _clean(caption)
    font = choose_font(caption, text_size)

    # Three pixels of the chip on each side of the text.
    text_left, text_top, text_right, text_bottom = pen.textbbox((0, 0), caption, font=font)
    width = text_right - text_left + 6
    height = text_bottom - text_top + 6
    x1, y1, x2, y2 = box

    # Above and inside the upper left corner, then below and inside the lower right one.
    chips = []
    for x, y in ((x1, y1 - height), (x1, y1), (x2 - width, y2), (x2 - width, y2 - height)):
        left = max(0.0, min(x, size[0] - width))
        top = max(0.0, min(y, size[1] - height))
        chips.append((left, top, left + width, top + height))
    chip = _choose_free(chips, taken)
    taken.append(chip)

    pen.rectangle(chip, fill=color)
    position = (chip[0] + 3 - text_left, chip[1] + 3 - text_top)
    pen.text(position, caption, font=font, fill=_choose_text_color(color))


def _choose_free(chips: Sequence[Chip], taken: Sequence[Chip]) -> Chip:
    """Return the first of `chips` that overlaps none of those `taken`; the very first if there is no room."""
    for chip in chips:
        if not any(_overlap(chip, other) for other in taken):
            return chip
    return chips[0]


def _choose_text_color(ground: Color) -> Color:
    """Choose dark text on bright ground and light text on dark ground."""
    red, green, blue = ground
    # The luma of ITU-R BT.601: the eye sees green as brightest.
    if 0.299 * red + 0.587 * green + 0.114 * blue > 150:
        return DARK
    return LIGHT


def _overlap(a: Chip, b: Chip) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def _clean(text: str) -> str:
    """Return text as fonts can draw it: composed (NFC), half characters as question marks."""
    return compose_text(text).encode(errors="replace").decode()


def _add_title(image: Image.Image, title: str, text_size: int) -> Image.Image:
    """Put the image below a line of text on white."""
    title = _clean(title)
    font = choose_font(title, text_size)
    left, top, _, bottom = font.getbbox(title)
    height = int(bottom - top) + 14
    canvas = Image.new("RGB", (image.width, image.height + height), LIGHT)
    canvas.paste(image, (0, height))
    ImageDraw.Draw(canvas).text((4 - left, 7 - top), title, font=font, fill=DARK)
    return canvas
