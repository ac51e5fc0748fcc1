"""InternVL, SmolVLM and Idefics3: prompts as their own processors make them, without torchvision."""

import inspect
import shutil
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoProcessor
from transformers.models.idefics3 import processing_idefics3
from transformers.models.internvl import processing_internvl
from transformers.models.smolvlm import processing_smolvlm

from visionr1.errors import CheckpointError, DataError
from visionr1.models.loading import load_policy
from visionr1.models.policy import Policy
from visionr1.models.saving import save_policy
from visionr1.samples import Boxes, Query

CAT = Query("detection", ("cat",))
CANVAS = {  # what the model sees of images of these sizes, in tiles of 40 x 40 pixels
    "internvl": {(120, 80): (3, 2), (40, 40): (1, 1), (500, 100): (5, 1), (37, 41): (1, 1)},
    "smolvlm": {(120, 80): (3, 2), (40, 40): (3, 3), (500, 100): (3, 1), (37, 41): (3, 3)},
}
CANVAS["idefics3"] = CANVAS["smolvlm"]

load_once = cache(load_policy)


def own_processor(policy: Policy, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The family's processor of transformers, less what it needs for videos: torchvision and num2words."""
    monkeypatch.setattr(processing_smolvlm, "num2words", str)
    kind, length = {
        "internvl": (processing_internvl.InternVLProcessor, "image_seq_length"),
        "smolvlm": (processing_smolvlm.SmolVLMProcessor, "image_seq_len"),
        "idefics3": (processing_idefics3.Idefics3Processor, "image_seq_len"),
    }[policy.config.model_type]
    monkeypatch.setattr(kind, "check_argument_for_proper_class", lambda *_: None)
    more = {"video_processor": None} if "video_processor" in inspect.signature(kind).parameters else {}
    return kind(policy.image_processor, policy.tokenizer, **{length: 4}, **more)


def test_a_prompt_is_what_the_familys_own_processor_makes(tiled_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    policy = load_once(tiled_folder)
    processor = own_processor(policy, monkeypatch)
    for (width, height), (columns, rows) in CANVAS[policy.config.model_type].items():
        pixels = np.random.default_rng(0).integers(0, 255, (height, width, 3), dtype=np.uint8)
        prompt = policy.encode(Image.fromarray(pixels), CAT)
        expected = processor(images=[Image.fromarray(pixels)], text=[prompt.text], return_tensors="pt")
        assert torch.equal(prompt.input_ids, expected["input_ids"][0])
        mine = prompt.inputs["pixel_values"]
        assert torch.equal(mine, expected["pixel_values"].view(mine.shape))
        assert prompt.input_size_wh == (40 * columns, 40 * rows)
        assert len(mine) == columns * rows + (columns * rows > 1)  # the whole image small, beside its tiles


def test_an_image_of_too_many_tiles_for_the_context(tiled_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    policy = load_once(tiled_folder)
    monkeypatch.setattr(policy.config.get_text_config(), "max_position_embeddings", 40)
    with pytest.raises(DataError, match=r"120x80 pixels.* lower (max_patches|size\.longest_edge) in preprocessor"):
        policy.encode(Image.new("RGB", (120, 80)), CAT)


def test_padded_tiles_are_refused(smolvlm_folder: Path) -> None:
    policy = load_policy(smolvlm_folder)
    original = policy.image_processor.preprocess

    def padded(*args: Any, **kwargs: Any) -> Any:
        pixels = original(*args, **kwargs)
        pixels["pixel_attention_mask"][..., -1] = 0
        return pixels

    policy.image_processor.preprocess = padded
    with pytest.raises(DataError, match="its tiles are padded; set do_resize and do_image_splitting"):
        policy.encode(Image.new("RGB", (120, 80), "red"), CAT)


def test_a_family_without_a_dialect_has_to_name_one(smolvlm_folder: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(smolvlm_folder, tmp_path / "model"))
    assert load_policy(folder).dialect.name == "qwen3"
    (folder / "visionr1.json").unlink()
    with pytest.raises(CheckpointError, match=r"models of type 'smolvlm' have no one way: write .*visionr1\.json"):
        load_policy(folder)
    assert load_policy(folder, dialect="griffon").dialect.name == "griffon"


def test_tags_of_the_dialect_are_special_tokens_and_yet_written_and_read(internvl_folder: Path) -> None:
    policy = load_once(internvl_folder)
    assert policy.dialect.name == "internvl"
    boxes = Boxes.of([[10, 20, 60, 60]], ["cat"])
    text = policy.dialect.render(boxes, size_wh=(100, 100), input_size_wh=(120, 120))
    ids = policy.encode_reply(text).tolist()
    tags = policy.tokenizer.convert_tokens_to_ids(["<ref>", "</ref>", "<box>", "</box>"])
    assert set(tags) <= set(ids)
    assert all(policy.tokenizer.added_tokens_decoder[tag].special for tag in tags)
    assert not set(tags) & set(policy.suppressed_ids.tolist())
    assert policy.decode_reply(ids) == text
    assert policy.dialect.parse(text, size_wh=(100, 100), input_size_wh=(120, 120)).well_formed


def test_the_processor_of_a_saved_folder_encodes_as_that_of_the_first(idefics3_folder: Path, tmp_path: Path) -> None:
    first, last = Path(shutil.copytree(idefics3_folder, tmp_path / "first")), tmp_path / "last"
    policy = load_policy(first)
    kind = processing_idefics3.Idefics3Processor
    kind(policy.image_processor, policy.tokenizer, image_seq_len=7).save_pretrained(first)  # a released one has 64
    for folder in (last, tmp_path / "again"):  # as a checkpoint of a resumed run is
        policy = load_policy(last if last.exists() else first)
        save_policy(policy, folder)
        assert (folder / "processor_config.json").read_bytes() == (first / "processor_config.json").read_bytes()
    chat = [{"role": "user", "content": [{"type": "image", "image": Image.new("RGB", (120, 80))}]}]
    settings = {"tokenize": True, "return_dict": True, "return_tensors": "pt", "add_generation_prompt": True}
    inputs = [
        AutoProcessor.from_pretrained(folder, backend="pil", trust_remote_code=False).apply_chat_template(
            chat, **settings
        )
        for folder in (first, last)
    ]
    assert inputs[0].keys() == inputs[1].keys()
    assert all(torch.equal(tensor, inputs[1][name]) for name, tensor in inputs[0].items())
