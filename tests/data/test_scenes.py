"""Synthetic scenes: deterministic, exact, within what was asked for."""

import numpy as np
import pytest
from PIL import Image

from visionr1.data.scenes import SceneConfig, SceneStream
from visionr1.data.scenes.layout import Scene
from visionr1.data.scenes.masks import shape_mask
from visionr1.data.scenes.vocabulary import HELD_OUT_SHAPE, HELD_OUT_TEXTURE, SHAPES, TEXTURES
from visionr1.errors import RecipeError
from visionr1.samples import Sample


def scenes(count: int, seed: int = 0, **settings: object) -> list[Sample]:
    stream = SceneStream(seed, SceneConfig(**settings))  # type: ignore[arg-type]
    return [stream[i] for i in range(count)]


def pixels(sample: Sample) -> bytes:
    return sample.load_image().tobytes()


def test_a_scene_depends_on_seed_and_index_alone() -> None:
    first, again = scenes(5, seed=3), scenes(5, seed=3)
    assert [pixels(s) for s in first] == [pixels(s) for s in again]
    assert [(s.truth, s.query) for s in first] == [(s.truth, s.query) for s in again]
    assert pixels(SceneStream(3)[4]) == pixels(SceneStream(3)[4])
    assert len({pixels(s) for s in [*first, *scenes(5, seed=4)]}) == 10


@pytest.mark.parametrize("cells", [0.0, 1.0])
def test_boxes_are_whole_pixels_inside_the_image_and_of_categories_asked_for(cells: float) -> None:
    for sample in scenes(30, max_objects=20, cells=cells):
        xyxy = sample.truth.xyxy
        assert (xyxy == xyxy.round()).all()
        assert (xyxy[:, :2] >= 0).all() and (xyxy[:, 2:] <= sample.size_wh).all()
        assert (xyxy[:, 2:] - xyxy[:, :2] >= 4).all()
        assert set(sample.truth.labels) <= set(sample.query.categories)
        assert sample.load_image().size == sample.size_wh


@pytest.mark.parametrize("place", [(40, 60), (-15, 20), (300, 225), (-5, -8)])
def test_a_box_is_tight_around_what_was_drawn(place: tuple[int, int]) -> None:
    scene = Scene(np.random.default_rng(0), SceneConfig())
    mask = shape_mask(np.random.default_rng(1), "star", 50)
    assert scene.place(mask, Image.new("RGB", mask.size, (255, 255, 255)), *place, "star", "white")
    rows, columns = np.nonzero(np.asarray(scene.image).any(2))
    drawn = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
    assert scene.things[0].xyxy == drawn


def test_nothing_is_placed_outside_or_over_another() -> None:
    scene = Scene(np.random.default_rng(0), SceneConfig(max_overlap=0.25))
    mask = Image.new("L", (40, 40), 255)
    fill = Image.new("RGB", mask.size, (255, 0, 0))
    assert not scene.place(mask, fill, 400, 20, "square", "red")
    assert scene.place(mask, fill, 100, 100, "square", "red")
    assert not scene.place(mask, fill, 110, 100, "square", "red")
    assert scene.place(mask, fill, 135, 100, "square", "red")


def test_counts() -> None:
    assert all(len(s.truth) == 1 for s in scenes(20, min_objects=1, max_objects=1, subset=0.0, cells=0.0))
    many = [len(s.truth) for s in scenes(20, min_objects=8, max_objects=30, subset=0.0, cells=1.0)]
    assert max(many) <= 30 and np.mean(many) > 8
    assert all(len(s.truth) == 0 and s.query.categories for s in scenes(5, min_objects=0, max_objects=0))


def test_some_scenes_ask_for_what_is_not_there() -> None:
    asked = scenes(60, max_objects=6, subset=1.0)
    assert any(len(s.truth) == 0 for s in asked)
    assert any(0 < len(set(s.truth.labels)) < len(s.query.categories) for s in asked)


def test_held_out_shape_and_texture_are_not_in_training() -> None:
    assert HELD_OUT_SHAPE not in SHAPES and HELD_OUT_TEXTURE not in TEXTURES
    usual = scenes(4, seed=1, cells=0.0)
    assert [pixels(s) for s in usual] != [pixels(s) for s in scenes(4, seed=1, cells=0.0, held_out="shape")]
    held = scenes(10, seed=1, cells=0.0, held_out="shape")
    assert {label for s in held for label in s.truth.labels} == {"object"}
    assert len(scenes(4, held_out="texture", min_objects=3, subset=0.0)[0].truth) > 0


@pytest.mark.parametrize("shape", [*SHAPES, HELD_OUT_SHAPE])
def test_every_shape_has_a_mask_of_about_its_size(shape: str) -> None:
    mask = shape_mask(np.random.default_rng(0), shape, 40)
    tight = mask.getbbox()
    assert tight is not None
    assert 24 <= max(tight[2] - tight[0], tight[3] - tight[1]) <= 42


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"min_objects": 3, "max_objects": 2}, "max_objects: expected min_objects = 3 or more, found 2"),
        ({"min_size": 0.6, "max_size": 0.5}, r"max_size: expected min_size = 0\.6 or more, found 0\.5"),
        ({"width": 8}, "width: expected 32 or more, found 8"),
    ],
)
def test_impossible_settings_are_refused(settings: dict[str, int], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        SceneConfig(**settings)  # type: ignore[arg-type]
