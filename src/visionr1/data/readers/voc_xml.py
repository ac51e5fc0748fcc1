"""One XML file of Pascal VOC: decoded as it declares, its boxes in pixels from 0.

Traps: pixels count from 1 and both ends belong to the box, so [xmin, ymin, xmax, ymax] is xyxy [xmin - 1, ymin - 1,
xmax, ymax]. The letters are those of the encoding that the first line declares; expat knows no encoding of several
bytes, such as GBK, so Python decodes. A DOCTYPE, which no annotation needs and which can swell without bound, is
refused.
"""

from __future__ import annotations

import codecs
import re
import stat
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

from visionr1.data.segmentation import rotated_box
from visionr1.errors import DataError
from visionr1.samples import Size, compose_text

MAX_CHARACTERS = 1 << 20
MAX_BYTES = 4 * MAX_CHARACTERS
"""An encoding takes four bytes for a character at most."""

_DECLARATION = re.compile(rb"<\?xml[^>]{0,200}?\sencoding\s{0,9}=\s{0,9}[\"']([A-Za-z][A-Za-z0-9._-]{0,39})[\"']")
_BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # before UTF-16, whose mark it begins with
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_ENCODING = re.compile(
    r"ascii|utf-8|iso8859-\d+|cp\d+|koi8-[ru]|mac-\w+|tis-620|gbk|gb2312|gb18030|big5|big5hkscs|shift_jis|"
    r"shift_jisx0213|euc_jp|iso2022_jp|euc_kr|johab|hz"
)
"""Python's names of encodings of text, without those that are escapes of it, such as utf-7 and punycode."""
_ALIASES = {"windows-31j": "cp932", "x-sjis": "cp932", "x-gbk": "gbk", "x-euc-jp": "euc_jp", "x-mac-roman": "mac_roman"}
"""Names of encodings that other systems write and Python does not know; Windows' own are its code pages."""
_SUPERSETS = {"gb2312": "gb18030", "gbk": "gb18030", "big5": "big5hkscs", "shift_jis": "cp932", "euc_kr": "cp949"}
"""Encodings that tools write under an older name."""


class Annotation(NamedTuple):
    """The content of one XML file: M objects that have a name and a box."""

    folder: str
    file_name: str
    """The picture's name; "" if not given."""
    size_wh: Size
    """(0, 0) if not given."""
    labels: list[str]
    xyxy: list[list[float]]
    """Pixels from 0, the far ends outside."""
    adjusted: list[tuple[str, str, str]]
    """What was changed or is not as it seems, for `RowLog.adjust`: the reason, "object 2", and words."""
    fault: tuple[str, str] | None
    """The first object that cannot be used, "object 2", and why."""


NO_OBJECTS = Annotation("", "", (0, 0), [], [], [], None)
"""The annotation of an image that has no XML file."""


def read_annotation(path: Path) -> Annotation:
    """Read an XML file; DataError if it is no file, too long, has a DOCTYPE or is no annotation in XML."""
    root = _parse(path)
    labels: list[str] = []
    boxes: list[list[float]] = []
    adjusted: list[tuple[str, str, str]] = []
    fault = None
    for index, element in enumerate(root.findall("object")):
        try:
            label, box = _read_object(element)
            degrees = _read_rotation(element)
        except DataError as error:
            fault = fault or (f"object {index}", str(error))
            continue
        if _read_text(element, "difficult") == "1":
            adjusted.append(("difficult_objects_kept", f"object {index}", "difficult is 1"))
        if degrees:
            adjusted.append(("rotated_boxes_enclosed", f"object {index}", f"the box {box} is turned by {degrees:g}"))
            box = _enclose(box, degrees)
        labels.append(label)
        boxes.append(box)
    return Annotation(
        folder=_read_text(root, "folder"),
        file_name=_read_text(root, "filename"),
        size_wh=_read_size(root),
        labels=labels,
        xyxy=boxes,
        adjusted=adjusted,
        fault=fault,
    )


def decode_text(content: bytes) -> str:
    """Return bytes as text, as their byte order mark or XML declaration says, else UTF-8.

    Raises UnicodeError if they are no such text, LookupError for an encoding that is none of text.
    """
    for mark, encoding in _BYTE_ORDER_MARKS:
        if content.startswith(mark):
            return content.decode(encoding).removeprefix("\ufeff")
    if content.startswith((b"<\0", b"\0<")):
        return content.decode("utf-16-le" if content.startswith(b"<\0") else "utf-16-be")

    # What can be read byte by byte is not UTF-16, as .NET declares for text that it then writes as UTF-8.
    declaration = _DECLARATION.match(content.lstrip())
    if declaration is None or declaration[1].lower().startswith((b"utf-16", b"utf-32", b"ucs-")):
        return content.decode()
    declared = declaration[1].decode().lower()
    declared = _ALIASES.get(declared, declared.replace("windows-", "cp"))
    encoding = codecs.lookup(declared).name
    if not _ENCODING.fullmatch(encoding):
        raise LookupError(f"{encoding} is not an encoding of text")
    try:
        return content.decode(encoding)
    except UnicodeDecodeError:
        if encoding not in _SUPERSETS:
            raise
        return content.decode(_SUPERSETS[encoding])


def read_bytes(path: Path, max_bytes: int) -> bytes:
    """Read a file; DataError if it is longer, or no regular file: a pipe would be waited for, a device never ends."""
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise DataError(f"{path}: expected a file, found a folder, pipe or device")
        if status.st_size > max_bytes:
            raise DataError(f"{path}: expected at most {max_bytes} bytes, found {status.st_size}")
        with path.open("rb") as file:
            return file.read(max_bytes)
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from error


def _parse(path: Path) -> ElementTree.Element:
    """Return the root of an annotation; DataError if it is too long, has a DOCTYPE or is not XML."""
    content = read_bytes(path, MAX_BYTES)
    try:
        text = decode_text(content)
    except (LookupError, UnicodeError) as error:
        remedy = "declare its encoding in the first line (docs/faq.md#an-xml-file-is-not-utf-8-text)"
        raise DataError(f"{path} is not UTF-8 text, nor in an encoding that it declares: {error}; {remedy}") from error
    if len(text) > MAX_CHARACTERS or "<!DOCTYPE" in text or "<!ENTITY" in text:
        expected = f"a plain annotation below {MAX_CHARACTERS} characters, without a DOCTYPE"
        raise DataError(f"{path}: expected {expected}")

    # The parser takes text as it is, whatever encoding the declaration names.
    try:
        root = ElementTree.fromstring(text.lstrip())
    except (ElementTree.ParseError, ValueError) as error:
        raise DataError(f"{path} is not XML: {error}") from error

    # Tags in another case, or in a namespace, would be passed over: an image without its objects.
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2].lower()
    if root.tag != "annotation":
        raise DataError(f"{path}: expected <annotation>, found <{root.tag:.40}>; is this an annotation of Pascal VOC?")
    return root


def _read_object(element: ElementTree.Element) -> tuple[str, list[float]]:
    """Return the label of an object and its box xyxy; DataError if it lacks one of them, or the box is inverted."""
    label = compose_text(_read_text(element, "name"))
    xmin, ymin, xmax, ymax = (_read_number(element, f"bndbox/{side}") for side in ("xmin", "ymin", "xmax", "ymax"))
    if not label or xmax < xmin or ymax < ymin:
        sides = [xmin, ymin, xmax, ymax]
        raise DataError(f"expected a name and xmin <= xmax, ymin <= ymax, found {label!r:.60} {sides}")

    # Pixels count from 1 and both ends belong to the box.
    return label, [xmin - 1, ymin - 1, xmax, ymax]


def _read_rotation(element: ElementTree.Element) -> float:
    """Return the degrees by which CVAT and datumaro turn the box of an object; 0 if it stands upright."""
    for attribute in element.findall("attributes/attribute"):
        if _read_text(attribute, "name") == "rotation" and _read_text(attribute, "value"):
            return _read_number(attribute, "value") % 180
    return 0.0


def _enclose(xyxy: list[float], degrees: float) -> list[float]:
    """Return the box xyxy around one that is turned about its centre."""
    x1, y1, x2, y2 = xyxy
    x, y, width, height = rotated_box([x1, y1, x2 - x1, y2 - y1], degrees)
    return [x, y, x + width, y + height]


def _read_size(root: ElementTree.Element) -> Size:
    """Return the size of the image; (0, 0) where none is given, or one that no image has. DataError if no number."""
    sides = []
    for tag in ("size/width", "size/height"):
        if not _read_text(root, tag):
            return 0, 0
        sides.append(int(_read_number(root, tag)))
    width, height = sides
    return (width, height) if width > 0 and height > 0 else (0, 0)


def _read_text(element: ElementTree.Element, tag: str) -> str:
    return (element.findtext(tag) or "").strip()


def _read_number(element: ElementTree.Element, tag: str) -> float:
    """Return the number in a tag; DataError if there is none."""
    text = element.findtext(tag)
    try:
        value = float(text or "")
    except ValueError:
        value = float("nan")

    # Written so that not-a-number is refused too.
    if not abs(value) < 1e9:
        raise DataError(f"{tag}: expected a number, found {text!r:.40}")
    return value
