"""The line beside a result of 0: truths are found by ids as any tool may write them."""

import numpy as np
import pytest

from visionr1.data import table_of
from visionr1.dialects import get_dialect
from visionr1.evaluation.detection.hints import explain_zero
from visionr1.evaluation.detection.scoring import evaluate_replies
from visionr1.evaluation.predictions import Prediction
from visionr1.evaluation.protocols import Protocol
from visionr1.evaluation.units import Replies, Unit
from visionr1.samples import Boxes, Query, Sample

SIZE_WH = (640, 480)
TRUTH = Boxes.of([[64, 48, 128, 96], [320, 240, 384, 288]], ["cat", "dog"])


def make_sample(image_id: int | str) -> Sample:
    image = np.zeros((1, 1, 3), dtype=np.uint8).tobytes()
    return Sample("a", image, Query("detection", ("cat", "dog")), TRUTH, SIZE_WH, image_id)


@pytest.mark.parametrize(("image_id", "written"), [(7, 7), (7, "7"), ("000007", 7), ("000007", "000007")])
def test_replies_in_another_space_are_hinted_at_whatever_the_form_of_the_id(
    image_id: int | str, written: int | str
) -> None:
    text = get_dialect("qwen3").render(TRUTH, size_wh=SIZE_WH, input_size_wh=SIZE_WH)
    qwen25 = get_dialect("qwen25")
    prediction = Prediction(image_id=written, text=text, input_size_wh=SIZE_WH)
    unit = Unit(name="", annotations=table_of([make_sample(image_id)]))

    result = evaluate_replies(unit.table, [prediction], dialect=qwen25, protocol=Protocol(name="test"), num_resamples=0)
    hint = explain_zero(unit, Replies([prediction], qwen25), {"": result})
    assert "replies look like dialect qwen3" in hint
    assert "as qwen3 AP50 would be 100.0" in hint
