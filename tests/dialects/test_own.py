"""A dialect from a file outside the package: the one that docs/extending.md shows."""

from pathlib import Path

import pytest

from support.extending import guide_file
from visionr1 import cli
from visionr1.dialects import Dialect, instruction, resolve_dialect
from visionr1.samples import Boxes, FaultKind, Query

SIZE = (640, 480)


@pytest.fixture
def dialect(tmp_path: Path) -> Dialect:
    return resolve_dialect(f"{guide_file('A dialect', tmp_path)}:DIALECT")


def test_it_reads_what_it_writes(dialect: Dialect) -> None:
    boxes = Boxes.of([[10, 20, 300, 400], [0, 0, 640, 480]], ["cat", "traffic light"])
    text = dialect.render(boxes, size_wh=SIZE, input_size_wh=SIZE)
    reply = dialect.parse(text, size_wh=SIZE, input_size_wh=SIZE, categories=("cat", "traffic light"))
    assert reply.well_formed and reply.boxes.labels == boxes.labels
    assert abs(reply.boxes.xyxy - boxes.xyxy).max() < 1


@pytest.mark.parametrize(
    ("text", "kinds", "boxes"),
    [
        ("", [], 0),  # nothing there
        ("I see no cat.", [FaultKind.SURROUNDING_TEXT], 0),
        ("cat 100 200 300 400\ncat 100 2", [FaultKind.SURROUNDING_TEXT], 1),  # cut off
        ("cat 300 200 100 400", [FaultKind.INVERTED], 1),
    ],
)
def test_it_names_faults(dialect: Dialect, text: str, kinds: list[FaultKind], boxes: int) -> None:
    reply = dialect.parse(text, size_wh=SIZE, input_size_wh=SIZE)
    assert [fault.kind for fault in reply.faults] == kinds and len(reply.boxes) == boxes


def test_it_is_asked_in_its_own_words_and_may_think_first(dialect: Dialect, tmp_path: Path) -> None:
    query = Query("detection", ("cat", "dog"))
    assert instruction(query, dialect) == "List cat, dog, a line each: name x1 y1 x2 y2."
    thinking = resolve_dialect(f"think+{tmp_path / 'a_dialect.py'}:DIALECT")
    assert thinking.name == "think+lines"
    assert instruction(query, thinking).startswith("List cat, dog, a line each: name x1 y1 x2 y2. First output the")


def test_data_check_writes_the_truth_in_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = guide_file("A dialect", tmp_path)
    assert cli.main(["data", "check", "bccd", "--split", "test", "--dialect", f"{file}:DIALECT"]) == 0
    assert "score 3.0000 of 3" in capsys.readouterr().out
