"""Chat templates that write <think> into the prompt: who opens the thought is read from the rendered prompt."""

import logging
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from visionr1.dialects import get_dialect
from visionr1.models.folder.thought import dialect_for_template
from visionr1.models.loading import load_policy
from visionr1.models.saving import save_policy
from visionr1.samples import Boxes, Query, Sample
from visionr1.training import sft
from visionr1.training.recipe import SFTSection


class Template:
    """A tokenizer's chat template, as far as the prompt's end goes."""

    def __init__(self, end: str, elsewhere: str = "") -> None:
        self.end = end
        self.chat_template = elsewhere + end

    def apply_chat_template(self, chat: Any, **settings: Any) -> str:
        return f"<|user|>?<|assistant|>{self.end}"


OPEN, NONE = Template("<think>\n"), Template("\n")
SHUT = Template("<think>\n\n</think>\n\n")  # a model that can think, asked not to


@pytest.mark.parametrize(
    ("name", "template", "is_default", "expected", "warns"),
    [
        ("qwen3", NONE, True, "qwen3", False),
        ("think+qwen3", NONE, False, "think+qwen3", False),
        ("open-think+qwen3", NONE, False, "think+qwen3", False),  # the template decides
        ("think+qwen3", OPEN, False, "open-think+qwen3", False),
        ("open-think+qwen3", OPEN, False, "open-think+qwen3", False),
        ("qwen3", OPEN, True, "open-think+qwen3", True),  # nobody chose the plain one
        ("qwen3", OPEN, False, "qwen3", True),  # somebody did
        ("qwen3", SHUT, True, "qwen3", False),
        ("qwen3", Template("<think>"), True, "open-think+qwen3", True),  # Kimi K2.5
        ("qwen3", Template("\n<think></think>"), True, "qwen3", False),  # GLM-4.5V, asked not to think
        # GLM-4.1V-Thinking opens the thought itself, so the reply has both tags.
        ("think+qwen3", Template("", elsewhere="{# </think> of earlier turns #}"), False, "think+qwen3", False),
        ("qwen3", Template("\n", elsewhere="{# <think> of earlier turns #}"), True, "qwen3", True),
    ],
)
def test_the_dialect_fits_the_template(
    name: str, template: Template, is_default: bool, expected: str, warns: bool, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        dialect = dialect_for_template(get_dialect(name), template, is_default=is_default)
    assert dialect.name == expected
    assert bool(caplog.records) is warns


def test_a_thinking_folder_is_asked_trained_and_read_inside_the_thought(qwen3_folder: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(qwen3_folder, tmp_path / "model"))
    (folder / "visionr1.json").unlink()  # so that the family decides
    template = folder / "chat_template.jinja"
    template.write_text(template.read_text(encoding="utf-8").rstrip() + "<think>\n", encoding="utf-8")

    policy = load_policy(folder)
    assert policy.dialect.name == "open-think+qwen3"
    image = Image.new("RGB", (64, 64))
    prompt = policy.encode(image, Query("detection", ("cat",)))
    assert prompt.text.rstrip().endswith("<think>") and "<answer>" in prompt.text

    # The target of SFT goes on where the prompt ends: it does not open the thought again.
    truth = Boxes.of([[8, 8, 40, 40]], ["cat"])
    sample = Sample("1", image, Query("detection", ("cat",)), truth, (64, 64))
    target = sft.target(policy, sample, prompt, SFTSection())
    reply = policy.decode_reply(target.tolist())
    assert reply.startswith("</think>\n<answer>")
    read = policy.dialect.parse(reply, size_wh=(64, 64), input_size_wh=prompt.input_size_wh)
    assert read.well_formed and read.boxes.labels == ("cat",)

    # The name goes with the weights, and the plain dialect can still be chosen.
    save_policy(policy, tmp_path / "saved", torch.float32)
    assert load_policy(tmp_path / "saved").dialect.name == "open-think+qwen3"
    assert load_policy(folder, dialect="qwen3").dialect.name == "qwen3"
