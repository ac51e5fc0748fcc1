"""Captions are drawn in a font that has their letters, or a warning names those that none has."""

import shutil
import unicodedata
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image, ImageFont

from visionr1.assets import font_path
from visionr1.report import fonts
from visionr1.report.draw import draw_boxes
from visionr1.report.fonts import choose_font
from visionr1.samples import Boxes

LATIN = "é ü ß ä ö ñ ç ø å ł š ı – € Ğ ő Ț"


@pytest.fixture
def system_fonts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The only folder of the system's fonts, empty at first."""
    monkeypatch.setattr(fonts, "_font_folders", lambda: iter([tmp_path / "fonts", tmp_path / "nowhere"]))
    (tmp_path / "fonts").mkdir()
    fonts._list_system_fonts.cache_clear()
    yield tmp_path / "fonts"
    fonts._list_system_fonts.cache_clear()


@pytest.mark.parametrize("text", ["cat 0.93", *LATIN.split(), LATIN, "Μήλο", "яблоко", "\t"])
def test_latin_greek_and_cyrillic_are_drawn_without_any_font_installed(system_fonts: Path, text: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        font = choose_font(text, 14)
    missing = font.getmask("\U0010ffff")
    for letter in unicodedata.normalize("NFC", text).replace("\t", ""):
        mask = font.getmask(letter)
        assert (mask.size, bytes(mask)) != (missing.size, bytes(missing))


def test_letters_that_no_font_has_are_named(system_fonts: Path) -> None:
    (system_fonts / "broken.ttf").write_bytes(b"no font")
    (system_fonts / "folder.ttf").mkdir()
    with pytest.warns(
        UserWarning, match=r"no font has the letters 猫 고.*docs/faq\.md#letters-are-drawn-as-empty-boxes"
    ):
        choose_font("cat 猫 é 고", 14)


def test_a_font_of_the_system_is_taken_for_what_the_others_lack(
    system_fonts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Here the one that ships stands in for it, beside another that is no help."""
    installed = system_fonts / "deep" / "Installed.TTF"
    installed.parent.mkdir()
    shutil.copy(font_path(), installed)
    (system_fonts / "Broken-Regular.otf").write_bytes(b"\0" * 100)
    monkeypatch.setattr(fonts, "font_path", lambda: system_fonts / "Broken-Regular.otf")
    font = choose_font("яблоко", 14)
    assert isinstance(font, ImageFont.FreeTypeFont) and str(font.path) == str(installed)


@pytest.mark.parametrize("text", ["\ud83d", "cat\0\x1b[31m", "a\nb", "", "x" * 300])
def test_any_text_can_be_drawn(system_fonts: Path, text: str) -> None:
    image = Image.new("RGB", (500, 500))
    assert draw_boxes(image, Boxes.of([[10, 10, 300, 300]], [text]), title=text).width == 500


def test_one_letter_is_drawn_alike_in_both_unicode_forms(system_fonts: Path) -> None:
    image = Image.new("RGB", (500, 500))
    composed, decomposed = (
        draw_boxes(image, Boxes.of([[10, 10, 300, 300]], ["x"]), captions=[text]) for text in ("Äpfel", "A\u0308pfel")
    )
    assert composed == decomposed
