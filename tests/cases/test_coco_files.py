"""COCO files as tools write them: what each gave before is in the comments, what it gives now is the test."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from visionr1 import cli
from visionr1.data import read_dataset, read_table
from visionr1.errors import DataError

CASES = Path(__file__).parent / "data"


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    """Run a command in this process and return its exit status and all that it printed."""
    status = cli.main(list(arguments))
    printed = capsys.readouterr()
    return status, printed.out + printed.err


def check(case: str, capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    """Run `visionr1 data check` on the input of a case."""
    return run(capsys, "data", "check", str(CASES / case), *arguments)


def score(case: str, capsys: pytest.CaptureFixture[str], *arguments: str, results: str = "res.json") -> dict[str, Any]:
    """Return the result of `visionr1 eval` of the results file of a case as JSON."""
    folder = CASES / case
    command = ["eval", "--predictions", str(folder / results), "--data", str(folder), "--json", *arguments]
    assert cli.main(command) == 0
    result: dict[str, Any] = json.loads(capsys.readouterr().out)
    return result


def write(folder: Path, **changes: Any) -> Path:
    """Write a set of one image of 100x80 with a cat, `changes` of its lists, and return its folder."""
    folder.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (100, 80)).save(folder / "1.png")
    rows = {
        "images": [{"id": 1, "file_name": "1.png", "width": 100, "height": 80}],
        "categories": [{"id": 1, "name": "cat"}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [10, 10, 50, 40], "area": 2000}],
    }
    (folder / "_annotations.coco.json").write_text(json.dumps(rows | changes))
    return folder


# ---- case 09: no box at all passed the check (rc 0, "3.0000 of 3") ------------------------------------------------


def test_a_set_whose_boxes_are_all_crowds_fails_the_check(capsys: pytest.CaptureFixture[str]) -> None:
    """CVAT's export of masks (ultralytics/JSON2YOLO#38)."""
    status, printed = check("case_09/p_allcrowd", capsys)
    assert status == 2 and "FAILED no box to learn from: iscrowd is 1 on all 2 annotations (CVAT" in printed
    assert "docs/faq.md#no-box-to-learn-from" in printed


def test_a_set_without_annotations_fails_the_check(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An export without annotations (v7labs/darwin-py#1173)."""
    status, printed = run(capsys, "data", "check", str(write(tmp_path, annotations=[])))
    assert status == 2 and "FAILED no box to learn from: the annotations hold none" in printed


def test_a_set_whose_boxes_are_all_outside_fails_the_check(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    outside = [{"image_id": 1, "category_id": 1, "bbox": [200, 10, 5, 5]}]
    status, printed = run(capsys, "data", "check", str(write(tmp_path, annotations=outside)))
    assert status == 2 and "FAILED no box to learn from: all 1 are empty, crowd regions or outside" in printed


def test_scoring_crowds_alone_says_why_there_is_no_figure(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results = tmp_path / "results.json"
    results.write_text(json.dumps([{"image_id": 1, "category_id": 1, "bbox": [10, 10, 50, 40], "score": 1}]))
    status, printed = run(capsys, "eval", "--predictions", str(results), "--data", str(CASES / "case_09/p_allcrowd"))
    assert status == 0 and "iscrowd is 1 on all 2 annotations" in printed


# ---- case 10: boxes only as segmentation; an image with a hole in its truth ---------------------------------------


@pytest.mark.parametrize("case", ["p_segonly", "p_segemptybbox"])
def test_boxes_are_had_from_segmentations(case: str, capsys: pytest.CaptureFixture[str]) -> None:
    """No bbox, or []: refused; with --on-bad skip every picture taught that nothing is there."""
    status, printed = check(f"case_10/{case}", capsys)
    assert status == 0 and "adjusted 2 boxes from segmentations" in printed and "3.0000 of 3" in printed
    assert read_table(CASES / "case_10" / case).xywh.tolist() == [[10, 10, 50, 40], [10, 10, 50, 40]]


def test_no_box_in_the_segmentation_either_is_a_bad_row(tmp_path: Path) -> None:
    """X-AnyLabeling writes bbox [] and segmentation [] for turned boxes (CVHub520/X-AnyLabeling#397)."""
    empty = [{"image_id": 1, "category_id": 1, "bbox": [], "segmentation": []}]
    with pytest.raises(DataError, match=r"bbox: expected four finite numbers .*found \[\]"):
        read_dataset(write(tmp_path, annotations=empty))


def test_an_image_that_lost_a_box_is_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    """The second of two boxes is of strings. Was: AP 50 for two perfect boxes. The set has no other image."""
    folder = CASES / "case_10/y_skip"
    command = ["eval", "--predictions", str(folder / "res.json"), "--data", str(folder)]
    status, printed = run(capsys, *command, "--on-bad", "skip")
    assert status == 2 and "no image is left of 1: skipped 1 bad box" in printed
    assert "images left out: 1 (1 for bad box)" in printed
    assert check("case_10/y_skip", capsys)[0] == check("case_10/y_skip", capsys, "--on-bad", "skip")[0] == 2


LOST_BOXES = [
    {"bbox": ["60", 5, 30, 30]},
    {"bbox": [60, 5, 30]},
    {"bbox": [60, 5, -30, 30]},
    {"bbox": [60, 5, 30, float("inf")]},
    {"bbox": [60, 5, 30, 30], "category_id": 7},
    {"bbox": [60, 5, 30, 30], "area": "900"},
    {"bbox": [60, 5, 30, 30], "iscrowd": "0"},
]


@pytest.mark.parametrize("lost", LOST_BOXES)
def test_every_kind_of_lost_box_costs_its_image(tmp_path: Path, lost: Any) -> None:
    whole = {"category_id": 1, "bbox": [10, 10, 50, 40]}
    images = [{"id": number, "file_name": "1.png", "width": 100, "height": 80} for number in (1, 2)]
    annotations = [whole | {"image_id": 1}, whole | {"image_id": 1} | lost, whole | {"image_id": 2}]
    dataset = read_dataset(write(tmp_path, images=images, annotations=annotations), on_bad="skip")
    assert [sample.image_id for sample in dataset.samples] == [2]
    assert len(dataset.report.images_left_out) == 1 and sum(dataset.report.skipped.values()) == 1


# ---- case 11: one picture under two ids; one box twice ------------------------------------------------------------


@pytest.mark.parametrize("case", ["p_dupfile", "p_dupfile2"])
def test_a_picture_under_two_ids_is_counted(case: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Two annotators, each with half of the cells (sartorius-research/LIVECell#14): nothing was said, AP 75."""
    status, printed = check(f"case_11/{case}", capsys)
    assert status == 0 and "NOTE 1 pictures stand under several image ids" in printed and "under 1, 2" in printed


def test_equal_boxes_are_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    box = {"image_id": 1, "category_id": 1, "bbox": [10, 10, 50, 40]}
    folder = write(tmp_path, annotations=[box, box, box | {"bbox": [11, 10, 50, 40]}])
    status, printed = run(capsys, "data", "check", str(folder))
    assert status == 0 and "NOTE 1 boxes are there twice" in printed


# ---- case 13: odd sizes and ids; ten tracebacks -------------------------------------------------------------------


SIZES = [1e30, 10**30, 2**63, 1 << 31, float("inf"), float("nan"), -1, 0.5, "100", True, [100], {"px": 100}]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("side", ["width", "height"])
def test_a_size_that_is_none_is_a_bad_row(tmp_path: Path, size: Any, side: str) -> None:
    images = [{"id": 1, "file_name": "1.png", "width": 100, "height": 80} | {side: size}]
    with pytest.raises(DataError, match=r"images\[0\]: width, height: expected whole numbers of pixels"):
        read_dataset(write(tmp_path, images=images))

    # Boxes alone need no sizes.
    assert read_table(tmp_path).sizes_wh.tolist() == [[0, 0]]


@pytest.mark.parametrize("case", ["p_bigw", "p_strsize"])
def test_a_size_that_is_none_is_named_by_the_command(case: str, capsys: pytest.CaptureFixture[str]) -> None:
    status, printed = check(f"case_13/{case}", capsys)
    assert status == 2 and "images[0]: width, height: expected whole numbers of pixels" in printed


@pytest.mark.parametrize("case", ["p_nullsize", "r_zerosize"])
def test_null_and_0_are_no_size(case: str, capsys: pytest.CaptureFixture[str]) -> None:
    status, printed = check(f"case_13/{case}", capsys)
    assert status == 0 and "adjusted 2 images without size" in printed


def test_results_are_scored_without_sizes(capsys: pytest.CaptureFixture[str]) -> None:
    """Was refused, although pycocotools gives 1.0."""
    assert score("case_13/p_nullsize", capsys)["metrics"]["AP"] == pytest.approx(1)
    assert score("case_13/p_nullsize", capsys, "--on-bad", "skip")["counts"]["images"] == 2


DEEP: Any = []
for _ in range(900):
    DEEP = [DEEP]
ODD_VALUES = [{"$oid": "5f"}, [1], [], {}, True, None, 1.5, float("nan"), "", "9" * 999, "\ud800", DEEP, 10**400]


@pytest.mark.parametrize("value", ODD_VALUES, ids=lambda value: f"{value!r:.20}")
@pytest.mark.parametrize(
    ("rows", "key"),
    [
        ("images", "id"),
        ("images", "file_name"),
        ("images", "width"),
        ("images", "coco_url"),
        ("annotations", "id"),
        ("annotations", "image_id"),
        ("annotations", "category_id"),
        ("annotations", "bbox"),
        ("annotations", "area"),
        ("annotations", "iscrowd"),
        ("annotations", "ignore"),
        ("annotations", "segmentation"),
        ("annotations", "attributes"),
        ("categories", "id"),
        ("categories", "name"),
        ("categories", "supercategory"),
    ],
)
def test_no_value_of_any_field_is_a_traceback(
    tmp_path: Path, rows: str, key: str, value: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    """Objects and lists as ids (MongoDB's), numbers of 5000 digits, half characters, lists 900 deep."""
    folder = write(tmp_path)
    content = json.loads((folder / "_annotations.coco.json").read_text())
    content["categories"].append({"id": 2, "name": "pet", "supercategory": "none"})
    content[rows][0][key] = value
    write(tmp_path, **content)
    for on_bad in ("raise", "skip"):
        status, printed = run(capsys, "data", "check", str(folder), "--on-bad", on_bad)
        assert status in (0, 2) and len(printed) < 4000

    results = tmp_path / "results.json"
    results.write_text(json.dumps([{"image_id": 1, "category_id": 1, "bbox": [10, 10, 50, 40], "score": 1}]))
    status, printed = run(
        capsys, "eval", "--predictions", str(results), "--data", str(folder), "--out", str(tmp_path / "out")
    )
    assert status in (0, 2) and len(printed) < 4000


def test_annotation_ids_that_are_objects_do_no_harm(capsys: pytest.CaptureFixture[str]) -> None:
    assert check("case_13/p_oid", capsys)[0] == 0


def test_a_file_name_that_no_file_system_takes_is_a_missing_image(capsys: pytest.CaptureFixture[str]) -> None:
    """300 letters: "File name too long" ended the reading, also with --on-bad skip."""
    assert check("case_13/longname", capsys)[0] == 2
    status, printed = check("case_13/longname", capsys, "--on-bad", "skip")
    assert status == 0 and "images left out: 1 (1 for missing image)" in printed


# ---- case 14: LVIS was scored as COCO without a word (75.0, lvis-api 100) -----------------------------------------


def test_lvis_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    folder = CASES / "case_14/s_lvis"
    command = ["eval", "--predictions", str(folder / "res.json"), "--data", str(folder / "lvis.json")]
    for arguments in (command, [*command, "--on-bad", "skip"], ["data", "check", str(folder / "lvis.json")]):
        status, printed = run(capsys, *arguments)
        assert status == 2 and "federated evaluation is not supported yet" in printed
        assert "docs/faq.md#an-lvis-file-is-refused" in printed


def test_pictures_of_lvis_are_named_by_their_url(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """No file_name, but coco_url: the error was "expected a path ..., found ''"."""
    shutil.copytree(CASES / "case_14/p_lvis", tmp_path / "set")
    (tmp_path / "set/train2017").mkdir()
    for number in (1, 2):
        (tmp_path / f"set/{number}.jpg").rename(tmp_path / f"set/train2017/{number:012}.jpg")
    assert [sample.image.name for sample in read_dataset(tmp_path / "set").samples] == [  # type: ignore[union-attr]
        "000000000001.jpg",
        "000000000002.jpg",
    ]
    status, printed = check("case_14/p_lvis", capsys)
    assert status == 2 and "train2017/000000000001.jpg" in printed and "nothing is downloaded" in printed


# ---- case 15: rotated boxes were read unrotated, IoU with the object 0.2 ------------------------------------------


def test_a_box_that_cvat_turned_is_enclosed(capsys: pytest.CaptureFixture[str]) -> None:
    """cvat-ai/cvat#4745: [20, 30, 60, 20], turned by 90 degrees, lies in [40, 10, 60, 70]."""
    status, printed = check("case_15/s_rot", capsys)
    assert status == 0 and "adjusted 1 rotated boxes enclosed" in printed
    assert read_dataset(CASES / "case_15/s_rot").samples[0].truth.xyxy.tolist() == [[40, 10, 60, 70]]


def test_degrees_may_be_written_as_text(tmp_path: Path) -> None:
    """So do tools that read the attributes from XML."""
    rows = [{"image_id": 1, "category_id": 1, "bbox": [20, 30, 60, 20], "attributes": {"rotation": "-90.0"}}]
    assert read_dataset(write(tmp_path, annotations=rows)).table.xywh.tolist() == [[40, 10, 20, 60]]


@pytest.mark.parametrize(
    "change",
    [
        {"attributes": {"rotation": 0.0}},
        {"attributes": {"rotation": 180}},
        {"attributes": {"rotation": "upright"}},
        {"attributes": {"rotation": "180.0"}},
        {"attributes": {"rotation": float("nan")}},
        {"attributes": [90]},
        {"attributes": {"rotation": 30.0}, "segmentation": [[10, 10, 60, 10, 60, 50, 10, 50]]},  # enclosed already
    ],
)
def test_other_boxes_stay_as_they_are(tmp_path: Path, change: Any) -> None:
    rows = [{"image_id": 1, "category_id": 1, "bbox": [10, 10, 50, 40], "area": 2000} | change]
    dataset = read_dataset(write(tmp_path, annotations=rows))
    assert dataset.table.xywh.tolist() == [[10, 10, 50, 40]] and dataset.report.adjusted == {}


# ---- case 21: ignore, and areas that are none ---------------------------------------------------------------------


def test_a_box_marked_ignore_stays_and_is_counted(capsys: pytest.CaptureFixture[str]) -> None:
    status, printed = check("case_21/p_ignore", capsys)
    assert status == 0 and "adjusted 1 boxes marked ignore kept" in printed and "; 2 boxes" in printed


@pytest.mark.parametrize(
    ("area", "note"),
    [(-2000, "an area of 0 or less"), (0, "an area of 0 or less"), (2100, "a larger area than width x height")],
)
def test_areas_that_cannot_be_are_counted(
    tmp_path: Path, area: float, note: str, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [{"image_id": 1, "category_id": 1, "bbox": [10, 10, 50, 40], "area": area}]
    status, printed = run(capsys, "data", "check", str(write(tmp_path, annotations=rows)))
    assert status == 0 and f"NOTE 1 of 1 boxes have {note}" in printed


# ---- case 23: right, or refused with a clear message --------------------------------------------------------------


def test_boxes_as_fractions_fail_the_check(capsys: pytest.CaptureFixture[str]) -> None:
    """Was rc 0 and "1.0000 of 3"."""
    status, printed = check("case_23/p_norm", capsys)
    assert status == 2 and "FAILED all 2 boxes lie in 0 to 1, as fractions of the image do" in printed


def test_corners_in_place_of_sizes_are_noted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"image_id": 1, "category_id": 1, "bbox": box} for box in ([10, 10, 95, 70], [50, 40, 99, 79])]
    status, printed = run(capsys, "data", "check", str(write(tmp_path, annotations=rows)))
    assert status == 0 and "NOTE 2 of 2 boxes reach beyond the image, and would not as [x1, y1, x2, y2]" in printed


REFUSED = [
    ("p_intname", "categories[0]: name: expected a text that is not blank, such as 'cat'"),
    ("p_dupname", "2 categories are called 'cat'"),
    ("r_sameid", "id: expected one that no other image has"),
    ("p_strbox", "bbox: expected four finite numbers"),
    ("p_strcrowd", "iscrowd: expected 0 or 1, found"),
]


@pytest.mark.parametrize(("case", "message"), REFUSED)
def test_what_makes_no_sense_is_refused_by_name(case: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    status, printed = check(f"case_23/{case}", capsys)
    assert status == 2 and message in printed


def test_ids_of_any_kind_are_read(capsys: pytest.CaptureFixture[str]) -> None:
    """Floats and strings; annotation ids that are all 0 (cvat#2155)."""
    assert check("case_23/p_ids", capsys)[0] == 0
    assert score("case_23/r_id0", capsys)["metrics"]["AP"] == pytest.approx(1)
    assert len(read_table(CASES / "case_23/r_id0/bom.json")) == 2  # with a byte order mark


def test_names_with_blanks_at_their_ends_or_a_line_break_are_read(capsys: pytest.CaptureFixture[str]) -> None:
    status, printed = check("case_23/p_blankname", capsys)
    assert status == 0 and "3.0000 of 3" in printed


@pytest.mark.parametrize("results", ["nan.json", "dict.json", "strscore.json", "res.json"])
def test_results_that_are_none_are_refused_by_row(results: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A score that is no number or a text, an object, and file names as image ids."""
    folder = CASES / "case_23/r_stem"
    status, printed = run(capsys, "eval", "--predictions", str(folder / results), "--data", str(folder))
    assert status == 2 and results in printed


def test_a_set_of_a_fuzzer_is_scored() -> None:
    table = read_table(CASES / "case_23/fz/g.json")
    assert len(table) > 0 and len(table.xywh) > 0


# ---- case 19: the check passed what eval and train then died of ----------------------------------------------------


@pytest.mark.parametrize("case", ["a_zero", "y_big"])
def test_a_picture_that_cannot_be_read_fails_the_check(case: str, capsys: pytest.CaptureFixture[str]) -> None:
    status, printed = check(f"case_19/{case}", capsys)
    assert status == 2 and "FAILED" in printed
