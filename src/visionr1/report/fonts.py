"""Fonts for captions: the first that has every letter, of Pillow's own, the one that ships, and the system's.

Pillow's own has no letter beyond ASCII; DejaVu Sans, which ships, has Latin, Greek and Cyrillic; for other scripts a
font must be installed. Letters that no font has are named in a warning.
"""

from __future__ import annotations

import os
import unicodedata
import warnings
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from PIL import ImageFont

from visionr1.assets import font_path

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

MAX_FONTS = 500
"""How many of the system's fonts are looked at."""
_PROBE_SIZE = 20
_NO_LETTER = "\U0010ffff"
"""No font has it, so it is drawn as every letter that a font lacks."""
_INVISIBLE = {"Cc", "Cf", "Mn", "Zs", "Zl", "Zp"}
"""The Unicode categories of what needs no glyph: controls, blanks, and accents, which a font may compose."""


def choose_font(text: str, size: int) -> Font:
    """Return a font of `size` pixels that has the letters of `text`; warn of those that none of the fonts has."""
    default = ImageFont.load_default(size)
    letters = _list_letters(text)
    if not isinstance(default, ImageFont.FreeTypeFont) or not _find_missing(letters, None):
        return default

    # The font with the fewest letters missing; the system's are only looked at if the one that ships is not enough.
    best = font_path()
    missing = _find_missing(letters, best)
    if missing:
        for path in _list_system_fonts():
            missing_here = _find_missing(letters, path)
            if len(missing_here) < len(missing):
                best, missing = path, missing_here
            if not missing:
                break
    if missing:
        warnings.warn(
            f"no font has the letters {' '.join(missing[:20])}, which are drawn as empty boxes; install one that has "
            "them, such as Noto Sans CJK (docs/faq.md#letters-are-drawn-as-empty-boxes)",
            stacklevel=2,
        )
    return ImageFont.truetype(best, size)


def _list_letters(text: str) -> str:
    """Return each letter of `text` that must have a glyph, once."""
    letters = dict.fromkeys(unicodedata.normalize("NFC", text))
    return "".join(letter for letter in letters if unicodedata.category(letter) not in _INVISIBLE)


def _find_missing(letters: str, path: Path | None) -> str:
    """Return those of the letters that a font has no glyph for; of Pillow's own font, if `path` is None."""
    font = _open_probe(path)
    if font is None:
        return letters
    return "".join(letter for letter in letters if not _has_glyph(path, letter))


@cache
def _open_probe(path: Path | None) -> ImageFont.FreeTypeFont | None:
    """Return a font at the size at which glyphs are compared; None for a file that cannot be read at it."""
    if path is None:
        font = ImageFont.load_default(_PROBE_SIZE)
        return font if isinstance(font, ImageFont.FreeTypeFont) else None
    try:
        return ImageFont.truetype(path, _PROBE_SIZE)
    except (OSError, ValueError):
        return None


@cache
def _has_glyph(path: Path | None, letter: str) -> bool:
    """Return True if a font draws a letter otherwise than what it lacks."""
    return _draw_probe(path, letter) != _draw_probe(path, _NO_LETTER)


@cache
def _draw_probe(path: Path | None, letter: str) -> tuple[tuple[int, int], bytes]:
    """Return size and pixels of a drawn letter; nothing if it cannot be drawn."""
    font = _open_probe(path)
    try:
        mask = font.getmask(letter) if font else None
    except (OSError, ValueError):
        mask = None
    if mask is None:
        return (0, 0), b""
    return mask.size, bytes(mask)


@cache
def _list_system_fonts() -> tuple[Path, ...]:
    """Return the system's fonts, plain sans-serif ones first."""
    paths: list[Path] = []
    for folder in _font_folders():
        for parent, _, names in os.walk(folder):
            paths += [Path(parent, name) for name in names if name.lower().endswith((".ttf", ".otf", ".ttc"))]
    return tuple(sorted(paths, key=_rank)[:MAX_FONTS])


def _font_folders() -> Iterator[Path]:
    """Yield where Linux, macOS and Windows keep fonts; they need not exist."""
    home = Path(os.environ.get("HOME", "/nonexistent"))
    yield from (home / ".fonts", home / ".local/share/fonts", home / "Library/Fonts")
    for folder in ("/usr/share/fonts", "/usr/local/share/fonts", "/System/Library/Fonts", "/Library/Fonts"):
        yield Path(folder)
    yield Path(os.environ.get("WINDIR", "/nonexistent")) / "Fonts"


def _rank(path: Path) -> tuple[int, str]:
    """Return the key that puts plain sans-serif fonts before slanted, bold, narrow and serif ones."""
    name = path.name.lower()
    unwanted = ("bold", "italic", "oblique", "serif", "mono", "condensed", "narrow", "light", "thin", "black")
    return sum(word in name for word in unwanted), str(path)
