"""The records refuse what is no box, query or size, and images name their file."""

import unicodedata
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from visionr1.errors import DataError
from visionr1.samples import (
    Boxes,
    Fault,
    FaultKind,
    GroundTruth,
    Query,
    Reply,
    Sample,
    compose_text,
    normalize_label,
)


def test_boxes_say_what_shape_was_expected_and_found() -> None:
    with pytest.raises(ValueError, match=r"shape \(N, 4\), but has shape \(2, 3\)"):
        Boxes(np.zeros((2, 3)), ("a", "b"))
    with pytest.raises(ValueError, match="2 boxes need as many labels, but there are 1"):
        Boxes(np.zeros((2, 4)), ("a",))


def test_empty_boxes_have_shape_0_4() -> None:
    assert Boxes.empty().xyxy.shape == (0, 4) and len(Boxes.empty()) == 0
    assert Boxes.empty() == Boxes.of([], [])


def test_queries_ask_for_something() -> None:
    with pytest.raises(ValueError, match="at least one category"):
        Query("detection", ())
    with pytest.raises(ValueError, match="exactly one thing"):
        Query("referring", ("the cat", "the dog"))


def test_sizes_are_positive() -> None:
    with pytest.raises(ValueError, match="input_size_wh must be two positive numbers"):
        GroundTruth(Boxes.empty(), ("a",), (10, 10), (0, 10))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot read this image"),  # missing file
        (b"not an image", "cannot read this image"),  # garbage
        ("small", "the annotations say 8x8 pixels, but the file has 4x4; put the image there"),  # stale annotations
    ],
)
def test_a_bad_image_is_named(tmp_path: Path, content: bytes | str | None, message: str) -> None:
    path = tmp_path / "photo.png"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content == "small":
        Image.new("RGB", (4, 4)).save(path)
    sample = Sample("1", path, Query("detection", ("a",)), Boxes.empty(), (8, 8))
    with pytest.raises(DataError, match="photo.png.*" + message):
        sample.load_image()


def test_only_an_unknown_label_leaves_a_reply_well_formed() -> None:
    for kind in FaultKind:
        reply = Reply(Boxes.empty(), faults=(Fault(kind, 0, ""),))
        assert reply.well_formed == (kind is FaultKind.UNKNOWN_LABEL)


@pytest.mark.parametrize("name", ["Äpfel", "gâteau", "고양이", "ΐ", "Ångström", "cat"])
def test_labels_are_equal_in_every_unicode_form(name: str) -> None:
    decomposed = unicodedata.normalize("NFD", name)
    assert compose_text(decomposed) == name
    assert normalize_label(f" {decomposed.upper()}\n") == normalize_label(name.upper())
    assert normalize_label(normalize_label(decomposed)) == normalize_label(name)
