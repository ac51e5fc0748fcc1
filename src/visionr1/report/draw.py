"""Boxes with labels on images, readable on light and dark ones; a label has the same colour everywhere."""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from zlib import crc32

from PIL import Image, ImageColor, ImageDraw, ImageFont

from visionr1.files import write_bytes_atomic
from visionr1.images import to_rgb
from visionr1.rewards import Score
from visionr1.samples import Boxes, GroundTruth, normalize_label

Color = tuple[int, ...]

PALETTE: tuple[Color, ...] = tuple(
    map(
        ImageColor.getrgb,
        "#e63946 #1d7ac4 #2ea043 #f59f00 #8c52c7 #00a8a8 #de58a0 #79553d #62721e #ff7043 #3f51b5 #9e9d24".split(),
    )
)
DARK, LIGHT = (20, 20, 20), (255, 255, 255)
SMALLEST_EDGE = 480


def label_color(label: str, labels: Sequence[str] = ()) -> Color:
    """The colour of `label`: by its place in `labels` if it is there, else by its name."""
    names = [normalize_label(name) for name in labels]
    name = normalize_label(label)
    return PALETTE[(names.index(name) if name in names else crc32(name.encode())) % len(PALETTE)]


def draw_boxes(
    image: Image.Image,
    boxes: Boxes,
    *,
    categories: Sequence[str] = (),
    captions: Sequence[str] | None = None,
    title: str = "",
) -> Image.Image:
    """A copy of `image` in RGB with `boxes` (original pixels) and their captions, by default the labels.

    Small images are enlarged so that the text can be read. `categories` fixes the colours; `title` stands above.
    """
    scale = max(1.0, SMALLEST_EDGE / min(image.size))
    canvas = to_rgb(image)
    if scale > 1:
        canvas = canvas.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.LANCZOS)
    unit = max(1, round(min(canvas.size) / 300))
    font = ImageFont.load_default(max(11, round(min(canvas.size) / 40)))
    pen = ImageDraw.Draw(canvas)
    corners = [tuple(scale * side for side in box) for box in boxes.xyxy.tolist()]
    for box, label in zip(corners, boxes.labels, strict=True):
        _outline(pen, box, label_color(label, categories), unit)
    taken: list[tuple[float, float, float, float]] = []
    for box, label, caption in zip(corners, boxes.labels, captions or boxes.labels, strict=True):
        _caption(pen, box, caption, label_color(label, categories), font, canvas.size, taken)
    return _titled(canvas, title, font) if title else canvas


def draw_score(image: Image.Image, score: Score, truth: GroundTruth) -> Image.Image:
    """What was predicted beside what is true: each predicted box with its pair's IoU, each true one that was missed."""
    iou = {pair.predicted: pair.iou for pair in score.pairs}
    found = {pair.true for pair in score.pairs}
    said = [
        f"{label} {iou[i]:.2f}" if i in iou else f"{label}: none" for i, label in enumerate(score.reply.boxes.labels)
    ]
    true = [label if i in found else f"{label}: missed" for i, label in enumerate(truth.boxes.labels)]
    parts = " + ".join(f"{name} {value:.2f}" for name, value in score.parts.items())
    predicted_title = f"predicted: {score.total:.2f} = {parts}"
    return side_by_side(
        [
            draw_boxes(image, score.reply.boxes, categories=truth.categories, captions=said, title=predicted_title),
            draw_boxes(image, truth.boxes, categories=truth.categories, captions=true, title="true"),
        ]
    )


def side_by_side(images: Sequence[Image.Image], *, gap: int = 8) -> Image.Image:
    """The images in a row, aligned at the top, on white."""
    width = sum(image.width for image in images) + gap * (len(images) - 1)
    row = Image.new("RGB", (width, max(image.height for image in images)), LIGHT)
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


def _outline(pen: ImageDraw.ImageDraw, box: Sequence[float], color: Color, unit: int) -> None:
    """A line in `color` between two thin dark ones, so that it stands out on any ground."""
    x1, y1, x2, y2 = box
    width = 2 * unit
    pen.rectangle((x1 - 1, y1 - 1, max(x2, x1) + 1, max(y2, y1) + 1), outline=DARK, width=width + 2)
    pen.rectangle((x1, y1, max(x2, x1), max(y2, y1)), outline=color, width=width)


def _caption(
    pen: ImageDraw.ImageDraw,
    box: Sequence[float],
    caption: str,
    color: Color,
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
    size: tuple[int, int],
    taken: list[tuple[float, float, float, float]],
) -> None:
    """The caption on a chip of `color` at the box's corner; the first free of four places, inside the image."""
    text_left, text_top, text_right, text_bottom = pen.textbbox((0, 0), caption, font=font)
    width, height = text_right - text_left + 6, text_bottom - text_top + 6
    x1, y1, x2, y2 = box
    places = [(x1, y1 - height), (x1, y1), (x2 - width, y2), (x2 - width, y2 - height)]
    inside = [(max(0.0, min(x, size[0] - width)), max(0.0, min(y, size[1] - height))) for x, y in places]
    chips = [(x, y, x + width, y + height) for x, y in inside]
    chip = next((chip for chip in chips if not any(_overlap(chip, other) for other in taken)), chips[0])
    taken.append(chip)
    pen.rectangle(chip, fill=color)
    bright = 0.299 * color[0] + 0.587 * color[1] + 0.114 * color[2] > 150
    pen.text((chip[0] + 3 - text_left, chip[1] + 3 - text_top), caption, font=font, fill=DARK if bright else LIGHT)


def _overlap(a: Sequence[float], b: Sequence[float]) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def _titled(image: Image.Image, title: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> Image.Image:
    left, top, _, bottom = font.getbbox(title)
    height = int(bottom - top) + 14
    canvas = Image.new("RGB", (image.width, image.height + height), LIGHT)
    canvas.paste(image, (0, height))
    ImageDraw.Draw(canvas).text((4 - left, 7 - top), title, font=font, fill=DARK)
    return canvas
