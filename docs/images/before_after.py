"""Draws the README's picture from a finished demo: python docs/images/before_after.py runs/demo"""

import sys
from pathlib import Path

from visionr1.data import read_source
from visionr1.dialects import get_dialect
from visionr1.files import read_json_lines
from visionr1.report.draw import draw_boxes, save_png, side_by_side
from visionr1.samples import Boxes, Sample

IMAGE = 24
"""Place of the image in the test split, chosen before any model was trained."""


def said(run: Path, name: str, sample: Sample) -> Boxes:
    """The boxes of the model `name` on `sample`."""
    rows = read_json_lines(run / "evaluation" / f"{name}.predictions.jsonl")
    (row,) = (row for row in rows if row["sample_id"] == sample.id)
    size = tuple(row["input_size_wh"])
    return get_dialect("qwen25").parse(row["text"], size_wh=sample.size_wh, input_size_wh=size).boxes


def main(run: Path) -> None:
    sample = read_source("bccd", split="test")[IMAGE]
    shown = {"Truth": sample.truth, "Base": said(run, "base", sample), "After Vision-R1": said(run, "trained", sample)}
    image, categories = sample.load_image(), sample.query.categories
    panels = [draw_boxes(image, boxes, categories=categories, title=title) for title, boxes in shown.items()]
    save_png(side_by_side(panels), Path(__file__).with_suffix(".png"))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
