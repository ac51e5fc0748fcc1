"""benchmarks/base_model.py: its sets are what their names say, and answers are compared as words."""

from dataclasses import replace

from support.benchmark_programs import load_benchmark
from visionr1.data.scenes.vocabulary import HELD_OUT_PAIRS
from visionr1.evaluation.predictions import Prediction

program = load_benchmark("base_model")


def test_sets_hold_one_kind_of_query_each_and_are_the_same_again() -> None:
    sets = program.make_sets(6, 3, held_out=True)
    for task in program.TASKS:
        assert {sample.query.task for sample in sets[task]} == {task}
    assert {len(samples) for name, samples in sets.items() if name != "BCCD valid"} == {6}
    assert len(sets["BCCD valid"]) == 3
    again = program.make_sets(6, 0, held_out=True)
    assert [sample.truth for sample in again["new pair"]] == [sample.truth for sample in sets["new pair"]]

    names = {f"{color} {shape}" for color, shape in HELD_OUT_PAIRS}
    labels = {label for sample in program.draw_scenes(40, held_out="pair", cells=0.0) for label in sample.truth.labels}
    assert labels & names


def test_an_answer_is_right_whatever_its_case_and_a_list_of_boxes_is_not_well_formed() -> None:
    samples = program.draw_scenes(3, queries={"question": 1.0})
    samples = [replace(sample, id=f"{number}:color", answer="Red") for number, sample in enumerate(samples)]
    texts = ["red ", "blue", "```json\n[]\n```"]
    predictions = [Prediction(image_id=sample.id, text=text) for sample, text in zip(samples, texts, strict=True)]
    figures = program.score_answers(samples, predictions)
    assert figures == {"well_formed": 2 / 3, "right": 1 / 3, "right/color": 1 / 3}
