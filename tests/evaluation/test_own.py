"""A benchmark and a metric of a user's own: the files of docs/extending.md, evaluated."""

import json
from collections.abc import Sequence
from dataclasses import replace
from importlib import metadata
from pathlib import Path

import pytest
from PIL import Image

from support.benchmark_trees import image_row, write_json
from support.extending import guide_file
from visionr1 import cli
from visionr1.data import read_dataset
from visionr1.dialects import get_dialect
from visionr1.errors import DataError, RecipeError
from visionr1.evaluation import (
    DEFAULT,
    METRICS,
    Benchmark,
    Evaluation,
    FoundUnits,
    Prediction,
    PredictionFiles,
    Protocol,
    Replies,
    Result,
    compare,
    evaluate,
    format_benchmark,
    paired_difference,
    write_predictions,
)
from visionr1.samples import Boxes, Query, Sample

QWEN3 = get_dialect("qwen3")


def test_a_benchmark_of_ones_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for day in ("mon", "sun"):
        rows = [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 1, 9, 9]}]
        content = {"images": [image_row(1, "1.png")], "categories": [{"id": 1, "name": "car"}], "annotations": rows}
        write_json(tmp_path / "traffic" / day / "_annotations.coco.json", content)
        write_json(tmp_path / "said" / f"{day}.json", [{**rows[0], "score": 1.0}] if day == "sun" else [])
    name = f"{guide_file('A benchmark', tmp_path)}:BENCHMARK"
    command = [
        "eval",
        "--benchmark",
        name,
        "--data",
        str(tmp_path / "traffic"),
        "--predictions",
        str(tmp_path / "said"),
    ]
    assert cli.main([*command, "--resamples", "0", "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert {day: result["metrics"]["AP"] for day, result in record["results"].items()} == pytest.approx(
        {"mon": 0, "sun": 1}
    )
    assert record["benchmark"] == "days" and record["missing"] == ["tue", "wed", "thu", "fri", "sat"]
    assert record["mean"]["AP"] == pytest.approx(0.5)
    assert cli.main([*command, "--split", "tue"]) == 2
    assert "expected a folder of a day, such as tue/" in capsys.readouterr().err


def test_a_metric_of_ones_own(tmp_path: Path) -> None:
    samples = [
        Sample(str(n), Path(), Query("detection", ("cat",)), Boxes.of([[0, 0, 9, 9]] * n, ["cat"] * n), (100, 100), n)
        for n in (1, 2, 3)
    ]
    metric = f"{guide_file('A metric', tmp_path)}:METRIC"
    results = []
    for numbers in ((1, 2, 1), (1, 2, 3)):
        said = [
            Prediction(
                image_id=n, sample_id=str(n), text=json.dumps([{"bbox_2d": [5, 5, 50, 50], "label": "cat"}] * number)
            )
            for n, number in zip((1, 2, 3), numbers, strict=True)
        ]
        results.append(evaluate(samples, Replies(said, QWEN3), metric=metric, num_resamples=20).result)
    first, second = results
    assert first.metrics == pytest.approx({"right count": 2 / 3, "count error": 2 / 6, "right count strict": 2 / 3})
    assert set(first.interval) == {"right count", "count error"}
    assert "boxes are counted, not placed" in first.protocol.line()
    assert first.resampler is not None and second.resampler is not None
    difference = paired_difference(first.resampler, second.resampler, num_resamples=20)["right count"]
    assert difference.difference == pytest.approx(1 / 3)


@pytest.fixture
def cars(tmp_path: Path) -> Path:
    """Three images with one car each, as a COCO file beside them."""
    rows = [{"id": n, "image_id": n, "category_id": 1, "bbox": [1, 1, 9, 9]} for n in (1, 2, 3)]
    names = [{"id": 1, "name": "car"}, {"id": 2, "name": "bus"}]
    truth = {"images": [image_row(n, f"{n}.png") for n in (1, 2, 3)], "categories": names, "annotations": rows}
    write_json(tmp_path / "cars.json", truth)
    for n in (1, 2, 3):
        Image.new("RGB", (100, 80)).save(tmp_path / f"{n}.png")
    return tmp_path / "cars.json"


class OneCar:
    """A model that finds one car whatever it is asked for."""

    name = "one car"
    dialect = QWEN3

    def complete_protocol(self, protocol: Protocol) -> Protocol:
        return replace(protocol, dialect=self.dialect.name)

    def weights_sum(self) -> int:
        return 0

    def reply(self, samples: Sequence[Sample], protocol: Protocol, **_: object) -> list[Prediction]:
        text = json.dumps([{"bbox_2d": [5, 5, 50, 50], "label": "car"}])
        return [
            Prediction(image_id=sample.image_key, sample_id=sample.id, text=text, categories=sample.query.categories)
            for sample in samples
        ]


def test_ones_own_metric_scores_what_was_asked_and_no_more(cars: Path, tmp_path: Path) -> None:
    metric = f"{guide_file('A metric', tmp_path)}:METRIC"
    few = evaluate(cars, OneCar(), metric=metric, protocol=["limit=2"], num_resamples=0).result
    assert (few.counts["images"], few.counts["samples"], few.counts["samples_without_reply"]) == (2, 2, 0)
    assert few.protocol.line().startswith("protocol count with limit=2: 2 evenly spaced images alone; ")
    each = evaluate(cars, OneCar(), metric=metric, protocol=["prompt=per_category"], num_resamples=0).result
    assert (each.counts["images"], each.counts["samples"]) == (3, 6)
    assert each.metrics["right count"] == pytest.approx(1 / 2)  # a car where a bus is asked for is one too many
    assert "right at" not in each.protocol.line()  # boxes are counted, not placed


def test_ones_own_metric_scores_files_on_the_command_line(
    cars: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    metric = f"{guide_file('A metric', tmp_path)}:METRIC"
    samples = read_dataset(cars).samples
    write_predictions(tmp_path / "replies.jsonl", OneCar().reply(samples[:2], DEFAULT))
    command = ["eval", "--predictions", str(tmp_path / "replies.jsonl"), "--dialect", "qwen3", "--data", str(cars)]
    assert cli.main([*command, "--metric", metric, "--resamples", "0"]) == 0
    table = capsys.readouterr().out
    assert "right count" in table and "samples without reply" in table
    assert cli.main([*command, "--metric", metric, "--benchmark", "coco"]) == 2
    assert "--metric is for a data set" in capsys.readouterr().err


def test_samples_without_the_id_of_an_image_are_images_of_their_own(tmp_path: Path) -> None:
    metric = f"{guide_file('A metric', tmp_path)}:METRIC"
    box = Boxes.of([[0, 0, 9, 9]], ["cat"])
    samples = [Sample(str(n), Path(), Query("detection", ("cat",)), box, (100, 100)) for n in range(4)]
    result = evaluate(samples, Replies(OneCar().reply(samples, DEFAULT), QWEN3), metric=metric, num_resamples=0).result
    assert result.counts["images"] == 4


def test_a_limit_is_refused_for_boxes_that_are_all_scored(cars: Path, tmp_path: Path) -> None:
    write_json(tmp_path / "boxes.json", [])
    with pytest.raises(RecipeError, match="protocol field limit: expected none for a file of boxes"):
        evaluate(cars, PredictionFiles([tmp_path / "boxes.json"]), protocol=["limit=1"])


def test_what_cannot_be_measured_is_in_no_mean() -> None:
    protocol = Protocol(name="p")
    results = {
        name: Result(protocol=protocol, metrics={"AP": ap}, interval={}, counts={"images": 12}, resampler=None)
        for name, ap in (("a", 0.5), ("b", -1.0), ("c", 0.25))
    }
    benchmark = Benchmark(name="days", find=lambda *_: FoundUnits([], []), averaged=True)
    evaluation = Evaluation(results=results, benchmark=benchmark)
    assert evaluation.mean("AP") == pytest.approx(0.375)
    assert "37.5 (of 2)" in format_benchmark(evaluation)


def test_results_of_ones_own_metric_are_compared_where_it_is_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 1, 9, 9]}
    truth = {"images": [image_row(1, "1.png")], "categories": [{"id": 1, "name": "car"}], "annotations": [row]}
    write_json(tmp_path / "truth.json", truth)
    Image.new("RGB", (100, 80)).save(tmp_path / "1.png")
    dataset = read_dataset(tmp_path / "truth.json")
    metric = f"{guide_file('A metric', tmp_path)}:METRIC"

    paths = []
    for name, boxes in (("none", []), ("one", [{"bbox_2d": [5, 5, 50, 50], "label": "car"}])):
        reply = Prediction(image_id=1, sample_id=dataset.samples[0].id, text=json.dumps(boxes))
        evaluate(dataset, Replies([reply], QWEN3), metric=metric, num_resamples=0, out=tmp_path, name=name)
        paths.append(tmp_path / f"evaluation/{name}.json")
    assert json.loads(paths[0].read_text())["metric"] == "count"

    # A file says the name: nothing is imported for it, whatever it says.
    with pytest.raises(DataError, match=r"none\.json: metric: expected one that ships .*, found 'count'; no code"):
        compare(paths)
    record = json.loads(paths[0].read_text())
    paths[0].write_text(json.dumps({**record, "metric": metric}))
    assert "no difference: another metric" in compare(paths).table()
    paths[1].write_text(json.dumps({**json.loads(paths[1].read_text()), "metric": metric}))
    with pytest.raises(DataError, match="METRIC'; no code from files is run"):
        compare(paths)

    # An installed package brings it.
    for path in paths:
        path.write_text(json.dumps({**json.loads(path.read_text()), "metric": "count"}))
    monkeypatch.syspath_prepend(tmp_path)
    point = metadata.EntryPoint("count", "a_metric:METRIC", "visionr1.metric")
    monkeypatch.setattr(metadata, "entry_points", lambda group: [point] if group == "visionr1.metric" else [])
    monkeypatch.setattr(METRICS, "_loaders", None)  # look again
    difference = compare(paths, num_resamples=2).differences["one"]
    assert not isinstance(difference, str) and difference["right count"].difference == pytest.approx(1)

    # Detection is the default, and its result does not replace one of another metric.
    with pytest.raises(DataError, match='metric: expected null, found "count"'):
        evaluate(dataset, Replies([reply], QWEN3), num_resamples=0, out=tmp_path, name="one")


def test_what_is_no_benchmark_is_named(tmp_path: Path) -> None:
    file = guide_file("A metric", tmp_path)
    with pytest.raises(RecipeError, match=r"expected a visionr1\.evaluation\.Benchmark, found a Metric"):
        evaluate(tmp_path, Replies([], QWEN3), benchmark=f"{file}:METRIC")
