"""The templates of the paper's Table 8, word for word, and what goes with them."""

from pathlib import Path

import pytest

from support.dialects import ALL_DIALECTS
from visionr1.dialects import DIALECTS, get_dialect, instruction, resolve_dialect
from visionr1.dialects.json_dialect import JSON_NAME
from visionr1.errors import RecipeError
from visionr1.samples import Boxes, Query


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
    written = get_dialect(dialect).render(Boxes.of([[1, 2, 30, 40]], ["cat"]), size_wh=(64, 64), input_size_wh=(56, 56))
    assert ("JSON" in asked) is ('": [' in written)
    assert ("<ref>cat</ref>" in asked) is ("<ref>" in written)
    assert ("<think> </think>" in asked and "<answer> </answer>" in asked) is ("think+" in dialect)


def test_categories_are_joined_as_the_dialect_joins_them() -> None:
    query = Query("detection", ("cat", "traffic light"))
    assert instruction(query, "paligemma") == "detect cat ; traffic light"
    assert instruction(query, "paligemma", "Find {}.") == "Find cat ; traffic light."
    assert instruction(query, "rex").startswith("Detect cat, traffic light. Output")


def test_a_form_of_json_is_stated_in_its_prompt() -> None:
    asked = instruction(Query("detection", ("cat", "dog")), "json:key=bbox,order=yxyx,grid=1,label=name")
    assert asked.endswith(
        'The category set includes cat, dog. Output a list of {"bbox": [y1, x1, y2, x2], "name": "name"}, with '
        "coordinates as numbers from 0 to 1, relative to the image."
    )


def test_the_documents_have_a_row_for_every_dialect() -> None:
    page = (Path(__file__).parents[2] / "docs/rewards.md").read_text(encoding="utf-8")
    assert [name for name in (*DIALECTS, JSON_NAME) if f"\n| `{name}` | " not in page] == []


def test_a_thought_is_asked_for_whatever_the_template() -> None:
    query = Query("detection", ("cat", "dog"))
    assert instruction(query, "think+qwen25", "Find {}.") == (
        "Find cat, dog. First output the thinking process in <think> </think> tags and then output the final answer in "
        "<answer> </answer> tags."
    )


def test_an_unknown_dialect_is_named() -> None:
    with pytest.raises(
        RecipeError, match="unknown dialect 'gpt'; known: gemini, glm, griffon, internvl, lfm, minicpm, qwen25, qwen3, "
    ):
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
