"""Images come out as their annotators saw them: depth, transparency, orientation, and the size that the boxes fit."""

import io
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageOps

from visionr1 import images
from visionr1.errors import DataError
from visionr1.images import MAX_PIXELS_VARIABLE, image_size, read_image, to_rgb


def file_of(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def grey_of(content: bytes) -> list[int]:
    pixels = np.asarray(read_image(content, name="photo"))
    assert (pixels == pixels[..., :1]).all()
    return pixels[..., 0].ravel().tolist()


def turned(orientation: int, kind: str = "JPEG") -> tuple[Image.Image, bytes]:
    """An upright picture of 40x24 with a different grey in each corner, and a file that stores it another way up."""
    upright = Image.new("RGB", (40, 24))
    for grey, corner in zip((60, 120, 180, 240), ((0, 0), (20, 0), (0, 12), (20, 12)), strict=True):
        upright.paste((grey,) * 3, (*corner, corner[0] + 20, corner[1] + 12))
    back = {6: 8, 8: 6}.get(orientation, orientation)
    upright.getexif()[ExifTags.Base.Orientation] = back
    stored = ImageOps.exif_transpose(upright)
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    return upright, file_of(stored, kind, exif=exif)


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
@pytest.mark.parametrize("order", ["<u2", ">u2"])
def test_16_bit_grey_keeps_its_upper_8_bits(kind: str, order: str) -> None:
    values = np.array([[0, 255, 256, 32768, 65535]], dtype=order)
    if kind == "PNG":
        values = values.astype("<u2")
    assert grey_of(file_of(Image.fromarray(values), kind)) == [0, 0, 1, 128, 255]


def test_whole_numbers_of_32_bits_are_those_of_16_and_floats_are_shares() -> None:
    assert grey_of(b"P5\n3 1\n65535\n" + np.array([0, 32768, 65535], ">u2").tobytes()) == [0, 128, 255]
    assert grey_of(file_of(Image.fromarray(np.array([[0, 0.5, 1]], dtype=np.float32)), "TIFF")) == [0, 128, 255]
    for values, full in ((np.array([[0, 70000]], dtype=np.int32), 65535), (np.array([[0, 2.5]], dtype=np.float32), 1)):
        with pytest.raises(DataError, match=f"photo: .*grey values from 0 to {full}, found 0 to .*save it with 8 bits"):
            grey_of(file_of(Image.fromarray(values), "TIFF"))
    with pytest.raises(DataError, match="found nan"):
        grey_of(file_of(Image.fromarray(np.array([[np.nan]], dtype=np.float32)), "TIFF"))


def test_transparency_lies_on_white() -> None:
    clear = Image.new("RGBA", (1, 1), (200, 0, 0, 0))
    assert read_image(file_of(clear)).getpixel((0, 0)) == (255, 255, 255)
    assert read_image(file_of(Image.new("RGBA", (1, 1), (200, 10, 0, 255)))).getpixel((0, 0)) == (200, 10, 0)
    assert read_image(file_of(Image.new("LA", (1, 1), (0, 51)))).getpixel((0, 0)) == (204, 204, 204)
    palette = Image.new("P", (2, 1))
    palette.putpalette([10, 20, 30, 40, 50, 60])
    palette.putpixel((1, 0), 1)
    content = file_of(palette, transparency=0)
    assert [read_image(content).getpixel((x, 0)) for x in (0, 1)] == [(255, 255, 255), (40, 50, 60)]


def test_other_modes_are_rgb_and_always_a_copy() -> None:
    assert read_image(file_of(Image.new("CMYK", (1, 1), (0, 0, 0, 0)), "TIFF")).getpixel((0, 0)) == (255, 255, 255)
    assert read_image(file_of(Image.new("1", (1, 1), 1))).getpixel((0, 0)) == (255, 255, 255)
    image = Image.new("RGB", (2, 2))
    to_rgb(image).putpixel((0, 0), (9, 9, 9))
    assert image.getpixel((0, 0)) == (0, 0, 0)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_images_are_turned_as_exif_says(orientation: int, kind: str) -> None:
    upright, content = turned(orientation, kind)
    found = read_image(content)
    assert found.size == image_size(content) == upright.size
    difference = np.abs(np.asarray(found, dtype=int) - np.asarray(upright))
    assert np.median(difference) <= 3
    assert read_image(content, size_wh=upright.size) == found


def test_the_size_in_the_annotations_decides_whether_an_image_is_turned() -> None:
    upright, content = turned(6)
    stored = read_image(content, size_wh=(24, 40))
    assert stored.size == (24, 40)
    assert stored.transpose(Image.Transpose.ROTATE_270) == read_image(content, size_wh=upright.size)
    _, upside_down = turned(3)  # both sizes are the same: turned
    assert read_image(upside_down, size_wh=(40, 24)) == read_image(upside_down)
    with pytest.raises(DataError, match="say 24x41 pixels, but the file has 24x40 as stored, 40x24 turned as its EXIF"):
        read_image(content, size_wh=(24, 41))
    with pytest.raises(DataError, match="the file has 40x24; put the image there that was annotated"):
        read_image(turned(1)[1], size_wh=(24, 40))


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
@pytest.mark.parametrize("exif", [b"Exif\0\0nonsense", b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0MM", b"\xff" * 40])
def test_exif_that_cannot_be_read_says_nothing(exif: bytes) -> None:
    content = file_of(Image.new("RGB", (4, 2)), "JPEG", exif=exif)
    assert read_image(content).size == image_size(content) == (4, 2)


def test_a_file_that_is_none_is_named(tmp_path: Path) -> None:
    for read in (read_image, image_size):
        with pytest.raises(DataError, match=r"none\.png: cannot read this image"):
            read(tmp_path / "none.png")
        with pytest.raises(DataError, match="row 3: cannot read this image"):
            read(b"garbage", name="row 3")


def test_an_empty_file_and_a_foreign_format_are_named(tmp_path: Path) -> None:
    empty = tmp_path / "empty.jpg"
    empty.write_bytes(b"")
    with pytest.raises(DataError, match=r"empty\.jpg: cannot read this image \(the file is empty\); replace"):
        read_image(empty)
    with pytest.raises(DataError, match=r"page: cannot read .*its content is none of JPEG, PNG, .*; replace the file"):
        read_image(b"%PDF-1.7 ...", name="page")


def test_an_image_cut_in_the_middle_is_named(tmp_path: Path) -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8))
    for kind in ("JPEG", "PNG", "TIFF", "WEBP", "GIF", "BMP", "PPM"):
        cut = tmp_path / f"cut.{kind}"
        cut.write_bytes(file_of(noise, kind)[: len(file_of(noise, kind)) // 2])
        with pytest.raises(DataError, match=rf"cut\.{kind}: cannot read this image"):
            read_image(cut)


def test_the_limit_of_pixels_is_a_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    content = file_of(Image.new("L", (30, 20)))
    monkeypatch.setenv(MAX_PIXELS_VARIABLE, "599")
    for read in (read_image, image_size):
        with pytest.raises(DataError, match=r"photo: .*30x20 = 600 pixels.*VISIONR1_MAX_IMAGE_PIXELS=600 \(docs/faq"):
            read(content, name="photo")
    monkeypatch.setenv(MAX_PIXELS_VARIABLE, "600")
    assert read_image(content).size == (30, 20)
    for wrong in ("many", "-1", "0", "1e9", "٣"):
        monkeypatch.setenv(MAX_PIXELS_VARIABLE, wrong)
        with pytest.raises(DataError, match="VISIONR1_MAX_IMAGE_PIXELS: expected a number of pixels"):
            read_image(content)


def test_pillows_own_limit_stays_as_it_was() -> None:
    before = Image.MAX_IMAGE_PIXELS
    read_image(file_of(Image.new("L", (3, 2))))
    with pytest.raises(DataError):
        read_image(b"nothing")
    assert before == Image.MAX_IMAGE_PIXELS


@pytest.mark.parametrize("mode", ["I;16", "F", "RGBA", "LA"])
def test_converting_takes_little_memory_beside_the_image(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Strip by strip, with the same pixels; numpy's arrays are traced, and one of float64 would have 8 MB."""
    generator = np.random.default_rng(0)
    if mode == "F":
        values = generator.random((1000, 1000), dtype=np.float32)
    elif mode == "I;16":
        values = generator.integers(0, 65536, (1000, 1000), dtype=np.uint16)
    else:
        values = generator.integers(0, 256, (1000, 1000, len(mode)), dtype=np.uint8)
    image = Image.fromarray(values)
    assert image.mode == mode
    whole = to_rgb(image)
    monkeypatch.setattr(images, "_STRIP_PIXELS", 7_300)
    tracemalloc.start()
    in_strips = to_rgb(image)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert in_strips == whole and peak < 2e6
