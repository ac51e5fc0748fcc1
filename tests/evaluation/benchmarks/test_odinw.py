"""ODinW: the list of sets, folders in both layouts, what is missing, and the two means."""

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from visionr1 import cli
from visionr1.data import data_path
from visionr1.errors import DataError
from visionr1.evaluation import BENCHMARKS, Evaluation, PredictionFiles, Reading, evaluate, format_benchmark
from visionr1.evaluation.benchmarks.odinw import odinw_sets, read_odinw

IN_ARCHIVE = "Aquarium/Aquarium Combined.v2-raw-1024.coco"


def write_set(folder: Path, annotations: str, categories: tuple[str, ...], num_images: int, *, images: str = "") -> Any:
    """A set in its true layout, one box of the first category in each image; returns results that find them all."""
    file = folder / annotations
    file.parent.mkdir(parents=True, exist_ok=True)
    rows = [{"image_id": i, "category_id": 1, "bbox": [1, 1, 5, 5]} for i in range(num_images)]
    content = {
        "images": [{"id": i, "file_name": f"{i}.png", "width": 9, "height": 9} for i in range(num_images)],
        "categories": [{"id": i, "name": name} for i, name in enumerate(categories, 1)],
        "annotations": [{**row, "id": i} for i, row in enumerate(rows)],
    }
    file.write_text(json.dumps(content))
    if images:
        for i in range(num_images):
            Image.new("RGB", (9, 9)).save(folder / images / f"{i}.png")
    return [{**row, "score": 1.0} for row in rows]


def test_the_suites_are_those_of_glip_and_mmdetection() -> None:
    thirteen, all_of_them = odinw_sets("odinw13"), odinw_sets("odinw35")
    assert len(thirteen) == 13 and len(all_of_them) == 35 and set(thirteen) < set(all_of_them)
    assert len({one.name for one in all_of_them}) == 35
    names = {one.name for one in thirteen}
    assert {"AerialMaritimeDrone_large", "EgoHands_generic", "PascalVOC", "pistols", "VehiclesOpenImages"} < names
    by_name = {one.name: one for one in all_of_them}
    assert len(by_name["boggleBoards"].categories) == 36 and len(by_name["PascalVOC"].categories) == 20
    assert by_name["pistols"].annotations == "val_annotations_without_background.json"
    assert by_name["EgoHands_generic"].annotations.startswith("valid/")  # not GLIP's minival


def test_missing_sets_are_named_and_small_ones_leave_the_second_mean(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name = "annotations_without_background.json"
    fish = write_set(tmp_path / "odinw" / IN_ARCHIVE, f"valid/{name}", ("fish", "shark"), 12)
    cow = write_set(tmp_path / "odinw/NorthAmericaMushrooms", f"valid/{name}", ("CoW", "chanterelle"), 3)
    said = tmp_path / "said"
    said.mkdir()
    (said / "Aquarium.json").write_text(json.dumps(fish[:6]))
    (said / "NorthAmericaMushrooms.json").write_text(json.dumps(cow))
    command = ["eval", "--predictions", str(said), "--data", str(tmp_path / "odinw"), "--benchmark", "odinw13"]
    command += ["--resamples", "2"]
    assert cli.main([*command, "--out", str(tmp_path / "out")]) == 0
    text = capsys.readouterr().out
    assert "NOT all of odinw13: missing are AerialMaritimeDrone_large, CottontailRabbits, " in text
    assert "NorthAmericaMushrooms: its file names CoW" in text and "mean of the 1 with 10 images or more" in text
    assert text.count("protocol coco_results") == 1
    record = json.loads((tmp_path / "out/odinw13.json").read_text())
    aps = {name: one["metrics"]["AP"] for name, one in record["results"].items()}
    assert aps["NorthAmericaMushrooms"] == pytest.approx(1) and 0.4 < aps["Aquarium"] < 0.6
    assert record["mean"]["AP"] == pytest.approx(sum(aps.values()) / 2)
    assert record["mean_without_small"]["AP"] == aps["Aquarium"]
    assert record["complete"] is False and len(record["missing"]) == 11
    assert (tmp_path / "out/odinw13/Aquarium.json").is_file()
    (said / "Aquarium.json").unlink()
    assert cli.main(command) == 2
    assert "no predictions for Aquarium; expected Aquarium.json" in capsys.readouterr().err


def run(folder: Path, name: str, said: Any) -> Evaluation:
    """The results where every set has a file of the same predictions."""
    files = folder / "said"
    files.mkdir(exist_ok=True)
    for one in odinw_sets(name):  # type: ignore[arg-type]
        (files / f"{one.name}.json").write_text(json.dumps(said))
    return evaluate(folder, PredictionFiles([files]), benchmark=name, num_resamples=0)


def test_without_a_large_set_there_is_no_second_mean(tmp_path: Path) -> None:
    write_set(tmp_path / "pothole", "valid/annotations_without_background.json", ("pothole",), 2)
    whole = run(tmp_path, "odinw35", [])
    assert whole.mean("AP") == 0 and whole.mean("AP", without_small=True) is None
    assert "n/a" in format_benchmark(whole) and len(whole.missing) == 34 and not whole.notes


def test_sets_under_another_protocol_than_the_first_are_marked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where prompts name only what is there in one set, its figures and the mean are comparable to none of the rest."""
    file = "valid/annotations_without_background.json"
    write_set(tmp_path / "odinw/Aquarium", file, ("fish", "shark"), 2)
    write_set(tmp_path / "odinw/pothole", file, ("pothole", "hole"), 2)
    box = '[{"bbox_2d": [1, 2, 3], "label": "fish"}]'
    for name, asked in (("Aquarium", ["fish", "shark"]), ("pothole", ["pothole"])):
        rows = [{"image_id": i, "text": box, "categories": asked, "input_size_wh": [40, 30]} for i in (0, 1)]
        (tmp_path / "said").mkdir(exist_ok=True)
        (tmp_path / f"said/{name}.json").write_text(json.dumps(rows))
    command = ["eval", "--predictions", str(tmp_path / "said"), "--data", str(tmp_path / "odinw"), "--resamples", "2"]
    assert cli.main([*command, "--benchmark", "odinw13", "--dialect", "qwen25"]) == 0
    text = capsys.readouterr().out
    assert "pothole *" in text and "mean of 2 *" in text and "Aquarium *" not in text
    assert "* pothole: protocol default with categories=present: " in text and "\nprotocol default: qwen25" in text
    heads = text.splitlines()[0]
    assert all(name in heads for name in ("AR100", "precision", "recall", "F1", "boxes an image / true", "faults"))
    assert text.count("not four numbers 2") == 2


def test_the_four_out_of_domain_sets_of_the_paper(tmp_path: Path) -> None:
    (vector,) = [one for one in odinw_sets("vision_r1_ood") if one.name == "vector"]
    said = write_set(tmp_path / vector.path, vector.annotations, ("circle",), 3)
    whole = run(tmp_path, "vision_r1_ood", said)
    assert whole.missing == ("MountainDewCommercial", "ThermalCheetah", "boggleBoards")
    assert whole.mean("AP") == pytest.approx(1) and not whole.notes  # no list says what its categories are called


@pytest.mark.parametrize("place", ["pistols/export", "pistols"])
def test_a_set_is_read_with_its_images(place: str, tmp_path: Path) -> None:
    file = "val_annotations_without_background.json"
    write_set(tmp_path / place, file, ("pistol",), 2, images=".")
    (pistols,) = [one for one in odinw_sets("odinw13") if one.name == "pistols"]
    dataset = read_odinw(pistols, tmp_path / place / file)
    assert len(dataset.samples) == 2 and dataset.samples[0].load_image().size == (9, 9)


def test_a_set_that_ships_is_found_by_its_name(tmp_path: Path) -> None:
    (tmp_path / "BCCD").symlink_to(data_path("bccd"))
    found = BENCHMARKS.known("odinw35").find(tmp_path, None, Reading(with_images=True))
    (unit,) = found.units
    assert found.names == [unit.name] == ["BCCD"] and len(unit.samples) == 87


def test_a_folder_without_any_set_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="expected sets of odinw13, such as AerialMaritimeDrone_large"):
        run(tmp_path, "odinw13", [])


def test_a_split_is_refused_for_what_has_one_evaluated_split(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="--split test: odinw13 has one evaluated split"):
        BENCHMARKS.known("odinw13").find(tmp_path, "test", Reading(with_images=False))
