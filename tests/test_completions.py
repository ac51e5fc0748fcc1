"""The row format of completions: what is written comes back, and older rows are read."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from visionr1.completions import CompletionRow, read_completion
from visionr1.errors import DataError
from visionr1.samples import Boxes, GroundTruth

TRUTH = GroundTruth(Boxes.of([[10, 20, 110.5, 220]], ["cat"]), ("cat", "dog"), (640, 480), (644, 476), 3)
ROW = CompletionRow(text="[]", truth=TRUTH, sample_id="a", image_id=7, index=2, truncated=True)


@given(text=st.text(st.characters(exclude_categories=())), image_id=st.integers() | st.text())
def test_a_row_comes_back_as_it_was_written(text: str, image_id: int | str) -> None:
    row = CompletionRow(text=text, truth=TRUTH, sample_id="a", image_id=image_id, index=2, truncated=True)
    assert read_completion(json.dumps(row.to_json())) == row


def test_only_text_and_truth_are_needed() -> None:
    fields = ROW.to_json()
    for name in ("sample_id", "image_id", "index", "truncated", "num_instances"):
        del fields[name]
    row = read_completion(json.dumps(fields))
    assert (row.sample_id, row.image_id, row.index, row.truncated) == ("", "", 0, False)
    assert row.truth.num_instances is None


def test_other_fields_are_left_alone() -> None:
    assert read_completion(json.dumps({**ROW.to_json(), "step": 3, "total": 2.5, "recall": None})) == ROW


def test_rows_of_older_files_are_read() -> None:
    fields = ROW.to_json()
    text = fields.pop("text")
    assert read_completion(json.dumps({**fields, "completion": text})).text == "[]"
    rollout = {**ROW.to_json(), "completion": 2}  # where it was an index, beside the text
    assert read_completion(json.dumps(rollout)).text == "[]"


@pytest.mark.parametrize(
    ("field", "value"),
    [("index", -1), ("index", True), ("truncated", 1), ("sample_id", 3), ("image_id", 1.5), ("image_id", None)],
)
def test_a_bad_field_is_named(field: str, value: object) -> None:
    with pytest.raises(DataError, match=f"field {field}: expected"):
        read_completion(json.dumps({**ROW.to_json(), field: value}))
