"""What the released evaluation reads of faulty replies, and that a protocol can ask for it."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from visionr1.data import table_of
from visionr1.dialects import get_dialect
from visionr1.evaluation import PROTOCOLS, Prediction, evaluate_replies, read_protocol
from visionr1.evaluation.detection.release_salvage import release_list
from visionr1.samples import Boxes, Query, Sample

ONE, TWO = '{"bbox_2d": [1, 2, 3, 4], "label": "cat"}', '{"bbox_2d": [5, 6, 7, 8], "label": "dog"}'

CASES = [
    (f"[{ONE}, {TWO}]", 2),
    (f"```json\n[{ONE},\n{TWO}]\n```", 2),
    (f"Here:\n```json\n[{ONE}]\n```\nand ```json\n[{TWO}]\n```", 1),  # the first fence
    (f"```JSON\n[{ONE}]\n```", 0),  # another fence is text, which is no literal
    (f"Here: [{ONE}]", 0),
    (f'[{ONE}, {TWO}, {{"bbox_2d": [1, 2', 2),  # cut off in an item
    (f"[{ONE}, {TWO}", 2),
    (f'[{ONE}, {{"bbox_2d": [1, 2}}, {TWO}]', 0),  # one bad item costs the others
    (f'[{ONE}, {{"label": "cat"}}, {TWO}]', 3),  # a literal; its item has no box
    (ONE.replace('"', "'").join("[]"), 1),  # Python's quotes
    (f"[{ONE}, ]", 1),
    ('[{"bbox_2d": [1, 2, 3, 4], "label": "c\\d"}]', 1),  # an escape that neither Python nor JSON knows
    (ONE, 0),  # no list
    ("[]", 0),
    ("", 0),
    ("None", 0),
    ("[" * 100_000, 0),
    ("[" + "9" * 5000 + "]", 0),
]


@pytest.mark.parametrize(("text", "number"), CASES)
def test_one_list_or_nothing(text: str, number: int) -> None:
    assert len(json.loads(release_list(text))) == number


@given(st.text() | st.text(alphabet='[]{}"\\,:1 \n`json'))
def test_no_text_raises(text: str) -> None:
    assert isinstance(json.loads(release_list(text)), list)


def test_the_papers_protocols_read_as_its_release_does() -> None:
    boxes = Boxes.of([[10, 10, 30, 30], [50, 50, 90, 90]], ["cat", "cat"])
    sample = Sample("1", Path("none.jpg"), Query("detection", ("cat",)), boxes, (100, 100), image_id=1)
    items = [json.dumps({"bbox_2d": box, "label": "cat"}) for box in boxes.xyxy.astype(int).tolist()]
    said = [Prediction(image_id=1, text=f"[{items[0]}, {{broken}}, {items[1]}]", input_size_wh=(100, 100))]
    cut = [Prediction(image_id=1, text=f"[{', '.join(items)}, {{", input_size_wh=(100, 100))]

    def recall(predictions: list[Prediction], *settings: str) -> float:
        how = {"dialect": get_dialect("qwen25"), "protocol": read_protocol(settings), "num_resamples": 0}
        return evaluate_replies(table_of([sample]), predictions, **how).metrics["recall"]  # type: ignore[arg-type]

    for name in ("vision_r1_coco", "vision_r1_odinw"):
        assert recall(said, name) == 0 and recall(cut, name) == 1 and recall(said, name, "salvage=items") == 1
        assert PROTOCOLS[name].salvage == "release"
    assert recall(said) == 1
    stated = read_protocol(["vision_r1_coco"])
    assert evaluate_replies(
        table_of([sample]), said, dialect=get_dialect("qwen25"), protocol=stated, num_resamples=0
    ).faults  # of the reply, whatever is read of it
