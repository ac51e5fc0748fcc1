"""What further families need to be built in small, as `family_shapes.SHAPES` has it for the others."""

from pathlib import Path
from typing import Any

from support.family_builder import PATCH, TILE, Shape, build_family
from support.family_shapes import (
    ANY_SIZE,
    ANY_SIZE_VIDEO,
    CLIP,
    CROPPED,
    GLM_IDS,
    GLM_IMAGE,
    GLM_MROPE,
    GLM_NAMED,
    GLM_TOKENS,
    GRIDS,
    IDEFICS_TOKENS,
    LLAVA,
    MLA,
    PIXTRAL,
    SHAPES,
    SQUARE,
    WINDOWS,
    qwen,
)

FOUR_AXES = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 2, 2, 2]}
INDEXED = {"index_topk": 8, "index_head_dim": 16, "index_n_heads": 32}
"""An indexer that chooses 8 tokens. It has many heads because a token that none of few likes is a tie with others."""
SAM = {"output_channels": 64, "window_size": 2, "global_attn_indexes": [1], "mlp_dim": 64, "num_pos_feats": 32}
SMALL_SAM = {
    **SAM,
    "hidden_size": 16,
    "output_channels": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "patch_size": 4,
    "image_size": 256,
    "global_attn_indexes": [],
    "downsample_channels": [32, 64],
}
CODEBOOK = {
    "embed_dim": 8,
    "num_embeddings": 32,
    "latent_channels": 16,
    "base_channels": 32,
    "channel_multiplier": [1, 1],
    "num_res_blocks": 1,
    "num_patches": 4,
    "projection_dim": 64,
    "image_token_embed_dim": 64,
}


def glm(model_type: str, **changed: Any) -> Shape:
    """A family with GLM's image processor and tokens."""
    text = {"rope_parameters": GLM_MROPE, **changed.pop("text", {})}
    parts = {"text_config": text, "vision_config": changed.pop("vision", {})}
    settings = {"image_processor": ANY_SIZE_VIDEO, **changed}
    return Shape(
        model_type,
        image=GLM_IMAGE,
        tokens=GLM_TOKENS,
        named=GLM_NAMED,
        config={**GLM_IDS, **parts},
        **settings,
    )


PATCH_SHAPES: dict[str, Shape] = {
    # Images of any size, cut into patches.
    "glm_ocr": glm(
        "glm_ocr",
        vision={"out_hidden_size": 64},
        image_class="Glm46VImageProcessor",
        processor_class="Glm46VProcessor",
    ),
    "glmga": glm("glmga", processor_class="Glm46VProcessor"),
    "glm5_next": glm(
        "glm5_next",
        text={
            **MLA,
            **INDEXED,
            "num_hidden_layers": 4,
            "qk_rope_head_dim": 0,
            "head_dim": 0,
            "index_kpool": 4,
            "linear_head_dim": 16,
            "linear_num_heads": 4,
            "layer_types": ["linear_attention", "linear_attention", "linear_attention", "indexed_attention"],
            "mlp_layer_types": ["dense", "sparse", "sparse", "sparse"],
        },
        vision={"projection_intermediate_size": 64, "out_hidden_size": 64},
        image_processor={
            "patch_size": PATCH,
            "merge_size": 2,
            "temporal_patch_size": 2,
            "min_image_tokens": 1,
            "max_image_tokens": 16,
        },
    ),
    "hunyuan_vl": Shape(
        "hunyuan_vl",
        image="<image_start><image_pad><image_end>",
        named={
            "image_token": "<image_pad>",
            "image_start_token": "<image_start>",
            "image_end_token": "<image_end>",
        },
        tokens=("<image_newline>",),
        config={
            "image_token_id": "<image_pad>",
            "im_start_id": "<image_start>",
            "im_end_id": "<image_end>",
            "im_newline_id": "<image_newline>",
            "text_config": {"rope_parameters": FOUR_AXES},
            "vision_config": {"text_hidden_size": 64, "max_image_size": 80},
        },
        image_processor=ANY_SIZE,
    ),
    "hyperclovax_vision_v2": qwen("hyperclovax_vision_v2", vision={"window_size": 40, "fullatt_block_indexes": [1]}),
    "minimax_m3_vl": Shape(
        "minimax_m3_vl",
        image="]<]image[>[",
        tokens=("]<]image[>[", "]<]video[>[", "]<]start of image[>[", "]<]end of image[>["),
        config={
            "image_token_index": "]<]image[>[",
            "video_token_index": "]<]video[>[",
            "projector_hidden_size": 64,
            "merged_hidden_size": 256,
            "text_config": {
                "layer_types": ["full_attention", "minimax_m3_sparse"],
                "mlp_layer_types": ["dense", "sparse"],
                "dense_intermediate_size": 128,
                "shared_intermediate_size": 64,
                "rotary_dim": 8,
                "index_n_heads": 2,
                "index_head_dim": 16,
                "index_block_size": 8,
                "index_topk_blocks": 2,
            },
        },
        image_processor=ANY_SIZE_VIDEO,
        needs=("torchvision",),
    ),
    "mistral_large4": Shape(
        "mistral_large4",
        image="[IMG]",
        tokens=("[IMG]", "[IMG_BREAK]", "[IMG_END]"),
        config={
            "image_token_index": "[IMG]",
            "text_config": {
                **MLA,
                **INDEXED,
                "layer_types": ["indexed_attention", "indexed_attention"],
                "indexer_types": ["full", "full"],
                "no_rope_layers": [1, 1],
                "kv_source_layers": [0, 1],
                "mlp_layer_types": ["dense", "sparse"],
            },
        },
        image_processor=PIXTRAL,
        image_class="PixtralImageProcessor",
        processor_class="PixtralProcessor",
        processor={"patch_size": PATCH, "spatial_merge_size": 2},
        needs=("torchvision",),
    ),
    "gemma4_unified": Shape(
        "gemma4_unified",
        image="<|image|>",
        named=SHAPES["gemma4"].named,
        config={
            **SHAPES["gemma4"].config,
            "text_config": {"layer_types": WINDOWS, "per_layer_config": {}},
            "vision_config": {
                "model_type": "gemma4_unified_vision",
                "pooling_kernel_size": 2,
                "mm_embed_dim": 64,
                "mm_posemb_size": 64,
                "output_proj_dims": 64,
            },
        },
        image_processor=SHAPES["gemma4"].image_processor,
        processor=SHAPES["gemma4"].processor,
        needs=("torchvision",),
    ),
}

TILE_SHAPES: dict[str, Shape] = {
    # Images of one size, or cut into tiles.
    "llava_next_video": Shape(
        "llava_next_video",
        tokens=("<image>", "<video>"),
        config={**CLIP, "video_token_index": "<video>", "image_grid_pinpoints": GRIDS},
        image_processor={**CROPPED, "image_grid_pinpoints": GRIDS},
        processor=LLAVA,
    ),
    "video_llava": Shape(
        "video_llava",
        tokens=("<image>", "<video>"),
        config={**CLIP, "video_token_index": "<video>"},
        image_processor=CROPPED,
        processor=LLAVA,
    ),
    "qianfan_ocr": Shape(
        "qianfan_ocr",
        image="<image>\n",
        tokens=("<image>",),
        named={
            "start_image_token": "<img>",
            "end_image_token": "</img>",
            "context_image_token": "<IMG_CONTEXT>",
        },
        config={
            "image_token_id": "<IMG_CONTEXT>",
            "image_seq_length": 4,
            "vision_config": {"image_size": [TILE, TILE], "patch_size": [PATCH, PATCH]},
        },
        image_processor={"size": SQUARE, "max_patches": 6},
        processor={"image_seq_length": 4},
    ),
    "granite_docling": Shape(
        "granite_docling",
        tokens=IDEFICS_TOKENS,
        config={
            "image_token_id": "<image>",
            "text_config": {},
            "vision_config": {"scale_factor": 2, "deepstack_visual_indexes": [0]},
        },
        image_processor={"size": SQUARE, "max_patches": 4},
        processor={"image_seq_len": 4},
    ),
    "deepseek_vl_hybrid": Shape(
        "deepseek_vl_hybrid",
        image="<image_placeholder>",
        named={"image_token": "<image_placeholder>"},
        config={
            "image_token_id": "<image_placeholder>",
            "high_res_vision_config": {**SAM, "image_size": 160, "patch_size": PATCH},
        },
        image_processor={"size": SQUARE, "high_res_size": {"height": 160, "width": 160}},
        processor={"num_image_tokens": 16},
    ),
    # Its number of tokens follows from 256 and 192 pixels at patches of 4, as from 1024 and 768 at 16.
    "deepseek_ocr2": Shape(
        "deepseek_ocr2",
        named={"image_token": "<image>"},
        config={
            "image_token_id": "<image>",
            "text_config": {"mlp_layer_types": ["dense", "sparse"], "num_key_value_heads": 4},
            "vision_config": {
                "sam_config": SMALL_SAM,
                "encoder_config": {
                    "vocab_size": 64,
                    "hidden_size": 64,
                    "intermediate_size": 64,
                    "num_hidden_layers": 2,
                    "num_attention_heads": 4,
                    "num_key_value_heads": 4,
                },
            },
        },
        image_processor={"size": {"height": 256, "width": 256}, "tile_size": 192, "max_patches": 2},
        processor={"patch_size": 4, "downsample_ratio": 4},
        many_convolutions=True,
    ),
    # Its processor feeds images at 980 pixels, whatever its image processor's settings.
    "aria": Shape(
        "aria",
        named={"image_token": "<image>"},
        config={
            "image_token_index": "<image>",
            "projector_patch_to_query_dict": {"100": 8},
            "max_value_projector_patch_to_query_dict": 8,
            "text_config": {"moe_num_experts": 4, "moe_topk": 2, "moe_num_shared_experts": 1},
            "vision_config": {"image_size": 980, "patch_size": 98},
        },
        image_processor={"max_image_size": 980},
        processor={"size_conversion": {"980": 8}},
    ),
    "janus": Shape(
        "janus",
        image="<image_placeholder>",
        named={
            "image_token": "<image_placeholder>",
            "boi_token": "<begin_of_image>",
            "eoi_token": "<end_of_image>",
        },
        config={
            "image_token_id": "<image_placeholder>",
            "vision_config": {"depth": 2, "num_image_tokens": 16, "mlp_ratio": 2.0},
            "vq_config": CODEBOOK,
        },
        image_processor={"size": SQUARE},
        processor={"num_image_tokens": 16},
    ),
    # A MobileNet by timm, an eighth as wide; it makes 16 x 16 tokens of any image.
    "gemma3n": Shape(
        "gemma3n",
        image="<image_soft_token>",
        named={
            "boi_token": "<start_of_image>",
            "eoi_token": "<end_of_image>",
            "image_token": "<image_soft_token>",
            "boa_token": "<start_of_audio>",
            "eoa_token": "<end_of_audio>",
            "audio_token": "<audio_soft_token>",
        },
        config={
            "boi_token_id": "<start_of_image>",
            "eoi_token_id": "<end_of_image>",
            "image_token_id": "<image_soft_token>",
            "boa_token_id": "<start_of_audio>",
            "eoa_token_id": "<end_of_audio>",
            "audio_token_id": "<audio_soft_token>",
            "audio_config": None,
            "vision_config": {"hidden_size": 2048, "model_args": {"channel_multiplier": 0.125}},
            "text_config": {
                "layer_types": WINDOWS,
                "intermediate_size": 128,
                "hidden_size_per_layer_input": 16,
                "laurel_rank": 8,
                "num_kv_shared_layers": 0,
                "activation_sparsity_pattern": [0.5, 0.0],
            },
        },
        image_processor={"size": {"height": 256, "width": 256}},
        processor={"image_seq_length": 256},
        needs=("timm",),
    ),
}

ALL_SHAPES = {**SHAPES, **PATCH_SHAPES, **TILE_SHAPES}
"""Every family that is built, by name."""


def build_by_name(folder: Path, like: Path, name: str) -> Path:
    """Write a model of the family `name` into `folder`, as `build_family` does."""
    return build_family(folder, like, ALL_SHAPES[name])
