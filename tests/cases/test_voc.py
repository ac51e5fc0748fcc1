"""Cases 01 to 08: ids and folders of Pascal VOC as users have them, each by the way a user goes."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from visionr1 import cli
from visionr1.data import read_dataset, read_source
from visionr1.errors import DataError

DATA = Path(__file__).parent / "data"


def score(capsys: pytest.CaptureFixture[str], data: Path, *options: str | Path) -> dict[str, Any]:
    """Return the result of `visionr1 eval --data ... --json`."""
    assert cli.main(["eval", "--data", str(data), "--resamples", "0", "--json", *map(str, options)]) == 0
    return dict(json.loads(capsys.readouterr().out))


# ---- case 01: ultralytics/ultralytics#21557: images named by digits, 000005.jpg and 0001.jpg


@pytest.mark.parametrize("results", ["results.json", "results_int.json"])
def test_boxes_of_images_named_by_digits(results: str, capsys: pytest.CaptureFixture[str]) -> None:
    folder = DATA / "case_01/t_vocdigits"
    assert score(capsys, folder, "--predictions", folder / results)["metrics"]["AP"] == pytest.approx(1)


def test_the_same_images_named_by_letters(capsys: pytest.CaptureFixture[str]) -> None:
    folder = DATA / "case_01/t_vocletters"
    assert score(capsys, folder, "--predictions", folder / "results.json")["metrics"]["AP"] == pytest.approx(1)


def test_replies_to_images_named_by_digits(capsys: pytest.CaptureFixture[str]) -> None:
    folder = DATA / "case_01/t_vocdigits"
    result = score(capsys, folder, "--predictions", folder / "replies.jsonl", "--dialect", "qwen25")
    assert result["counts"]["unparsable"] == 0 and result["metrics"]["precision"] == 1.0


@pytest.mark.parametrize("names", [("0001", "0002"), ("01", "1")])
def test_string_ids_come_back_as_the_file_has_them(
    names: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = shutil.copytree(DATA / "case_01/s_strids", tmp_path / "data")
    for file in ("_annotations.coco.json", "res.json"):
        text = (folder / file).read_text()
        for old, new in zip(("0001", "0002"), names, strict=True):
            text = text.replace(f'id": "{old}"', f'id": "{new}"')
        (folder / file).write_text(text)

    rows = tmp_path / "out.json"
    result = score(capsys, folder, "--predictions", folder / "res.json", "--coco-results", rows)
    assert result["metrics"]["AP"] == pytest.approx(1)
    assert [row["image_id"] for row in json.loads(rows.read_text())] == list(names)

    # Another evaluator takes the file with the annotations as they are.
    truth = COCO(str(folder / "_annotations.coco.json"))
    evaluation = COCOeval(truth, truth.loadRes(str(rows)), "bbox")
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    assert evaluation.stats[0] == pytest.approx(1)


def check(capsys: pytest.CaptureFixture[str], data: Path, *options: str) -> tuple[int, str]:
    """Return the exit status of `visionr1 data check`, and all that it printed."""
    status = cli.main(["data", "check", str(data), *options])
    printed = capsys.readouterr()
    return status, printed.out + printed.err


# ---- case 02: FOD-UNOmaha/FOD-data#3: a list that names an image twice


def test_a_list_that_names_an_image_twice_is_refused_or_counted(capsys: pytest.CaptureFixture[str]) -> None:
    folder = DATA / "case_02/t_voctwice"
    for options in ((), ("--split", "test")):
        status, printed = check(capsys, folder, *options)
        assert status == 2 and "test.txt, line 3: expected each image once, found 'a' again" in printed

    # Skipping costs the second mention, not the image.
    options = ("--predictions", folder / "results.json", "--on-bad", "skip")
    result = score(capsys, folder, *options)
    assert result["metrics"]["AP"] == pytest.approx(1) and result["metrics"]["recall"] == 1.0
    assert [sample.id for sample in read_dataset(folder, split="test", on_bad="skip").samples] == ["a", "b"]


# ---- case 03: bubbliiiing/efficientdet-pytorch#16, dusty-nv/jetson-inference#1050: names with blanks


def ids(folder: Path, split: str | None = "test") -> list[str]:
    return [sample.id for sample in read_dataset(folder, split=split).samples]


def test_names_with_blanks(capsys: pytest.CaptureFixture[str]) -> None:
    assert ids(DATA / "case_03/t_vocspaces") == ["IMG 1", "IMG 2"]
    folder = DATA / "case_03/t_vocspaces2"
    assert ids(folder) == ["cat", "cat 2"]
    assert score(capsys, folder, "--predictions", folder / "res2.json")["metrics"]["AP"] == pytest.approx(1)
    assert score(capsys, folder, "--predictions", folder / "res1.json")["metrics"]["recall"] == 0.5


def test_a_list_with_the_endings_of_pictures() -> None:
    assert ids(DATA / "case_03/v_listext") == ["a"]


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ('"my cat"\n', ["my cat"]),  # datumaro and CVAT quote names with blanks
        ('"my cat" 1\n"IMG 1" -1\n', ["my cat", "IMG 1"]),
        ("my cat 1\nIMG 1  0\n", ["my cat", "IMG 1"]),  # a list by class: each name with a flag
        ("IMG 1\nIMG 1 (2)\n", ["IMG 1", "IMG 1 (2)"]),
        ("JPEGImages/my cat.jpg\r\nIMG 1.JPG\r\n", ["my cat", "IMG 1"]),
        ("IMG 1 1\n", ["IMG 1"]),
    ],
)
def test_what_a_line_of_a_list_may_look_like(lines: str, expected: list[str], tmp_path: Path) -> None:
    folder = voc_folder(tmp_path, *dict.fromkeys(["my cat", "IMG", "IMG 1", "IMG 1 (2)"]), split="test")
    for encoding in ("utf-8", "utf-8-sig", "utf-16"):
        (folder / "ImageSets/Main/test.txt").write_bytes(lines.encode(encoding))
        assert ids(folder) == expected


def test_no_other_image_is_read_without_a_word_in_the_place_of_one_that_is_missing(tmp_path: Path) -> None:
    folder = voc_folder(tmp_path, "cat", "dog", split="test")
    file = folder / "ImageSets/Main/test.txt"
    file.write_text("dog\ncat 2\n")
    with pytest.raises(DataError, match="line 2: 'cat 2': expected the name of a file in Annotations, or of a picture"):
        read_dataset(folder, split="test")

    # A flag where other lines have none is counted; the same image twice is refused.
    file.write_text("dog\ncat 1\n")
    data = read_dataset(folder, split="test")
    assert [sample.id for sample in data.samples] == ["dog", "cat"]
    assert data.report.adjusted == {"names_read_without_a_flag": 1}
    file.write_text("cat\ncat 1\n")
    with pytest.raises(DataError, match="expected each image once, found 'cat 1' again"):
        read_dataset(folder, split="test")


# ---- case 04: dusty-nv/jetson-inference#789, facebookresearch/detectron2#2476: no lists, pictures without XML


@pytest.mark.parametrize("split", ["test", "train", "valid", None])
def test_a_folder_without_lists_is_one_split(split: str | None) -> None:
    data = read_dataset(DATA / "case_04/t_vocnolists", split=split)
    assert [sample.id for sample in data.samples] == ["a"]
    notes = [note for note in data.report.notes if "no lists in ImageSets/Main" in note]
    assert len(notes) == (split is not None)

    # Training says so too, and what it asks for.
    lines: list[str] = []
    read_source(DATA / "case_04/t_vocnolists", split=split, notify=lines.append)
    assert lines == list(data.report.notes)


def test_a_folder_without_lists_is_evaluated(capsys: pytest.CaptureFixture[str]) -> None:
    folder = DATA / "case_04/t_vocnolists"
    options = ["--predictions", str(folder / "results.json"), "--data", str(folder), "--resamples", "0", "--json"]
    assert cli.main(["eval", *options]) == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out)["metrics"]["AP"] == pytest.approx(1)
    assert "no lists in ImageSets/Main: split 'test' is all 1 annotations" in printed.err
    assert "classes: the names in all of Annotations (1)" in printed.err


def test_the_only_list_of_cvat_is_every_split(tmp_path: Path) -> None:
    folder = voc_folder(tmp_path, "a", "b", split="default")
    (folder / "ImageSets/Main/default.txt").write_text("b\n")
    assert ids(folder, "test") == ids(folder, "train") == ["b"]


def test_a_listed_picture_without_xml_has_no_objects() -> None:
    data = read_dataset(DATA / "case_04/z_noxml", split="train")
    assert [(sample.id, len(sample.truth)) for sample in data.samples] == [("a", 1), ("b", 0)]
    assert data.report.adjusted["images_without_xml"] == 1
    assert data.table.categories == ("person",)


# ---- case 05: facebookresearch/detectron2#2476, open-edge-platform/datumaro#228: the list of classes


@pytest.mark.parametrize("split", ["train", "test", None])
def test_the_classes_are_those_of_the_folder_whatever_the_split(split: str | None) -> None:
    data = read_dataset(DATA / "case_05/n_vocsplit", split=split)
    assert data.table.categories == ("cat", "dog", "hat") and data.table.category_ids == (1, 2, 3)
    assert "classes: the names in all of Annotations (3)" in data.report.notes


@pytest.mark.parametrize(
    ("file", "text"),
    [
        (
            "label_map.txt",
            "# label : color (r, g, b) : parts : actions\nbackground:0,0,0::\nhat:1,2,3::\ncat:::\ndog:::\n",
        ),
        ("labelmap.txt", "\ufeffhat:128,0,0::\r\ncat:128,0,0:head,paw:\r\ndog:0,0,0::\r\n"),
        ("labels.txt", "__ignore__\n_background_\nhat\ncat\n\ndog\n"),
    ],
)
def test_a_list_of_classes_beside_the_annotations_counts(file: str, text: str, tmp_path: Path) -> None:
    folder = shutil.copytree(DATA / "case_05/n_vocsplit", tmp_path / "data")
    (folder / file).write_text(text)
    data = read_dataset(folder, split="test")
    assert data.table.categories == ("hat", "cat", "dog") and f"classes: the 3 of {file}" in data.report.notes


def test_names_of_voc_keep_their_numbers_and_only_its_own_folder_asks_for_all(tmp_path: Path) -> None:
    folder = voc_folder(tmp_path / "mine", "a")
    table = read_dataset(folder).table
    assert table.categories == ("dog",) and table.category_ids == (12,)
    assert len(read_dataset(voc_folder(tmp_path / "VOC2012", "a")).table.categories) == 20


# ---- case 06: sekilab/RoadDamageDetector#7: AppleDouble files


def test_hidden_files_are_no_annotations(capsys: pytest.CaptureFixture[str]) -> None:
    status, printed = check(capsys, DATA / "case_06/v_apple")
    assert status == 0 and "1 images, " in printed


# ---- case 07: HumanSignal/labelImg#92, label-studio-converter#100: where the picture and the XML are


@pytest.mark.parametrize(
    ("name", "pictures"),
    [
        ("v_noext", ["JPEGImages/a.jpg"]),
        ("v_noextpng", ["JPEGImages/a.png"]),
        ("v_wrongext", ["JPEGImages/a.jpg"]),
        ("v_upper", ["JPEGImages/a.jpg", "JPEGImages/b.jpg"]),
        ("v_nested", ["JPEGImages/b.jpg", "JPEGImages/sub/a.jpg"]),
        ("v_nested2", ["JPEGImages/sub/a.jpg"]),
    ],
)
def test_the_picture_of_each_xml_file(name: str, pictures: list[str]) -> None:
    folder = DATA / "case_07" / name
    data = read_dataset(folder, split="test")
    assert [sample.image for sample in data.samples] == [folder / picture for picture in pictures]
    num_by_own_name = data.report.adjusted.get("pictures_named_as_the_xml", 0)
    assert num_by_own_name == (name in ("v_noext", "v_noextpng", "v_wrongext"))


@pytest.mark.parametrize("filename", ["", "C:\\photos\\a.jpg", "D:/x/other.png", "/home/me/a.jpg", "x" * 300])
def test_a_filename_of_another_machine(filename: str, tmp_path: Path) -> None:
    folder = voc_folder(tmp_path, "a")
    xml = folder / "Annotations/a.xml"
    xml.write_text(xml.read_text().replace("<filename>a.jpg", f"<filename>{filename}"))
    assert read_dataset(folder).samples[0].image == folder / "JPEGImages/a.jpg"


@pytest.mark.parametrize("place", ["jpegimages", "images", "Images", ".", "Annotations"])
def test_where_pictures_may_lie(place: str, tmp_path: Path) -> None:
    folder = voc_folder(tmp_path, "a")
    picture = (folder / "JPEGImages/a.jpg").read_bytes()
    shutil.rmtree(folder / "JPEGImages")
    (folder / place).mkdir(exist_ok=True)
    (folder / place / "a.jpg").write_bytes(picture)
    assert read_dataset(folder).samples[0].image == folder / place / "a.jpg"


def test_a_mask_is_never_taken_for_its_picture(tmp_path: Path) -> None:
    folder = voc_folder(tmp_path, "a")
    (folder / "JPEGImages").rename(folder / "SegmentationClass")
    with pytest.raises(DataError, match="expected an image at"):
        read_dataset(folder)


# ---- case 08: ssaru/convert2Yolo#6, bubbliiiing/efficientdet-pytorch#15, labelImg#364: other encodings


@pytest.mark.parametrize(
    ("name", "label", "picture"),
    [
        ("v_gbk", "dog", "猫.jpg"),
        ("v_latin", "dog", "café.jpg"),
        ("w_gbk", "猫", "a.jpg"),
        ("w_iso-8859-1", "Ã©", "a.jpg"),
        ("w_windows-1251", "Ра", "a.jpg"),
        ("w_windows-1252", "Ã©x", "a.jpg"),
    ],
)
def test_the_letters_are_those_of_the_declared_encoding(name: str, label: str, picture: str) -> None:
    (sample,) = read_dataset(DATA / "case_08" / name).samples
    assert sample.truth.labels == (label,) and isinstance(sample.image, Path) and sample.image.name == picture


@pytest.mark.parametrize(
    ("encoding", "label"),
    [
        ("utf-8", "猫 é"),
        ("utf-8-sig", "猫 é"),
        ("utf-16", "猫 é"),
        ("utf-16-le", "猫 é"),
        ("utf-16-be", "猫 é"),
        ("GB2312", "汽车"),
        ("gb18030", "汽车"),
        ("Shift_JIS", "ねこ"),
        ("EUC-JP", "ねこ"),
        ("ISO-2022-JP", "ねこ"),
        ("Big5", "貓"),
        ("EUC-KR", "고양이"),
        ("koi8-r", "пр"),
        ("ISO-8859-15", "œuf"),
        ("us-ascii", "cat"),
    ],
)
def test_every_encoding_of_text(encoding: str, label: str, tmp_path: Path) -> None:
    folder = voc_folder(tmp_path, "a")
    text = (folder / "Annotations/a.xml").read_text().replace("dog", label)
    declared = encoding.removesuffix("-sig")
    content = f'<?xml version="1.0" encoding="{declared}"?>\n{text}'.encode(encoding)
    (folder / "Annotations/a.xml").write_bytes(content)
    assert read_dataset(folder).table.categories == (label,)


def test_what_is_in_no_declared_encoding_is_named(tmp_path: Path) -> None:
    folder = voc_folder(tmp_path, "a")
    text = (folder / "Annotations/a.xml").read_text().replace("dog", "汽车")
    xml = folder / "Annotations/a.xml"
    xml.write_bytes(text.encode("gbk"))
    with pytest.raises(DataError, match=r"a\.xml is not UTF-8 text.*declare its encoding in the first line"):
        read_dataset(folder)

    # Escapes of text, and what is no text at all, are no encodings.
    for name in ("utf-7", "unicode_escape", "rot13", "zlib", "punycode", "nothing"):
        xml.write_text(f'<?xml version="1.0" encoding="{name}"?>{text}')
        with pytest.raises(DataError, match="is not UTF-8 text, nor in an encoding that it declares"):
            read_dataset(folder)


def test_a_doctype_is_refused_in_any_encoding(tmp_path: Path) -> None:
    folder = voc_folder(tmp_path, "a")
    for encoding in ("utf-8", "utf-16", "utf-16-be", "gbk"):
        text = f'<?xml version="1.0" encoding="{encoding}"?><!DOCTYPE a [<!ENTITY b "c">]><annotation>&b;</annotation>'
        (folder / "Annotations/a.xml").write_bytes(text.encode(encoding))
        with pytest.raises(DataError, match="without a DOCTYPE"):
            read_dataset(folder)


# ---- case 10: an object that cannot be used costs its image


def test_an_image_that_loses_an_object_is_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = voc_folder(tmp_path, "a", "b")
    xml = folder / "Annotations/a.xml"
    broken = "<object><name>dog</name><bndbox><xmin>9</xmin></bndbox></object></annotation>"
    xml.write_text(xml.read_text().replace("</annotation>", broken))
    results = [{"image_id": name, "category_id": 12, "bbox": [10, 10, 50, 50], "score": 0.9} for name in "ab"]
    (tmp_path / "results.json").write_text(json.dumps(results))

    status, printed = check(capsys, folder)
    assert status == 2 and "a.xml: object 1: bndbox/ymin: expected a number, found None" in printed
    result = score(capsys, folder, "--predictions", tmp_path / "results.json", "--on-bad", "skip")
    assert result["metrics"]["AP"] == pytest.approx(1) and result["metrics"]["precision"] == 1.0
    assert result["counts"]["images_left_out"] == 1


# ---- case 15: cvat-ai/cvat#4745, #6785: boxes that are turned, as CVAT and datumaro write them


def test_a_turned_box_is_enclosed(tmp_path: Path) -> None:
    folder = voc_folder(tmp_path, "a")
    xml = folder / "Annotations/a.xml"
    text = xml.read_text().replace("<xmin>11</xmin><ymin>11<", "<xmin>21</xmin><ymin>31<")
    text = text.replace("<xmax>60</xmax><ymax>60<", "<xmax>80</xmax><ymax>50<")
    turned = "<attributes><attribute><name>rotation</name><value>90.0</value></attribute></attributes></object>"
    xml.write_text(text.replace("</object>", turned))
    data = read_dataset(folder)
    assert data.samples[0].truth.xyxy.tolist() == [[40, 10, 60, 70]]
    assert data.report.adjusted == {"rotated_boxes_enclosed": 1}


# ---- cases 22 and 23: small letters, odd sizes, other XML


def test_kaggle_folders_in_small_letters(capsys: pytest.CaptureFixture[str]) -> None:
    status, printed = check(capsys, DATA / "case_22/v_kaggle")
    assert status == 0 and "1 images, " in printed


@pytest.mark.parametrize("name", ["v_zerosize", "v_negsize"])
def test_a_size_that_no_image_has_is_read_from_the_image(name: str) -> None:
    data = read_dataset(DATA / "case_23" / name)
    assert data.samples[0].size_wh == (100, 80) and len(data.samples[0].truth) == 1
    assert data.report.adjusted == {"images_without_size": 1}


def test_swapped_sides_fail_with_their_name(capsys: pytest.CaptureFixture[str]) -> None:
    status, printed = check(capsys, DATA / "case_23/v_swapsize")
    assert status == 2 and "the annotations say 80x100 pixels, but the file has 100x80" in printed


def test_xml_of_another_kind_is_no_image_without_objects(tmp_path: Path) -> None:
    folder = voc_folder(tmp_path, "a")
    (folder / "Annotations/annotations.xml").write_text("<annotations><image name='a.jpg'/></annotations>")
    with pytest.raises(DataError, match="expected <annotation>, found <annotations>"):
        read_dataset(folder)


def voc_folder(folder: Path, *names: str, split: str = "") -> Path:
    """Write a folder of images of 100 x 80, each with a dog at [10, 10, 60, 60], and a list of them."""
    source = DATA / "case_04/t_vocnolists"
    for part in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    for name in names:
        text = (source / "Annotations/a.xml").read_text().replace("a.jpg", f"{name}.jpg")
        (folder / f"Annotations/{name}.xml").write_text(text)
        shutil.copy(source / "JPEGImages/a.jpg", folder / f"JPEGImages/{name}.jpg")
    if split:
        (folder / f"ImageSets/Main/{split}.txt").write_text("".join(f"{name}\n" for name in names))
    return folder
