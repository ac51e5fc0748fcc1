"""A bound on pixels acts on every family, whatever its settings are called, and is kept by what is saved."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from transformers import AutoImageProcessor

from support.family_checks import score_errors
from support.more_shapes import build_by_name
from visionr1.errors import CheckpointError, ImageRefused, RecipeError
from visionr1.models.loading import load_policy
from visionr1.models.policy import Policy
from visionr1.models.saving import save_policy
from visionr1.samples import Query

CAT = Query("detection", ("cat",))
BOUND = 8000


def fed(policy: Policy, size: tuple[int, int] = (400, 300)) -> int:
    """Return the pixels that the model is fed of an image."""
    prompt = policy.encode(Image.new("RGB", size), CAT)
    frames = policy.image_processor.temporal_patch_size if "image_grid_thw" in prompt.inputs else 1
    return prompt.inputs["pixel_values"].numel() // 3 // frames


def test_no_family_is_fed_more(model_folder: Path) -> None:
    assert fed(load_policy(model_folder)) > BOUND
    bounded = load_policy(model_folder, max_pixels=BOUND)
    for size in ((400, 300), (200, 600), (900, 300), (30, 30)):
        assert fed(bounded, size) <= BOUND
    assert fed(bounded) > BOUND // 4  # and not much less than it may be


def test_a_family_without_a_file(qwen3_folder: Path, tmp_path: Path) -> None:
    folder = build_by_name(tmp_path / "qwen2_vl", qwen3_folder, "qwen2_vl")
    assert fed(load_policy(folder, max_pixels=3200)) <= 3200 < fed(load_policy(folder))


def test_an_image_processor_of_one_size_is_named(qwen3_folder: Path, tmp_path: Path) -> None:
    folder = build_by_name(tmp_path / "llava", qwen3_folder, "llava")
    with pytest.raises(RecipeError, match=r"model\.max_pixels: .*LlavaImageProcessorPil.* found 900: it feeds 1600"):
        load_policy(folder, max_pixels=900)
    with pytest.raises(RecipeError, match=r"found 2000, which has no effect: LlavaImageProcessorPil .* one size, 1600"):
        load_policy(folder, max_pixels=2000)


@pytest.mark.parametrize(
    ("family", "bound", "setting"),
    [
        ("gemma4", 30_000, "max_soft_tokens"),
        ("minicpmv4_6", 20_000, "max_slice_nums"),
        ("llava_next", 5000, "image_grid_pinpoints"),  # the model has a list of its own
        ("llava_onevision", 5000, "image_grid_pinpoints"),
        ("granite4_vision", 5000, "image_grid_pinpoints"),
    ],
)
def test_settings_that_bound_an_image(
    family: str, bound: int, setting: str, qwen3_folder: Path, tmp_path: Path
) -> None:
    folder = build_by_name(tmp_path / family, qwen3_folder, family)
    policy = load_policy(folder)
    before = getattr(policy.image_processor, setting)
    assert max(fed(policy, size) for size in ((400, 300), (200, 600))) > bound

    bounded = load_policy(folder, max_pixels=bound)
    assert max(fed(bounded, size) for size in ((400, 300), (200, 600), (30, 30))) <= bound
    assert getattr(bounded.image_processor, setting) != before
    assert max(score_errors(bounded)) < 1e-5

    # The files say it too, for programs that do not read visionr1.json.
    save_policy(bounded, tmp_path / "saved")
    (tmp_path / "saved/visionr1.json").write_text('{"dialect": "qwen3"}', encoding="utf-8")
    again = load_policy(tmp_path / "saved")
    assert again.max_pixels == 0 and fed(again) == fed(bounded)
    assert max(score_errors(again)) < 1e-5


def test_it_is_kept_with_the_trained_model(model_folder: Path, tmp_path: Path) -> None:
    policy = load_policy(model_folder, max_pixels=BOUND)
    save_policy(policy, tmp_path / "final")
    again = load_policy(tmp_path / "final")
    assert (again.max_pixels, fed(again)) == (BOUND, fed(policy))
    processor: Any = AutoImageProcessor.from_pretrained(tmp_path / "final", backend="pil", trust_remote_code=False)
    assert processor.to_dict() == again.image_processor.to_dict()


def released(qwen25_folder: Path, folder: Path, **settings: Any) -> Path:
    """Write a folder whose preprocessor_config.json has the keys of a released Qwen2.5-VL, and `settings`."""
    shutil.copytree(qwen25_folder, folder)
    path = folder / "preprocessor_config.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    del content["size"]
    path.write_text(json.dumps({**content, "min_pixels": 3136, "max_pixels": 12845056, **settings}), encoding="utf-8")
    return folder


def test_max_pixels_of_a_released_folder_goes_before_size_and_is_named(qwen25_folder: Path, tmp_path: Path) -> None:
    """case_05: 1920x1080 was fed as released whatever `size` said, and the message named that key."""
    folder = released(qwen25_folder, tmp_path / "model", size={"shortest_edge": 3136, "longest_edge": 401408})
    policy = load_policy(folder)
    assert fed(policy, (1920, 1080)) > 2_000_000
    policy.config.get_text_config().max_position_embeddings = 400
    with pytest.raises(ImageRefused, match=r"set model\.max_pixels .*lower max_pixels in preprocessor_config\.json"):
        policy.encode(Image.new("RGB", (1920, 1080)), CAT)
    assert fed(load_policy(folder, max_pixels=401408), (1920, 1080)) <= 401408


@pytest.mark.parametrize("value", ["401408", 0, True, -1, [1]])
def test_a_bound_in_a_file_is_a_number(qwen3_folder: Path, tmp_path: Path, value: object) -> None:
    folder = Path(shutil.copytree(qwen3_folder, tmp_path / "model"))
    (folder / "visionr1.json").write_text(json.dumps({"dialect": "qwen3", "max_pixels": value}), encoding="utf-8")
    with pytest.raises(CheckpointError, match=r"visionr1\.json: expected an object with .* the number max_pixels"):
        load_policy(folder)
