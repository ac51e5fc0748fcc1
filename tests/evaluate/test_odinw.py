"""ODinW: the list of sets, folders in both layouts, what is missing, and the two means."""

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from visionr1 import cli
from visionr1.errors import DataError
from visionr1.evaluate import DetectionResult, OdinwSet, evaluate_file, evaluate_suite, odinw_sets, read_odinw
from visionr1.readers import data_path

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
    command = ["eval", "--predictions", str(said), "--data", str(tmp_path / "odinw"), "--suite", "odinw13"]
    command += ["--resamples", "2"]
    assert cli.main([*command, "--out", str(tmp_path / "out")]) == 0
    text = capsys.readouterr().out
    assert "NOT odinw13: 11 of 13 sets are missing: AerialMaritimeDrone_large, CottontailRabbits, " in text
    assert "NorthAmericaMushrooms: its file names CoW" in text and "mean of the 1 with 10 images or more" in text
    assert text.count("protocol coco_results") == 1
    record = json.loads((tmp_path / "out/odinw13.json").read_text())
    aps = {name: one["metrics"]["AP"] for name, one in record["sets"].items()}
    assert aps["NorthAmericaMushrooms"] == pytest.approx(1) and 0.4 < aps["Aquarium"] < 0.6
    assert record["mean"]["AP"] == pytest.approx(sum(aps.values()) / 2)
    assert record["mean_without_small"]["AP"] == aps["Aquarium"]
    assert record["complete"] is False and len(record["missing"]) == 11
    assert (tmp_path / "out/odinw13/Aquarium.json").is_file()
    (said / "Aquarium.json").unlink()
    assert cli.main(command) == 2
    assert "no predictions for Aquarium; expected Aquarium.json" in capsys.readouterr().err


def test_without_a_large_set_there_is_no_second_mean(tmp_path: Path) -> None:
    write_set(tmp_path / "pothole", "valid/annotations_without_background.json", ("pothole",), 2)
    (tmp_path / "none.json").write_text("[]")

    def nothing(_: OdinwSet, file: Path) -> DetectionResult:
        return evaluate_file(tmp_path / "none.json", file, num_resamples=0)

    whole = evaluate_suite(tmp_path, "odinw35", nothing)
    assert whole.mean("AP") == 0 and whole.mean("AP", without_small=True) is None
    assert "n/a" in whole.table() and len(whole.missing) == 34 and not whole.renamed


@pytest.mark.parametrize("place", ["pistols/export", "pistols"])
def test_a_set_is_read_with_its_images(place: str, tmp_path: Path) -> None:
    file = "val_annotations_without_background.json"
    write_set(tmp_path / place, file, ("pistol",), 2, images=".")
    (pistols,) = [one for one in odinw_sets("odinw13") if one.name == "pistols"]
    dataset = read_odinw(pistols, tmp_path / place / file)
    assert len(dataset.samples) == 2 and dataset.samples[0].load_image().size == (9, 9)


def test_a_set_that_ships_is_found_by_its_name(tmp_path: Path) -> None:
    (tmp_path / "BCCD").symlink_to(data_path("bccd"))
    seen: list[int] = []

    def read(one: OdinwSet, file: Path) -> DetectionResult:
        seen.append(len(read_odinw(one, file).samples))
        (tmp_path / "none.json").write_text("[]")
        return evaluate_file(tmp_path / "none.json", file, num_resamples=0)

    assert list(evaluate_suite(tmp_path, "odinw35", read).results) == ["BCCD"] and seen == [87]


def test_a_folder_without_any_set_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="expected sets of odinw13, such as AerialMaritimeDrone_large"):
        evaluate_suite(tmp_path, "odinw13", lambda *_: pytest.fail("nothing to evaluate"))
