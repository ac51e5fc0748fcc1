"""The templates of the paper's Table 8, word for word."""

import pytest

from visionr1.prompts import instruction
from visionr1.samples import Query


@pytest.mark.parametrize(
    ("family", "query", "text"),
    [
        (
            "qwen",
            Query("detection", ("cat", "dog")),
            "Locate every item from the category list in the image and output the coordinates in JSON format. "
            "The category set includes cat, dog.",
        ),
        (
            "qwen",
            Query("grounding", ("cat",)),
            "Locate every cat in the image and output the coordinates in JSON format.",
        ),
        (
            "qwen",
            Query("referring", ("a {} cat",)),
            "Locate every a {} cat in the image and output the coordinates in JSON format.",
        ),
        (
            "griffon",
            Query("detection", ("cat", "dog")),
            "Examine the image for any objects from the category set. Report the coordinates of each detected object. "
            "The category set includes cat, dog.",
        ),
        (
            "griffon",
            Query("grounding", ("cat",)),
            "Locate the exact position of cat in the picture, if you can.",
        ),
        (
            "griffon",
            Query("referring", ("the cat",)),
            "Can you point out the cat in the image and provide the coordinates of its location?",
        ),
    ],
)
def test_table_8(family: str, query: Query, text: str) -> None:
    assert instruction(query, family) == text


def test_an_unknown_family_is_named() -> None:
    with pytest.raises(ValueError, match="unknown prompt family 'gpt'; known: qwen, griffon"):
        instruction(Query("detection", ("cat",)), "gpt")
