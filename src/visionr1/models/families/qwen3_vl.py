"""Qwen3-VL: as Qwen2.5-VL on the outside, with deepstack inside.

Deepstack adds features of several vision layers to the first decoder layers, at the image tokens
only. A row holds each image once, in its prompt, so the shared prefix carries them for all its
branches, and decoding, which has no image tokens, needs none. mRoPE interleaves its three axes:
its rotary embedding does so by itself from the same position ids.
"""

from typing import Any

from torch import Tensor

from visionr1.models.families.qwen25_vl import Qwen25VL


class Qwen3VL(Qwen25VL):
    """`Qwen3VLForConditionalGeneration` of transformers."""

    name = "qwen3_vl"
    text_types = ("qwen3_vl_text",)
    dialect = "qwen3"

    def deepstack(self, output: Any) -> list[Tensor]:
        features: list[Tensor] = output.deepstack_features
        return features

    def later_features(self, is_image: Tensor, features: list[Tensor]) -> dict[str, Any]:
        return {"visual_pos_masks": is_image, "deepstack_visual_embeds": features}


FAMILY = Qwen3VL()
