"""Intervals: the fast resampling equals the real evaluator on the resampled set."""

from dataclasses import replace

import numpy as np
import pytest

from support.detection_problems import Problem, for_problems, random_problem, read_problem
from visionr1.data import BoxTable
from visionr1.evaluation import COCO_RESULTS, Protocol, Result, evaluate_boxes, paired_difference
from visionr1.evaluation.detection.coco import Detections
from visionr1.evaluation.statistics import draw_images, intervals

IN_FILE_ORDER = replace(COCO_RESULTS, order="file")


def resampled(table: BoxTable, detections: Detections, times: np.ndarray) -> tuple[BoxTable, Detections]:
    """The set in which image i stands `times[i]` times, spelled out."""
    chosen = np.repeat(np.arange(len(table)), times)
    rows = [np.flatnonzero(detections.image == image) for image in chosen]
    order = np.concatenate([*rows, np.zeros(0, dtype=np.intp)]).astype(np.intp)
    found = Detections(
        np.repeat(np.arange(len(chosen)), [len(own) for own in rows]),
        detections.category[order],
        detections.xywh[order],
        detections.score[order],
    )
    return table.take(chosen.tolist()), found


def headline(result: Result) -> np.ndarray:
    names = ("AP", "AP50", "AP75", "AR100", "precision", "recall", "F1")
    return np.array([result.metrics[name] for name in names])


@for_problems
def test_a_resample_is_what_the_evaluator_says_of_the_resampled_set(problem: Problem) -> None:
    table, detections = read_problem(problem)
    matches = evaluate_boxes(table, detections, protocol=IN_FILE_ORDER, num_resamples=1).resampler
    assert matches is not None
    for times in draw_images(len(table), 3, seed=0):
        again = evaluate_boxes(*resampled(table, detections, times), protocol=IN_FILE_ORDER, num_resamples=0)
        mine = matches.figures(times[None])[0]
        known = ~np.isnan(mine)  # without truth the evaluator says -1 or 0
        np.testing.assert_allclose(mine[known], headline(again)[known], rtol=0, atol=1e-12)


def test_each_image_once_is_the_headline() -> None:
    table, detections = read_problem(random_problem(1, images=20))
    for protocol in (COCO_RESULTS, IN_FILE_ORDER, Protocol(name="test", scores="file", max_dets=(1, 2, 3))):
        result = evaluate_boxes(table, detections, protocol=protocol, num_resamples=1)
        assert result.resampler is not None
        once = result.resampler.figures(np.ones((1, 20), dtype=np.int64))[0]
        np.testing.assert_allclose(once, list(result.metrics.values()), rtol=0, atol=1e-12)


def test_interval_holds_the_value_and_is_the_same_each_time() -> None:
    table, detections = read_problem(random_problem(2, images=40))
    result = evaluate_boxes(table, detections, protocol=COCO_RESULTS, num_resamples=300)
    assert result.resampler is not None
    assert intervals(result.resampler, num_resamples=300) == result.interval
    for name, (low, high) in result.interval.items():
        assert low < result.metrics[name] < high


def test_paired_difference_of_a_result_with_itself_is_0() -> None:
    table, detections = read_problem(random_problem(3, images=10))
    matches = evaluate_boxes(table, detections, protocol=COCO_RESULTS, num_resamples=1).resampler
    assert matches is not None
    for gained in paired_difference(matches, matches, num_resamples=20).values():
        assert gained.difference == 0 and gained.interval == (0, 0)


def test_paired_difference_is_narrower_than_the_intervals_of_both() -> None:
    table, detections = read_problem(random_problem(4, images=40, crowd=0))
    worse = detections.keep(np.arange(len(detections)) % 10 != 0)
    first = evaluate_boxes(table, worse, protocol=COCO_RESULTS, num_resamples=200)
    second = evaluate_boxes(table, detections, protocol=COCO_RESULTS, num_resamples=200)
    assert first.resampler is not None and second.resampler is not None
    gained = paired_difference(first.resampler, second.resampler, num_resamples=200)["recall"]
    assert (
        gained.difference == pytest.approx(second.metrics["recall"] - first.metrics["recall"]) and gained.difference > 0
    )
    width = gained.interval[1] - gained.interval[0]
    assert width < 0.5 * (second.interval["recall"][1] - second.interval["recall"][0])


def test_results_on_other_images_are_no_pair() -> None:
    sets = [random_problem(seed, images=5) for seed in (5, 6)]
    found = [evaluate_boxes(*read_problem(own), protocol=COCO_RESULTS, num_resamples=1).resampler for own in sets]
    assert found[0] is not None and found[1] is not None
    with pytest.raises(ValueError, match="same images"):
        paired_difference(found[0], found[1])
