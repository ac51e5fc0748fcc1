"""Images come out as their annotators saw them: depth, transparency, orientation, and the size that the boxes fit."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageOps

from visionr1.errors import DataError
from visionr1.images import image_size, read_image, to_rgb


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
