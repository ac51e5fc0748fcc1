"""The templates of the paper's Table 8, word for word, and what goes with them."""

import pytest

from support.dialects import ALL_DIALECTS
from visionr1.dialects import get_dialect, instruction, resolve_dialect
from visionr1.errors import RecipeError
from visionr1.samples import Query


@pytest.mark.parametrize(
    ("dialect", "query", "text"),
    [
        (
            "qwen25",
            Query("detection", ("cat", "dog")),
            "Locate every item from the category list in the image and output the coordinates in JSON format. "
            "The category set includes cat, dog.",
        ),
        (
            "qwen25",
            Query("grounding", ("cat",)),
            "Locate every cat in the image and output the coordinates in JSON format.",
        ),
        (
            "qwen25",
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
def test_table_8(dialect: str, query: Query, text: str) -> None:
    assert instruction(query, dialect) == instruction(query, get_dialect(dialect)) == text


@pytest.mark.parametrize("dialect", ALL_DIALECTS)
def test_every_dialect_is_asked_for_what_it_reads(dialect: str) -> None:
    asked = instruction(Query("grounding", ("cat",)), dialect)
    assert ("JSON" in asked) is ("qwen" in dialect)
    assert ("<ref>cat</ref>" in asked) is ("internvl" in dialect)
    assert ("<think> </think>" in asked and "<answer> </answer>" in asked) is ("think+" in dialect)


def test_a_thought_is_asked_for_whatever_the_template() -> None:
    query = Query("detection", ("cat", "dog"))
    assert instruction(query, "think+qwen25", "Find {}.") == (
        "Find cat, dog. First output the thinking process in <think> </think> tags and then output the final answer in "
        "<answer> </answer> tags."
    )


def test_an_unknown_dialect_is_named() -> None:
    with pytest.raises(RecipeError, match="unknown dialect 'gpt'; known: griffon, internvl, qwen25, qwen3"):
        instruction(Query("detection", ("cat",)), "gpt")


def test_what_is_no_dialect_is_refused() -> None:
    with pytest.raises(RecipeError, match="is no dialect: it lacks name, templates, in_model_px"):
        resolve_dialect("collections:OrderedDict")


@pytest.mark.parametrize("name", ALL_DIALECTS)
def test_a_question_is_asked_in_the_same_words_in_every_dialect(name: str) -> None:
    text = instruction(Query("question", ("How many {} are there?",)), name)
    expected = "How many {} are there?\nAnswer the question using a single word or phrase."
    assert text.startswith(expected)
    assert "think+" in name or text == expected
