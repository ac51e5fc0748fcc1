"""Cases of rows, names, pictures and drawn labels: what users' files of these kinds did, each with its right value."""

import json
import unicodedata
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from visionr1.cli import main
from visionr1.data import read_dataset
from visionr1.data.readers.grounding_files import read_grounding_file
from visionr1.data.readers.refer import read_refer
from visionr1.errors import DataError
from visionr1.images import image_size, read_image
from visionr1.report import fonts
from visionr1.report.draw import draw_boxes
from visionr1.rewards import Reward
from visionr1.rewards.published.vision_r1_release import STEPS, ReleaseReward
from visionr1.rewards.published.vlm_r1 import VlmR1Reward
from visionr1.samples import Boxes, GroundTruth

CASES = Path(__file__).parent / "data"


def run(capsys: pytest.CaptureFixture[str], *argv: str) -> tuple[int, str, str]:
    """Run a command in this process; return its status, output and errors."""
    status = main(argv)
    out, err = capsys.readouterr()
    return status, out, err


def evaluate(capsys: pytest.CaptureFixture[str], replies: Path, data: Path) -> Any:
    """Return the result of `visionr1 eval` of stored replies in the dialect qwen25, as JSON."""
    argv = ("eval", "--predictions", str(replies), "--data", str(data), "--dialect", "qwen25", "--json")
    status, out, err = run(capsys, *argv)
    assert status == 0, err
    return json.loads(out)


# ---- case 16: names decomposed by macOS (NFD), which a Qwen tokenizer cannot write --------------------------------


def test_decomposed_names_match_composed_replies(capsys: pytest.CaptureFixture[str]) -> None:
    folder = CASES / "case_16/n_nfd"
    result = evaluate(capsys, folder / "r.jsonl", folder)
    assert result["metrics"]["AP"] == pytest.approx(1)
    status, out, _ = run(capsys, "data", "check", str(folder))
    assert status == 0 and "3.0000 of 3" in out


@pytest.mark.parametrize("name", ["\u00c4pfel", "gâteau", "고양이", "Ångström"])
@pytest.mark.parametrize("preset", [Reward(), ReleaseReward(STEPS["1500"]), VlmR1Reward()])
def test_every_reward_takes_a_composed_label_for_a_decomposed_one(preset: Any, name: str) -> None:
    decomposed = unicodedata.normalize("NFD", name)
    assert decomposed != name
    truth = GroundTruth(Boxes.of([[100, 100, 300, 300]], [decomposed]), (decomposed,), (1000, 1000), (1000, 1000))
    text = f'```json\n[{{"bbox_2d": [100, 100, 300, 300], "label": "{name}"}}]\n```'
    if isinstance(preset, VlmR1Reward):
        text = f"<think>It is there.</think><answer>{text}</answer>"
    plain = GroundTruth(Boxes.of([[100, 100, 300, 300]], [name]), (name,), (1000, 1000), (1000, 1000))
    assert preset.score(text, truth).parts == preset.score(text, plain).parts


# ---- case 19: pictures that cannot be fed -------------------------------------------------------------------------


def test_an_aerial_picture_is_refused_by_a_stated_limit_that_can_be_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    """It has 200 megapixels, more than Pillow decodes unasked; only its header is read here."""
    picture = CASES / "case_19/y_big/1.png"
    with pytest.raises(DataError, match=r"1\.png: the image has .* pixels, and only those of up to 178956970 are"):
        read_image(picture)
    monkeypatch.setenv("VISIONR1_MAX_IMAGE_PIXELS", "200000000")
    width, height = image_size(picture)
    assert width * height == 200_000_000


def test_an_empty_picture_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = run(capsys, "data", "check", str(CASES / "case_19/a_zero"))
    assert status == 2 and "3.jpg: cannot read this image (the file is empty)" in out + err


@pytest.mark.parametrize("name", ["anim.gif", "anim.png", "anim.webp", "cmyk.jpg", "lab.tif", "one.png", "pa.png"])
def test_odd_pictures_are_read(name: str) -> None:
    picture = CASES / "case_19/i_img" / name
    assert read_image(picture).size == image_size(picture)


# ---- case 18: rows of conversations -------------------------------------------------------------------------------


def test_every_pair_of_turns_counts(capsys: pytest.CaptureFixture[str]) -> None:
    folder = CASES / "case_18/n_turns"
    data = read_dataset(folder / "rows.jsonl")
    assert [sample.query.categories for sample in data.samples] == [("cat",), ("dog",)]
    assert [sample.truth.xyxy.tolist() for sample in data.samples] == [[[10, 10, 60, 50]], [[20, 20, 70, 60]]]
    result = evaluate(capsys, folder / "replies.jsonl", folder / "rows.jsonl")
    assert result["metrics"]["precision"] == result["metrics"]["recall"] == 1
    status, out, _ = run(capsys, "data", "check", str(folder / "rows.jsonl"))
    assert status == 0 and "cat: 1" in out and "dog: 1" in out


@pytest.mark.parametrize("name", ["rows.json", "rows.jsonl", "rows2.json", "rows2.jsonl"])
def test_qwens_rows_are_read_as_lines_and_as_a_list(name: str) -> None:
    (sample,) = read_dataset(CASES / "case_18/n_qwen" / name).samples
    assert sample.query.categories == ("house",)
    assert sample.truth == Boxes.of([[135, 114, 1016, 672]], ["house"])


def write_rows(folder: Path, *answers: tuple[list[str], str, str]) -> Path:
    """Write rows of VLM-R1: the categories asked for, and the label and image of the answer."""
    lines = []
    for asked, label, image in answers:
        answer = json.dumps([{"bbox_2d": [1, 2, 30, 40], "label": label}])
        question = f"Detect the following objects: {asked}"
        turns = [{"from": "human", "value": question}, {"from": "gpt", "value": answer}]
        lines.append(json.dumps({"image": image, "conversations": turns}))
        Image.new("RGB", (100, 80)).save(folder / image)
    (folder / "rows.jsonl").write_text("\n".join(lines))
    return folder / "rows.jsonl"


def test_a_label_that_was_not_asked_for_is_a_bad_row(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """y_outside: `data check` passed it, `eval` of the right reply gave AP 0."""
    rows = write_rows(tmp_path, (["cat"], "dog", "1.jpg"), (["cat"], "cat", "2.jpg"))
    status, _, err = run(capsys, "data", "check", str(rows))
    assert status == 2 and "rows.jsonl: row 0: gpt: expected labels among those asked for, ['cat'], found 'dog'" in err
    status, out, _ = run(capsys, "data", "check", str(rows), "--on-bad", "skip")
    assert status == 0 and "skipped 1 bad row" in out and "1 images" in out


def test_messages_name_the_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Two names that are one in NFC: the message said "samples" where the file's name belongs."""
    rows = write_rows(tmp_path, (["\u00c4pfel"], "\u00c4pfel", "1.jpg"), (["A\u0308pfel"], "A\u0308pfel", "2.jpg"))
    status, out, err = run(capsys, "data", "check", str(rows))
    assert status == 0, err
    assert "samples:" not in out and "rows.jsonl" in out and "Äpfel: 2" in out


# ---- case 13: odd sizes and values in rows, grounding files and refs ----------------------------------------------


def test_a_turn_from_a_list_is_a_bad_row() -> None:
    with pytest.raises(DataError, match=r"a\.jsonl: row 0: conversations: .*found turns from \[\['human'\], 'gpt'\]"):
        read_dataset(CASES / "case_13/c_crash/a.jsonl")


def test_annotations_of_mdetr_that_are_no_list_are_named() -> None:
    with pytest.raises(DataError, match=r"b\.json: annotations: expected a list, each with image_id and bbox; found 5"):
        read_grounding_file(CASES / "case_13/c_crash/b.json")


def test_what_is_no_json_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    status, _, err = run(capsys, "data", "check", str(CASES / "case_13/c_crash/x.json"))
    assert status == 2 and "x.json is not JSON" in err


@pytest.mark.parametrize("with_images", [True, False])
def test_an_infinite_width_is_taken_from_the_image(with_images: bool) -> None:
    datasets, _ = read_refer(CASES / "case_13/c_refer", "refcoco", "val", with_images=with_images)
    (sample,) = datasets["val"].samples
    assert sample.size_wh == (100, 80)
    assert datasets["val"].report.adjusted == {"unusable_sizes": 1}


@pytest.mark.parametrize("value", [float("inf"), 1e30, 10**30, float("nan"), "100", True, -1, [100], {"$num": 100}])
def test_sizes_that_are_none_are_taken_from_the_image(tmp_path: Path, value: object) -> None:
    Image.new("RGB", (100, 80)).save(tmp_path / "1.png")
    image = {"id": 1, "file_name": "1.png", "caption": "cat", "width": value, "height": 80}
    content = {"images": [image], "annotations": [{"image_id": 1, "bbox": [1, 2, 3, 4]}]}
    row = {"image": "1.png", "normal_caption": "cat", "solution": [1, 2, 3, 4], "width": value, "height": 80}
    for written in (content, [row]):
        (tmp_path / "rows.json").write_text(json.dumps(written))
        dataset = read_grounding_file(tmp_path / "rows.json")
        assert [sample.size_wh for sample in dataset.samples] == [(100, 80)]
        assert dataset.report.adjusted == {"unusable_sizes": 1}


@pytest.mark.parametrize("name", ["d.jsonl", "deep.json", "1.json"])
@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 100_000, "[" * 2000 + "]" * 2000, "1" * 5000])
def test_deep_and_endless_json_is_named(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    for read in (read_dataset, read_grounding_file):
        with pytest.raises(DataError, match=rf"{name}"):
            read(tmp_path / name)


DEEP = json.loads("[" * 900 + "]" * 900)


@pytest.mark.parametrize("key", ["image", "conversations", "messages"])
@pytest.mark.parametrize("value", [DEEP, {"a": DEEP}, "\ud800", int("9" * 4000), "a" * 300, "a\0b", 1e308, None, True])
def test_odd_values_in_a_row_are_named(tmp_path: Path, key: str, value: object) -> None:
    turns = [{"from": "human", "value": "following objects: ['cat']"}, {"from": "gpt", "value": "None"}]
    row = {"image": "1.png", "conversations": turns, key: value}
    if key == "messages":
        del row["conversations"]
    (tmp_path / "rows.jsonl").write_text(json.dumps(row))
    with pytest.raises(DataError, match=r"rows\.jsonl: row 0: "):
        read_dataset(tmp_path / "rows.jsonl")
    with pytest.raises(DataError, match=r"rows\.jsonl: no image is left|no usable row"):
        read_dataset(tmp_path / "rows.jsonl", on_bad="skip")


@pytest.mark.parametrize("key", ["image", "normal_caption", "solution"])
@pytest.mark.parametrize("value", [DEEP, {"a": DEEP}, int("9" * 4000), 7, None, True, []])
def test_odd_values_in_a_grounding_file_are_named(tmp_path: Path, key: str, value: object) -> None:
    Image.new("RGB", (100, 80)).save(tmp_path / "1.png")
    row = {"image": "1.png", "normal_caption": "cat", "solution": [1, 2, 3, 4], key: value}
    (tmp_path / "rows.json").write_text(json.dumps([row]))
    with pytest.raises(DataError, match=r"rows\.json: row 0: "):
        read_grounding_file(tmp_path / "rows.json")


# ---- case 16, the files: a name in one Unicode form, its file in the other ----------------------------------------


def test_a_decomposed_file_is_found_by_its_composed_name(tmp_path: Path) -> None:
    rows = write_rows(tmp_path, (["cat"], "cat", unicodedata.normalize("NFD", "Äpfel.png")))
    rows.write_text(json.dumps({**json.loads(rows.read_text()), "image": "Äpfel.png"}))
    (sample,) = read_dataset(rows).samples
    assert sample.load_image().size == (100, 80)


# ---- case 17: labels that are drawn -------------------------------------------------------------------------------


def test_letters_of_labels_are_told_apart() -> None:
    """Every letter beyond ASCII was the same empty rectangle; cjk.png shows it."""
    image = Image.new("RGB", (500, 500))
    box = Boxes.of([[50, 50, 400, 400]], ["x"])
    drawn = [draw_boxes(image, box, captions=[letter]).tobytes() for letter in "éüäößñçøåłšı–€"]
    assert len(set(drawn)) == len(drawn)
    assert read_image(CASES / "case_17/cjk.png").size


def test_letters_without_a_font_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fonts, "_list_system_fonts", tuple)
    image = Image.new("RGB", (500, 500))
    for label in ("猫", "고양이"):
        with pytest.warns(UserWarning, match=f"no font has the letters {label[0]}"):
            draw_boxes(image, Boxes.of([[50, 50, 400, 400]], [label]))
