"""Folders of Pascal VOC as other tools and systems lay them out and list them, beside those of the reports."""

from collections.abc import Sequence
from pathlib import Path

import pytest
from PIL import Image

from visionr1.data import find_splits, read_dataset
from visionr1.errors import DataError


def write_image(root: Path, xml: str, picture: str, labels: Sequence[str] = ("wolf",)) -> None:
    """Write an XML file and its picture, both below `root`; `<filename>` is the picture's name without folders."""
    box = "<bndbox><xmin>11</xmin><ymin>21</ymin><xmax>60</xmax><ymax>70</ymax></bndbox>"
    objects = "".join(f"<object><name>{label}</name>{box}</object>" for label in labels)
    for name in (xml, picture):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / xml).write_text(f"<annotation><filename>{Path(picture).name}</filename>{objects}</annotation>")
    Image.new("RGB", (100, 80)).save(root / picture)


def write_list(root: Path, *lines: str, name: str = "train") -> None:
    folder = root / "ImageSets/Main"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.txt").write_text("".join(f"{line}\n" for line in lines))


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("a", "./a"),
        ("a", "A"),
        ("a", "a.JPG"),
        ("a", "JPEGImages\\a.jpg"),
        ("a", ".\\a"),
        ("my cat", "'my cat'"),
        ('my "best" cat', '"my \\"best\\" cat"'),
        ("my cat", '"my cat" 1'),
        (" a", " a"),
        ("a ", "a "),
        ("a\u00a0b", "a\u00a0b"),
        ("v1.2.3", "v1.2.3"),
        ("\ud55c\uae00", "\u1112\u1161\u11ab\u1100\u1173\u11af"),
    ],
)
def test_a_line_never_means_a_picture_without_the_xml_that_it_has(tmp_path: Path, name: str, line: str) -> None:
    """`./a` was an image without objects, beside a.xml."""
    write_image(tmp_path, f"Annotations/{name}.xml", f"JPEGImages/{name}.jpg")
    write_image(tmp_path, "Annotations/other.xml", "JPEGImages/other.jpg")
    write_list(tmp_path, line)
    (sample,) = read_dataset(tmp_path, split="train").samples
    assert sample.id == name and len(sample.truth) == 1


def test_names_that_differ_in_blanks_or_case_alone_stay_apart(tmp_path: Path) -> None:
    names = ("a", "a ", "A")
    for name in names:
        write_image(tmp_path, f"Annotations/{name}.xml", f"JPEGImages/{name}.jpg", [f"wolf{len(name)}{name.isupper()}"])
    write_list(tmp_path, *names)
    assert tuple(sample.id for sample in read_dataset(tmp_path, split="train").samples) == names


def test_pictures_alone_may_lie_in_subfolders(tmp_path: Path) -> None:
    write_image(tmp_path, "Annotations/a.xml", "JPEGImages/day/a.jpg")
    write_image(tmp_path, "Annotations/night/b.xml", "JPEGImages/night/b.jpg")
    write_list(tmp_path, "day/a.jpg", "night/b.jpg")
    assert [len(sample.truth) for sample in read_dataset(tmp_path, split="train").samples] == [1, 1]

    # The XML of another folder's picture is not taken.
    Image.new("RGB", (100, 80)).save(tmp_path / "JPEGImages/day/b.jpg")
    write_list(tmp_path, "day/b.jpg")
    (sample,) = read_dataset(tmp_path, split="train").samples
    assert (sample.id, len(sample.truth)) == ("day/b", 0)


@pytest.mark.parametrize(
    ("annotations", "pictures"), [("", ""), ("Annotations/", "JPEGImages/"), ("annotations/", "images/")]
)
@pytest.mark.parametrize("spell", [str.lower, str.capitalize])
def test_folders_of_splits_are_the_splits(tmp_path: Path, annotations: str, pictures: str, spell: type[str]) -> None:
    """Roboflow's export has XML beside the pictures; classes are those of the whole set."""
    for split, labels in (("train", ["ant", "hat"]), ("valid", ["ant"]), ("test", ["pan"])):
        folder = spell(split)
        write_image(tmp_path, f"{annotations}{folder}/{split}.xml", f"{pictures}{folder}/{split}.jpg", labels)
    assert find_splits(tmp_path) == ("train", "valid", "test")
    for split in ("train", "val", "test"):
        dataset = read_dataset(tmp_path, split=split)
        assert len(dataset.samples) == 1
        assert dataset.table.categories == ("ant", "hat", "pan")
    with pytest.raises(DataError, match="expected split 'dev' in the folders of XML"):
        read_dataset(tmp_path, split="dev")
    assert len(read_dataset(tmp_path).samples) == 3


def test_xml_beside_pictures_without_splits_is_one_split(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_image(tmp_path, f"{name}.xml", f"{name}.png")
    assert len(read_dataset(tmp_path, split="train").samples) == 2


@pytest.mark.parametrize("folder", ["ANNOTATIONS", "annotations", "Annotations"])
def test_the_case_of_folders_and_lists_does_not_matter(tmp_path: Path, folder: str) -> None:
    write_image(tmp_path, f"{folder}/a.xml", "Images/a.jpg")
    write_image(tmp_path, f"{folder}/b.xml", "Images/b.jpg")
    write_list(tmp_path, "a", name="Train")
    write_list(tmp_path, "b", name="VAL")
    assert [sample.id for sample in read_dataset(tmp_path, split="train").samples] == ["a"]
    assert [sample.id for sample in read_dataset(tmp_path, split="valid").samples] == ["b"]


def test_json_beside_xml_is_not_taken_for_voc(tmp_path: Path) -> None:
    """A COCO set may lie where its XML was converted."""
    write_image(tmp_path, "train/a.xml", "train/a.jpg")
    rows = '{"images": [{"id": 1, "file_name": "a.jpg"}], "annotations": [], "categories": [{"id": 1, "name": "ant"}]}'
    (tmp_path / "train/_annotations.coco.json").write_text(rows)
    assert read_dataset(tmp_path, split="train").table.categories == ("ant",)


def test_xml_copied_from_another_keeps_its_own_picture(tmp_path: Path) -> None:
    """b.xml says <filename>a.jpg, which is the picture of a.xml; both were trained on a.jpg."""
    write_image(tmp_path, "Annotations/a.xml", "JPEGImages/a.jpg")
    write_image(tmp_path, "Annotations/b.xml", "JPEGImages/b.jpg")
    (tmp_path / "Annotations/b.xml").write_bytes((tmp_path / "Annotations/a.xml").read_bytes())
    dataset = read_dataset(tmp_path)
    assert [sample.image.name for sample in dataset.samples if isinstance(sample.image, Path)] == ["a.jpg", "b.jpg"]
    assert dataset.report.adjusted["pictures_named_as_the_xml"] == 1


@pytest.mark.parametrize(
    ("declared", "encoding", "label"),
    [
        ("windows-874", "cp874", "\u0e41\u0e21\u0e27"),
        ("windows-31j", "cp932", "\u2460\u732b"),
        ("x-sjis", "cp932", "\u306d\u3053"),
        ("Windows-1251", "cp1251", "\u043a\u043e\u0442"),
        ("ks_c_5601-1987", "cp949", "\ub620\ubc29\uac01\ud558"),
        ("GB18030", "gb18030", "\u732b\U00020000"),
        ("KOI8-U", "koi8_u", "\u0457\u0436\u0430\u043a"),
    ],
)
def test_encodings_under_the_names_of_other_systems(tmp_path: Path, declared: str, encoding: str, label: str) -> None:
    write_image(tmp_path, "Annotations/a.xml", "JPEGImages/a.jpg", [label])
    text = (tmp_path / "Annotations/a.xml").read_text()
    content = f"\n <?xml version='1.0' encoding='{declared}'?>\n{text}".encode(encoding)
    (tmp_path / "Annotations/a.xml").write_bytes(content)
    assert read_dataset(tmp_path).table.categories == (label,)


def test_names_that_differ_in_case_alone_are_both_named(tmp_path: Path) -> None:
    write_image(tmp_path, "Annotations/a.xml", "JPEGImages/a.jpg", ["Wolf"])
    write_image(tmp_path, "Annotations/b.xml", "JPEGImages/b.jpg", ["wolf"])
    with pytest.raises(DataError, match="2 categories are called 'wolf' \\(as 'Wolf', 'wolf'\\)"):
        read_dataset(tmp_path)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("<annotation>", '<annotation xmlns="http://example.org/voc">'),
        ("object>", "Object>"),
        ("xmin>", "XMIN>"),
        ("bndbox>", "bndBox>"),
        ("<annotation>", '<annotation verified="yes">'),
    ],
)
def test_tags_of_another_spelling_lose_no_object(tmp_path: Path, old: str, new: str) -> None:
    """`<Object>` was an image without objects."""
    write_image(tmp_path, "Annotations/a.xml", "JPEGImages/a.jpg")
    file = tmp_path / "Annotations/a.xml"
    file.write_text(file.read_text().replace(old, new))
    (sample,) = read_dataset(tmp_path).samples
    assert len(sample.truth) == 1
