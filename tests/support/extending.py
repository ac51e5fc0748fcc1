"""The files that docs/extending.md shows, so that tests run what a reader of it would."""

import re
from pathlib import Path

from PIL import Image

GUIDE = Path(__file__).parents[2] / "docs/extending.md"
MAX_LINES = 40


def guide_file(section: str, folder: Path) -> Path:
    """Write the first Python block of a section of the guide to a file in `folder`, and return its path."""
    _, _, text = GUIDE.read_text(encoding="utf-8").partition(f"## {section}\n")
    block = re.search(r"```python\n(.*?)```", text.partition("\n## ")[0], re.DOTALL)
    assert block, f"{GUIDE.name} has no Python block in section {section!r}"
    assert block[1].count("\n") <= MAX_LINES, f"{section}: the guide promises at most {MAX_LINES} lines"
    file = folder / f"{section.lower().replace(' ', '_')}.py"
    file.write_text(block[1], encoding="utf-8")
    return file


def yolo_folder(folder: Path, lines: str = "1 .5 .5 .4 .2\n0 .1 .1 .2 .2\n") -> Path:
    """Two images of 100 x 50 pixels, the second without objects."""
    for name in ("images", "labels"):
        (folder / name).mkdir(parents=True)
    (folder / "classes.txt").write_text("cat\ndog\n")
    for name, content in (("a", lines), ("b", "")):
        Image.new("RGB", (100, 50), "white").save(folder / "images" / f"{name}.png")
        (folder / "labels" / f"{name}.txt").write_text(content)
    return folder
