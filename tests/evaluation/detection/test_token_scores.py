"""Scores from token probabilities: which tokens count, in every dialect, and that they rank boxes."""

import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from support.dialects import ALL_DIALECTS
from visionr1.data import table_of
from visionr1.dialects import Dialect, get_dialect
from visionr1.errors import DataError
from visionr1.evaluation import Prediction, evaluate_replies, read_protocol
from visionr1.evaluation.detection.token_scores import box_spans, token_scores
from visionr1.evaluation.predictions import read_predictions
from visionr1.samples import Boxes, Query, Reply, Sample

SIZE = (1000, 1000)
BOXES = Boxes.of(
    [[10, 20, 130, 240], [300, 20, 430, 240], [300, 500, 430, 640]], ["white cell", "white cell", "class 7"]
)


def reader(dialect: Dialect) -> partial[Reply]:
    return partial(dialect.parse, size_wh=SIZE, input_size_wh=SIZE)


@pytest.mark.parametrize("name", ALL_DIALECTS)
def test_spans_are_the_numbers_and_the_label_of_each_box(name: str) -> None:
    dialect = ALL_DIALECTS[name]
    text = dialect.render(BOXES, size_wh=SIZE, input_size_wh=SIZE)
    parse = reader(dialect)
    spans = box_spans(text, parse(text), parse)
    for xyxy, label, own in zip(BOXES.xyxy, BOXES.labels, spans, strict=True):
        written = [text[first:last] for first, last in own]
        assert written[-1] == label
        grid = dialect.grid_wh(size_wh=SIZE, input_size_wh=SIZE)[0]
        digits = [float(number) for number in written[:-1]]
        if name == "kosmos2":  # the first and the last patch, each a number
            assert len(digits) == 2
            continue
        y_first = any(word in name for word in ("gemini", "paligemma", "yxyx"))
        expected = xyxy[[1, 0, 3, 2]] if y_first else xyxy
        np.testing.assert_allclose(digits, expected * grid / 1000, atol=grid / 1000)


def letters(text: str, logprob: dict[int, float]) -> Prediction:
    """One token a letter."""
    ends = tuple(range(1, len(text) + 1))
    return Prediction(
        image_id=1, text=text, token_ends=ends, token_logprobs=tuple(logprob.get(i, 0.0) for i in range(len(text)))
    )


def test_the_score_is_the_geometric_mean_over_label_and_numbers_alone() -> None:
    text = '[{"bbox_2d": [10, 20, 30, 40], "label": "ab"}]'
    parse = reader(get_dialect("qwen3"))
    counted = [text.index("10"), text.index('ab"')]
    elsewhere = [text.index("2d"), text.index("label"), text.index("{"), text.index(",")]
    said = letters(text, dict.fromkeys(counted, -2.0) | dict.fromkeys(elsewhere, -9.0))
    assert token_scores(said, parse(text), parse) == pytest.approx([np.exp(-4 / 10)])  # 8 digits and 2 letters
    coarse = Prediction(image_id=1, text=text, token_ends=(13, len(text)), token_logprobs=(-7.0, -0.5))
    assert token_scores(coarse, parse(text), parse) == pytest.approx([np.exp(-0.5)])


def test_malformed_items_and_prose_are_not_taken_for_boxes() -> None:
    bad = '{"bbox_2d": [9, 9, 9, 1], "label": "ab"}, {"bbox_2d": [1, 2], "label": "ab"}'
    text = f'There are 3 cells: [{bad}, {{"bbox_2d": [10, 20, 30, 40], "label": "a\\"b"}}, {{"bbox'
    parse = reader(get_dialect("qwen3"))
    (spans,) = box_spans(text, parse(text), parse)
    assert [text[first:last] for first, last in spans] == ["10", "20", "30", "40", 'a\\"b']


def test_token_scores_rank_boxes_through_the_evaluation(tmp_path: Path) -> None:
    sample = Sample("a", Path("n"), Query("detection", ("cat",)), Boxes.of([[0, 0, 90, 90]], ["cat"]), SIZE, image_id=1)
    false, right = '{"bbox_2d": [500, 500, 600, 600], "label": "cat"}', '{"bbox_2d": [0, 0, 90, 90], "label": "cat"}'
    text = f"[{false}, {right}]"
    said = letters(text, dict.fromkeys(range(text.index("500"), text.index("]")), -1.0))
    row = json.loads(json.dumps(said.to_json()))
    (again,) = read_predictions([row], tmp_path)
    assert again.token_logprobs == said.token_logprobs and again.token_ends == said.token_ends
    table = table_of([sample])
    evaluate = partial(evaluate_replies, table, dialect=get_dialect("qwen3"), num_resamples=0)
    ranked = evaluate([again], protocol=read_protocol(["scores=token"]))
    assert ranked.extras["coco"][0] == pytest.approx(1) and "geometric mean" in ranked.protocol.line()
    assert evaluate([again]).extras["coco"][0] == pytest.approx(0.5)  # the false one was written first
    with pytest.raises(DataError, match="no token_ends and token_logprobs"):
        evaluate([Prediction(image_id=1, text=text)], protocol=read_protocol(["scores=token"]))
    with pytest.raises(DataError, match="token_ends: expected a list of finite numbers"):
        read_predictions([{**row, "token_ends": "1"}], tmp_path)
