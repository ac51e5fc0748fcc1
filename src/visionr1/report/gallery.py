"""Boxes over the same image, side by side, as inline SVG: what is true, and what each model said.

Colours mark categories; a dashed box is a false one, a filled one an object that was not found. Class names are those
of `report.css`.
"""

import base64
import io
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape

import numpy as np
from PIL import Image

from visionr1.evaluation.detection.box_errors import image_errors
from visionr1.samples import Boxes, Sample, normalize_label

LONGEST_EDGE = 560
JPEG_QUALITY = 80
NUM_COLORS = 6


@dataclass(frozen=True, slots=True)
class Shown:
    """One panel: its name and boxes in original pixels.

    Of predictions also the `kinds` of their errors, empty for a right box (None: all are true), and the true boxes that
    were not found.
    """

    name: str
    boxes: Boxes
    kinds: Sequence[str] | None = None
    not_found: Boxes = field(default_factory=Boxes.empty)

    @property
    def right(self) -> list[bool]:
        """Which boxes are right."""
        return [not kind for kind in self.kinds or [""] * len(self.boxes)]


def check(name: str, predicted: Boxes, truth: Boxes, threshold: float = 0.5) -> Shown:
    """A panel of `predicted`: one is right if it is matched one-to-one at IoU >= `threshold` with its own label."""
    kinds, lost = image_errors(predicted, truth, threshold)
    labels = tuple(label for label, gone in zip(truth.labels, lost, strict=True) if gone)
    return Shown(name, predicted, kinds, Boxes(truth.xyxy[np.array(lost, dtype=bool)], labels))


def side_by_side(sample: Sample, panels: Sequence[Shown], colors: Mapping[str, int], key: str) -> str:
    """One row: `sample` once per panel. `colors` numbers the normalised labels; `key` is unique in the page."""
    figures = "".join(_panel(sample, panel, colors, key, first=i == 0) for i, panel in enumerate(panels))
    return f'<div class="triple"><p class="name">{escape(sample.id)}</p>{figures}</div>'


def color_of(labels: Sequence[str]) -> dict[str, int]:
    """A colour number per category, in their order."""
    return {normalize_label(label): i % NUM_COLORS for i, label in enumerate(labels)}


def legend(labels: Sequence[str]) -> str:
    """What colours, dashes and fillings mean."""
    items = "".join(
        f'<li class="k{color}"><span class="swatch"></span>{escape(label)}</li>'
        for label, color in zip(labels, color_of(labels).values(), strict=True)
    )
    dashed = '<li><span class="swatch dashed"></span>false: no object of its category is matched to it at IoU 0.5</li>'
    filled = '<li><span class="swatch filled"></span>an object that was not found</li>'
    return f'<ul class="keys">{items}{dashed}{filled}</ul>'


def _panel(sample: Sample, panel: Shown, colors: Mapping[str, int], key: str, *, first: bool) -> str:
    width, height = sample.size_wh
    image = (
        f'<image id="{key}" href="{_image_data(sample)}" width="{width}" height="{height}"/>'
        if first
        else f'<use href="#{key}"/>'
    )
    kinds = panel.kinds or [""] * len(panel.boxes)
    lost = zip(panel.not_found.xyxy.tolist(), panel.not_found.labels, strict=True)
    boxes = "".join(_box(xyxy, label, colors, "not found") for xyxy, label in lost)
    boxes += "".join(
        _box(xyxy, label, colors, kind)
        for xyxy, label, kind in zip(panel.boxes.xyxy.tolist(), panel.boxes.labels, kinds, strict=True)
    )
    words = _in_words(panel, len(sample.truth))
    return (
        f'<figure><svg viewBox="0 0 {width} {height}" role="img" '
        f'aria-label="{escape(f"{panel.name}: {words}, on {sample.id}")}">{image}{boxes}</svg>'
        f"<figcaption><strong>{escape(panel.name)}</strong>{words}</figcaption></figure>"
    )


def _box(xyxy: Sequence[float], label: str, colors: Mapping[str, int], kind: str) -> str:
    x1, y1, x2, y2 = xyxy
    place = f'x="{x1:.1f}" y="{y1:.1f}" width="{x2 - x1:.1f}" height="{y2 - y1:.1f}"'
    color = colors.get(normalize_label(label))
    style = {"": "", "not found": "lost "}.get(kind, "false ")
    drawn = f"box {style}{'unknown' if color is None else f'k{color}'}"
    title = escape(f"{label}: {kind.replace('_', ' ')}" if kind else label)
    return f'<rect class="halo" {place}/><rect class="{drawn}" {place}><title>{title}</title></rect>'


def _in_words(panel: Shown, num_true: int) -> str:
    if panel.kinds is None:
        return f"{num_true} objects"
    counted = Counter(kind.replace("_", " ") for kind in panel.kinds if kind)
    false = f"{sum(counted.values())} false"
    kinds = ", ".join(f"{number} {kind}" for kind, number in counted.most_common())
    return f"{sum(panel.right)} of {num_true} found, {false}{f' ({kinds})' if kinds else ''}"


def _image_data(sample: Sample) -> str:
    image = sample.load_image()
    image.thumbnail((LONGEST_EDGE, LONGEST_EDGE), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=JPEG_QUALITY)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
