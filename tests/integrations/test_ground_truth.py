import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from visionr1.errors import DataError
from visionr1.integrations import from_json, to_json
from visionr1.samples import Boxes, GroundTruth

TRUTH = GroundTruth(
    Boxes.of([[10, 20, 110, 220], [0, 0, 50.5, 60]], ["cat", "dog"]), ("cat", "dog"), (640, 480), (644, 476)
)


def changed(**fields: object) -> str:
    return json.dumps({**json.loads(to_json(TRUTH)), **fields})


def test_a_ground_truth_comes_back_as_it_was_written() -> None:
    host = from_json(to_json(TRUTH, progress=0.25))
    assert (host.truth, host.dialect, host.preset, host.progress) == (TRUTH, "qwen25", "paper", 0.25)


def test_it_is_one_line_of_json_with_the_field_names_of_visionr1_score() -> None:
    text = to_json(TRUTH)
    assert "\n" not in text
    assert {"boxes", "labels", "categories", "width", "height", "input_width", "input_height"} <= set(json.loads(text))


@given(labels=st.lists(st.text(min_size=1).filter(str.strip), max_size=3))
def test_any_label_survives(labels: list[str]) -> None:
    truth = GroundTruth(Boxes.of([[0, 0, 1, 1]] * len(labels), labels), tuple(labels), (4, 4), (28, 28))
    assert from_json(to_json(truth)).truth == truth


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ("not json", "ground truth: expected the JSON object"),
        ("[" * 100000, "ground truth: expected the JSON object"),
        ("[1]", "ground truth: expected the JSON object"),
        (changed(version=2), "version"),
        (changed(preset="papers"), "preset"),
        (changed(dialect="latin"), "dialect"),
        (changed(dialect=["qwen25"]), "dialect"),
        (changed(preset=["paper"]), "preset"),  # not hashable
        (changed(preset="release", dialect="qwen3"), "dialect: expected one that preset release reads, qwen25"),
        (changed(boxes=[[1, 2, 3]]), r"boxes\[0\]"),
        (changed(boxes=[[1, 2, 3, "4"]]), r"boxes\[0\]"),
        (changed(boxes=[[1, 2, 3, float("nan")]]), r"boxes\[0\]"),
        (changed(boxes=[[0, 0, 1, 1], [5, 5, 5, 9]]), r"boxes\[1\]"),  # empty
        (changed(boxes=[[0, 0, 1, 1], [600, 0, 700, 9]]), "pixels of the original image of 640 x 480"),
        (changed(boxes={}), "boxes"),
        (changed(labels=["cat"]), r"labels: expected one for each of 2 boxes, found \['cat'\]"),
        (changed(labels=["cat", " "]), "labels"),
        (changed(categories="cat"), "categories"),
        (changed(width=0), "width"),
        (changed(height=480.0), "height"),
        (changed(input_width=True), "input_width"),
        (changed(progress=1.5), "progress"),
        (changed(progess=0.5), "progess: expected no such field"),
    ],
)
def test_a_bad_one_is_refused_by_the_name_of_its_field(text: str, field: str) -> None:
    with pytest.raises(DataError, match=field):
        from_json(text)


@pytest.mark.parametrize("field", sorted(json.loads(to_json(TRUTH))))
def test_every_field_is_needed(field: str) -> None:
    fields = json.loads(to_json(TRUTH))
    del fields[field]
    with pytest.raises(DataError, match=f"ground truth, field {field}: expected"):
        from_json(json.dumps(fields))


def test_other_things_than_text_are_refused() -> None:
    with pytest.raises(DataError, match="found dict"):
        from_json({"boxes": []})  # type: ignore[arg-type]


def test_what_could_not_be_read_is_not_written() -> None:
    normalised = GroundTruth(Boxes.of([[900, 0, 1000, 9]], ["cat"]), ("cat",), (640, 480), (644, 476))
    with pytest.raises(DataError, match=r"boxes\[0\]"):
        to_json(normalised)
