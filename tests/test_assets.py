import json
from pathlib import Path

import pytest

from visionr1.assets import embedded_path, font_path, recipe_path
from visionr1.errors import DataError, RecipeError


@pytest.mark.parametrize(("split", "images"), [("train", 205), ("valid", 87), ("test", 72)])
def test_bccd_ships_whole(split: str, images: int) -> None:
    folder = embedded_path("bccd") / split
    stated = json.loads((folder / "annotations_without_background.json").read_text())["images"]
    assert len(stated) == images
    assert {image["file_name"] for image in stated} == {path.name for path in folder.glob("*.jpg")}


def test_bccd_ships_with_its_licence() -> None:
    assert "MIT License" in (embedded_path("bccd") / "LICENSE.txt").read_text()


def test_a_font_ships_with_its_licence() -> None:
    assert font_path().is_file() and "Bitstream Vera" in (font_path().parent / "LICENSE.txt").read_text()


@pytest.mark.parametrize("name", ["coco", "..", "", "bccd/train"])
def test_nothing_else_is_embedded(name: str) -> None:
    with pytest.raises(DataError, match="expected one of: bccd, tiny"):
        embedded_path(name)


def test_a_recipe_is_a_path_or_a_name_that_ships(tmp_path: Path) -> None:
    mine = tmp_path / "mine.toml"
    mine.touch()
    assert recipe_path(str(mine)) == mine
    assert recipe_path("demo") == recipe_path("demo.toml") == recipe_path("recipes/demo.toml").resolve()
    with pytest.raises(RecipeError, match=r"no recipe file dmeo.*demo"):
        recipe_path("dmeo")
