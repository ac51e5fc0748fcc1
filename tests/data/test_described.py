"""D3, OVDEval and V3Det as files: what each image is asked for, and what is refused."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from support.benchmark_trees import D3_SENTENCES, SIZE, write_d3, write_json, write_ovdeval, write_pickle, write_v3det
from visionr1.data.queries import present_categories
from visionr1.data.readers.d3 import read_d3
from visionr1.data.readers.ovdeval import find_subtask_file, read_ovdeval
from visionr1.data.readers.v3det import read_v3det
from visionr1.errors import DataError


def change(path: Path, edit: Callable[[Any], Any]) -> None:
    content = json.loads(path.read_text())
    edit(content)
    write_json(path, content)


# D3


def test_d3_asks_an_image_for_the_sentences_of_its_group(tmp_path: Path) -> None:
    d3 = read_d3(write_d3(tmp_path))
    words = {key: text for key, (text, _, _) in D3_SENTENCES.items()}
    assert [sample.query.categories for sample in d3.samples] == [(words[1], words[2])] + [(words[3], words[4])] * 2
    assert [len(sample.truth) for sample in d3.samples] == [2, 1, 1]
    assert d3.samples[0].load_image().size == SIZE
    assert d3.parts == {
        "FULL": (0, 1, 2, 3),
        "PRES": (0, 2, 3),
        "ABS": (1,),
        "1-3 words": (0, 2),
        "4-6 words": (1,),
        "10 or more words": (3,),
    }


def test_d3_without_images_needs_neither_images_nor_groups(tmp_path: Path) -> None:
    write_d3(tmp_path)
    (tmp_path / "d3_pkl/groups.pkl").unlink()
    assert read_d3(tmp_path, with_images=False).samples == ()
    with pytest.raises(DataError, match=r"expected d3_pkl/groups\.pkl or groups\.pkl of D3, found neither"):
        read_d3(tmp_path)


class Runs:
    def __reduce__(self) -> Any:
        return os.system, ("touch ran",)


D3_FAULTS: list[tuple[str, Any, str]] = [
    ("sentences", {1: {"is_negative": False}}, "categories: 3 have no sentence, such as id 2"),
    ("sentences", ["a", "list"], r"sentences\.pkl: expected a dict of dicts by id"),
    ("images", {0: {"group_id": 9}}, "image 0 of d3_full_annotations.json has no group"),
    ("groups", {1: {"inner_sent_id": "1, 2"}}, "image 0 of d3_full_annotations.json has no group"),
    ("groups", {1: Runs()}, r"groups\.pkl: this pickle asks for (posix|nt)\.system"),
]


@pytest.mark.parametrize(("name", "content", "message"), D3_FAULTS)
def test_faults_of_d3_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, content: Any, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    write_d3(tmp_path)
    write_pickle(tmp_path / f"d3_pkl/{name}.pkl", content)
    with pytest.raises(DataError, match=message):
        read_d3(tmp_path)
    assert not (tmp_path / "ran").exists()


# OVDEval


def test_ovdeval_asks_for_both_lists_in_the_order_of_the_file(tmp_path: Path) -> None:
    file = find_subtask_file(write_ovdeval(tmp_path), "color")
    assert file is not None
    change(file, lambda content: content["images"][0].update(neg_text=["a blue car", "a green car", "a blue car"]))
    data = read_ovdeval(file)
    assert data.samples[0].query.categories == ("a blue car", "a red car", "a green car")
    assert data.report.adjusted == {"labels_without_category": 1}
    assert data.samples[0].truth.labels == ("a red car",) and data.samples[0].image_id == 0
    assert data.samples[1].load_image().size == SIZE
    assert find_subtask_file(tmp_path, "logo") is None


OVDEVAL_FAULTS: list[tuple[dict[str, Any], str]] = [
    ({"text": "a red car"}, r"image 0: text: expected a list of labels, found 'a red car'"),
    ({"neg_text": [7]}, "image 0: neg_text: expected a list of labels"),
    ({"text": [], "neg_text": []}, "expected categories to ask for, found none"),
    ({"file_name": "../../secret.jpg"}, "expected a path below the image folder"),
]


@pytest.mark.parametrize(("fault", "message"), OVDEVAL_FAULTS)
def test_faults_of_ovdeval_are_named(tmp_path: Path, fault: dict[str, Any], message: str) -> None:
    file = write_ovdeval(tmp_path) / "annotations/color.json"
    change(file, lambda content: content["images"][0].update(fault))
    with pytest.raises(DataError, match=message):
        read_ovdeval(file)


# V3Det


def test_v3det_knows_its_tree_and_its_novel_categories(tmp_path: Path) -> None:
    found = read_v3det(write_v3det(tmp_path))
    assert found.table.descendants == {0: frozenset((1, 2)), 1: frozenset((2,))}  # nodes without a category are none
    assert found.parts == {"all": (0, 1, 2, 3, 4), "base": (0, 1, 3), "novel": (2, 4)}
    assert found.samples[0].truth.labels == ("bird", "Sword") and found.samples[0].load_image().size == SIZE


def test_absent_categories_are_drawn_by_the_sample_and_keep_the_order(tmp_path: Path) -> None:
    samples = read_v3det(write_v3det(tmp_path)).samples
    once, again = ([s.query.categories for s in present_categories(samples, num_negatives=2)] for _ in range(2))
    assert once == again and [len(asked) for asked in once] == [4, 3]  # a sword is no Sword
    for asked, sample in zip(once, samples, strict=True):
        assert set(sample.truth.labels) <= set(asked)
        assert list(asked) == [name for name in sample.query.categories if name in asked]
    alone = present_categories(samples[1:], num_negatives=2)
    assert alone[0].query.categories == once[1]  # whatever other samples there are


V3DET_FAULTS: list[tuple[Callable[[Any], Any], str]] = [
    (
        lambda tree: tree.pop("categoryid2treeid"),
        r"categoryid2treeid: expected an object; is this V3Det's category tree\?",
    ),
    (lambda tree: tree.update(ancestor2descendant=[]), "ancestor2descendant: expected an object"),
    (lambda tree: tree["ancestor2descendant"].update(n1="n2"), "n1: expected a list of nodes, found 'n2'"),
]


@pytest.mark.parametrize(("spoil", "message"), V3DET_FAULTS)
def test_a_wrong_tree_is_named(tmp_path: Path, spoil: Callable[[Any], Any], message: str) -> None:
    file = write_v3det(tmp_path) / "annotations/v3det_2023_v1_category_tree.json"
    change(file, spoil)
    with pytest.raises(DataError, match=message):
        read_v3det(tmp_path)
    file.unlink()
    with pytest.raises(DataError, match=r"expected annotations/v3det_2023_v1_category_tree\.json"):
        read_v3det(tmp_path)


def test_an_image_that_lost_a_box_is_left_out_of_a_benchmark_too(tmp_path: Path) -> None:
    folder = write_v3det(tmp_path)
    change(
        next(folder.rglob("v3det_2023_v1_val.json")),
        lambda content: content["annotations"][0].update(bbox=["1", 2, 3, 4]),
    )
    whole = len(read_v3det(write_v3det(tmp_path / "whole")).samples)
    found = read_v3det(folder, on_bad="skip")
    assert list(found.report.images_left_out.values()) == ["bad_box"]
    assert len(found.samples) == len(found.table) == whole - 1
