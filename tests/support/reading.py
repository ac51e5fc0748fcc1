"""What a dialect reads of a text, in a short form for tables of cases."""

from visionr1.dialects import Dialect
from visionr1.samples import Reply

SIZE = (1000, 500)


def read(dialect: Dialect, text: str, *categories: str) -> Reply:
    """Return the reply of `text` about an image of 1000 x 500 pixels."""
    asked = categories or ("cat", "dog")
    return dialect.parse(text, size_wh=SIZE, input_size_wh=(28, 28), categories=asked)


def kinds(reply: Reply) -> set[str]:
    """Return the kinds of its faults, as text; those of labels that were not asked for are none of the form."""
    return {str(fault.kind) for fault in reply.faults} - {"unknown_label"}


def boxes(reply: Reply) -> list[tuple[list[float], str]]:
    """Return its boxes, rounded to tenths of a pixel, with their labels."""
    return list(zip(reply.boxes.xyxy.round(1).tolist(), reply.boxes.labels, strict=True))
