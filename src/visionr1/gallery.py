"""Boxes over the same image, side by side, as inline SVG: what is true, and what each model said.

Colours mark categories; a dashed box is a false one. Class names are those of `report.css`.
"""

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

from PIL import Image

from visionr1.boxes import iou_matrix, match_iou
from visionr1.samples import Boxes, Sample, normalize_label

LONGEST_EDGE = 560
JPEG_QUALITY = 80
NUM_COLORS = 6


@dataclass(frozen=True, slots=True)
class Shown:
    """One panel: its name, boxes in original pixels, and which of them are right (None: all are true)."""

    name: str
    boxes: Boxes
    right: Sequence[bool] | None = None


def check(name: str, predicted: Boxes, truth: Boxes, threshold: float = 0.5) -> Shown:
    """A panel of `predicted`: one is right if it is matched one-to-one at IoU >= `threshold` with its own label."""
    right = [False] * len(predicted)
    for p, k in match_iou(iou_matrix(predicted.xyxy, truth.xyxy), threshold).tolist():
        right[p] = normalize_label(predicted.labels[p]) == normalize_label(truth.labels[k])
    return Shown(name, predicted, right)


def side_by_side(sample: Sample, panels: Sequence[Shown], colors: Mapping[str, int], key: str) -> str:
    """One row: `sample` once per panel. `colors` numbers the normalised labels; `key` is unique in the page."""
    figures = "".join(_panel(sample, panel, colors, key, first=i == 0) for i, panel in enumerate(panels))
    return f'<div class="triple"><p class="name">{escape(sample.id)}</p>{figures}</div>'


def color_of(labels: Sequence[str]) -> dict[str, int]:
    """A colour number per category, in their order."""
    return {normalize_label(label): i % NUM_COLORS for i, label in enumerate(labels)}


def legend(labels: Sequence[str]) -> str:
    """What the colours and the dashes mean."""
    items = "".join(
        f'<li class="k{color}"><span class="swatch"></span>{escape(label)}</li>'
        for label, color in zip(labels, color_of(labels).values(), strict=True)
    )
    dashed = '<li><span class="swatch dashed"></span>false: no object of its category is matched to it at IoU 0.5</li>'
    return f'<ul class="keys">{items}{dashed}</ul>'


def _panel(sample: Sample, panel: Shown, colors: Mapping[str, int], key: str, *, first: bool) -> str:
    width, height = sample.size_wh
    image = (
        f'<image id="{key}" href="{_image_data(sample)}" width="{width}" height="{height}"/>'
        if first
        else f'<use href="#{key}"/>'
    )
    rights = panel.right or [True] * len(panel.boxes)
    boxes = "".join(
        _box(xyxy, label, colors, right)
        for xyxy, label, right in zip(panel.boxes.xyxy.tolist(), panel.boxes.labels, rights, strict=True)
    )
    words = _in_words(panel, len(sample.truth))
    return (
        f'<figure><svg viewBox="0 0 {width} {height}" role="img" '
        f'aria-label="{escape(f"{panel.name}: {words}, on {sample.id}")}">{image}{boxes}</svg>'
        f"<figcaption><strong>{escape(panel.name)}</strong>{words}</figcaption></figure>"
    )


def _box(xyxy: Sequence[float], label: str, colors: Mapping[str, int], right: bool) -> str:
    x1, y1, x2, y2 = xyxy
    place = f'x="{x1:.1f}" y="{y1:.1f}" width="{x2 - x1:.1f}" height="{y2 - y1:.1f}"'
    color = colors.get(normalize_label(label))
    kind = f"box {'' if right else 'false '}{'unknown' if color is None else f'k{color}'}"
    return f'<rect class="halo" {place}/><rect class="{kind}" {place}><title>{escape(label)}</title></rect>'


def _in_words(panel: Shown, num_true: int) -> str:
    if panel.right is None:
        return f"{num_true} objects"
    found = sum(panel.right)
    return f"{found} of {num_true} found, {len(panel.right) - found} false"


def _image_data(sample: Sample) -> str:
    image = sample.load_image()
    image.thumbnail((LONGEST_EDGE, LONGEST_EDGE), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=JPEG_QUALITY)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
