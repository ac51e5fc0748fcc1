"""The folder of the small model: loads as transformers does, encodes any text, costs few tokens."""

from pathlib import Path

import pytest
import torch
from PIL import Image

from visionr1.data.scenes import SceneConfig, SceneStream
from visionr1.dialects import get_dialect
from visionr1.models.loading import load_policy
from visionr1.models.policy import Policy
from visionr1.models.tiny import build_tiny
from visionr1.samples import Boxes, Query

SMALL = {"text_width": 64, "text_layers": 1, "text_mlp": 64, "vision_width": 64, "vision_layers": 2, "vision_mlp": 64}


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Policy:
    return load_policy(build_tiny(tmp_path_factory.mktemp("tiny"), **SMALL))


def test_weights_depend_on_the_seed_alone(tmp_path: Path) -> None:
    def weights(name: str, seed: int) -> torch.Tensor:
        model = load_policy(build_tiny(tmp_path / name, seed, **SMALL)).model
        return torch.cat([p.flatten() for p in model.parameters()])

    first = weights("a", 1)
    torch.manual_seed(5)
    assert torch.equal(first, weights("b", 1))
    assert not torch.equal(first, weights("c", 2))


@pytest.mark.parametrize(
    "text", ["", "RBC, WBC", 'héllo wörld 漢字 "x": 3.5\r\n\t ``', "red  circle", "<|im_end|>", "Locate every cat in"]
)
def test_any_text_comes_back(policy: Policy, text: str) -> None:
    assert policy.tokenizer.decode(policy.tokenizer.encode(text)) == text


def test_digits_are_single_tokens_and_template_pieces_are_one(policy: Policy) -> None:
    boxes = Boxes.of([[1, 22, 133, 204], [0, 0, 320, 240]], ["RBC", "Platelets"])
    text = policy.dialect.render(boxes, size_wh=(320, 240), input_size_wh=(320, 240))
    pieces = [policy.tokenizer.decode([i]) for i in policy.encode_reply(text).tolist()]
    assert "".join(pieces) == text + "<|im_end|>"
    assert pieces[:5] == ['```json\n[\n\t{"bbox_2d": [', "1", ", ", "2", "2"]
    assert len(pieces) == 15 + 14 + 2  # two boxes with 9 and 8 digits, the closing fence, the end
    empty = policy.dialect.render(Boxes.empty(), size_wh=(320, 240), input_size_wh=(320, 240))
    assert len(policy.encode_reply(empty)) == 2


def test_words_of_scenes_are_single_tokens(policy: Policy) -> None:
    scenes = SceneStream(0, SceneConfig(queries={"question": 1, "referring": 1}))
    for index in range(100):
        sample = scenes[index]
        words = " ".join((*sample.query.categories, sample.answer)).replace("?", "").replace(",", "").split()
        for word in words:
            assert len(policy.tokenizer.encode(word)) == (len(word) if word.isdigit() else 1), word


def test_prompt_sentences_are_single_tokens(policy: Policy) -> None:
    for dialect in ("qwen25", "griffon"):
        for template in get_dialect(dialect).templates.values():
            ids = policy.tokenizer.encode(template.replace("{}", "RBC"))
            assert len(ids) == 1 + sum(map(bool, template.split("{}")))


@pytest.mark.parametrize("size", [(640, 480), (320, 240), (100, 50), (300, 700)])
def test_images_of_any_shape_are_fed_within_the_budget(policy: Policy, size: tuple[int, int]) -> None:
    prompt = policy.encode(Image.new("RGB", size), Query("detection", ("RBC",)))
    width, height = prompt.input_size_wh
    assert width % 40 == 0 and height % 40 == 0
    assert width * height <= 320 * 240
    assert int((prompt.input_ids == policy.config.image_token_id).sum()) == width * height // 1600


def test_positions_in_the_image_reach_the_image_tokens(policy: Policy) -> None:
    grid = policy.model.model.visual.pos_embed.weight.detach()
    assert grid.std() > 0.3
    assert torch.linalg.matrix_rank(grid) > 20
