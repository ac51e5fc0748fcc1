"""What each family of transformers needs to be built in small: a line of `SHAPES` each."""

from typing import Any

from support.family_builder import PATCH, QWEN_IMAGE, TILE, Shape

SQUARE = {"height": TILE, "width": TILE}
CROPPED = {"size": {"shortest_edge": TILE}, "crop_size": SQUARE}
ANY_SIZE = {"size": {"shortest_edge": 400, "longest_edge": 6400}, "patch_size": PATCH, "merge_size": 2}
ANY_SIZE_VIDEO = {**ANY_SIZE, "temporal_patch_size": 2}
GRIDS = [[TILE, 2 * TILE], [2 * TILE, TILE], [2 * TILE, 2 * TILE]]

MROPE = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [4, 2, 2]}
INTERLEAVED = {**MROPE, "mrope_interleaved": True}
HALF_MROPE = {**INTERLEAVED, "mrope_section": [2, 1, 1], "partial_rotary_factor": 0.5}
QWEN_IDS = {
    "image_token_id": "<|image_pad|>",
    "video_token_id": "<|video_pad|>",
    "vision_start_token_id": "<|vision_start|>",
    "vision_end_token_id": "<|vision_end|>",
}
HYBRID = {"num_hidden_layers": 4, "rope_parameters": HALF_MROPE}
LLAVA = {"patch_size": PATCH, "vision_feature_select_strategy": "default", "num_additional_image_tokens": 1}
CLIP = {"image_token_index": "<image>", "vision_feature_layer": -1, "text_config": {}, "vision_config": {}}
GLM_TOKENS = (
    "<|begin_of_image|>",
    "<|image|>",
    "<|end_of_image|>",
    "<|begin_of_video|>",
    "<|video|>",
    "<|end_of_video|>",
)
GLM_IDS = {
    "image_token_id": "<|image|>",
    "video_token_id": "<|video|>",
    "image_start_token_id": "<|begin_of_image|>",
    "image_end_token_id": "<|end_of_image|>",
    "video_start_token_id": "<|begin_of_video|>",
    "video_end_token_id": "<|end_of_video|>",
}
GLM_IMAGE = "<|begin_of_image|><|image|><|end_of_image|>"
GLM_NAMED = {"image_token": "<|image|>", "video_token": "<|video|>"}
GLM_MROPE = {**MROPE, "partial_rotary_factor": 1.0}
WINDOWS = ["sliding_attention", "full_attention"]


PIXTRAL = {"size": {"longest_edge": 80}, "patch_size": {"height": PATCH, "width": PATCH}}
IDEFICS_TOKENS = (
    "<fake_token_around_image>",
    "<image>",
    "<global-img>",
    "<end_of_utterance>",
    *(f"<row_{row}_col_{column}>" for row in range(1, 5) for column in range(1, 5)),
)
IDEFICS = {"size": {"longest_edge": 3 * TILE}, "max_image_size": {"longest_edge": TILE}}
OVIS = ("<ovis_1>", "<ovis_2>", "<ovis_3>", "<ovis_4>", "<ovis_5>")
MOLMO = (
    "<im_start>",
    "<im_end>",
    "<im_patch>",
    "<im_col>",
    "<low_res_im_start>",
    "<|video|>",
    "<frame_start>",
    "<frame_end>",
    "<im_low>",
)
MLA = {
    "kv_lora_rank": 16,
    "q_lora_rank": 16,
    "qk_rope_head_dim": 8,
    "v_head_dim": 16,
    "qk_nope_head_dim": 8,
    "head_dim": 8,
    "n_group": 1,
    "topk_group": 1,
    "first_k_dense_replace": 1,
    "num_key_value_heads": 4,
}


def internvl(text_type: str, **text: Any) -> Shape:
    """InternVL around a language model of a type."""
    return Shape(
        "internvl",
        image="<IMG_CONTEXT>\n",
        named={
            "start_image_token": "<img>",
            "end_image_token": "</img>",
            "context_image_token": "<IMG_CONTEXT>",
            "video_token": "<video>",
        },
        tokens=("<ref>", "</ref>", "<box>", "</box>"),
        config={
            "image_token_id": "<IMG_CONTEXT>",
            "image_seq_length": 4,
            "text_config": {"model_type": text_type, **text},
        },
        image_processor={"size": SQUARE, "crop_to_patches": False, "max_patches": 6},
        processor={"image_seq_length": 4},
    )


def minicpm(model_type: str) -> Shape:
    """MiniCPM-V: images in one row of patches, a hybrid language model."""
    named = {"image_token": "<|image_pad|>", "video_token": "<|video_pad|>"}
    for part in ("image", "slice", "image_id"):
        named |= {f"{part}_start_token": f"<{part}>", f"{part}_end_token": f"</{part}>"}
    return Shape(
        model_type,
        image="<|image_pad|>",
        named=named,
        config={
            "image_token_id": "<|image_pad|>",
            "video_token_id": "<|video_pad|>",
            "insert_layer_id": 0,
            "image_size": 64,
            "patch_size": 16,
            "text_config": HYBRID,
            "vision_config": {"num_hidden_layers": 2, "image_size": 64, "patch_size": 16, "insert_layer_id": 0},
        },
        image_processor={"scale_resolution": 64, "patch_size": 16, "max_slice_nums": 4},
    )


def qwen(model_type: str, **changed: Any) -> Shape:
    """A family with Qwen's image processor and tokens."""
    text = changed.pop("text", {})
    vision = changed.pop("vision", {})
    more = changed.pop("more", {})
    image = {"image": QWEN_IMAGE, "image_processor": ANY_SIZE_VIDEO, **changed}
    return Shape(model_type, config={**QWEN_IDS, **more, "text_config": text, "vision_config": vision}, **image)


def griffon(text_type: str, **text: Any) -> Shape:
    """Griffon-G around a language model of a type."""
    return Shape(
        "griffon",
        tokens=("<image>",),
        config={
            "image_token_index": "<image>",
            "image_seq_length": 4,
            "vision_config": {},
            "text_config": {"model_type": text_type, **text},
        },
        image_processor={"size": SQUARE, "do_center_crop": False},
        processor={"image_token": "<image>", "image_seq_length": 4},
        image_class="CLIPImageProcessor",
        processor_class="GriffonProcessor",
    )


def gemma4(**text: Any) -> Shape:
    """A Gemma 4 with these settings of its language model."""
    return Shape(
        "gemma4",
        image="<|image|>",
        named={
            "boi_token": "<|image>",
            "eoi_token": "<image|>",
            "image_token": "<|image|>",
            "video_token": "<|video|>",
            "boa_token": "<|audio>",
            "eoa_token": "<audio|>",
            "audio_token": "<|audio|>",
        },
        config={
            "boi_token_id": "<|image>",
            "eoi_token_id": "<image|>",
            "image_token_id": "<|image|>",
            "video_token_id": "<|video|>",
            "audio_token_id": "<|audio|>",
            "boa_token_id": "<|audio>",
            "eoa_token_index": "<audio|>",
            "audio_config": None,
            "vision_config": {"model_type": "gemma4_vision", "pooling_kernel_size": 2, "position_embedding_size": 64},
            "text_config": {"per_layer_config": {}, **text},
        },
        image_processor={"patch_size": PATCH, "max_soft_tokens": 140, "pooling_kernel_size": 2},
        processor={"image_seq_length": 140},
    )


SHAPES: dict[str, Shape] = {
    # LLaVA's: a tower of fixed size.
    "llava": Shape("llava", tokens=("<image>",), config=CLIP, image_processor=CROPPED, processor=LLAVA),
    "vipllava": Shape(
        "vipllava",
        tokens=("<image>",),
        config={**CLIP, "vision_feature_layer": [-1, -2]},
        image_processor=CROPPED,
        processor=LLAVA,
    ),
    "llava_next": Shape(
        "llava_next",
        tokens=("<image>",),
        config={**CLIP, "image_grid_pinpoints": GRIDS},
        image_processor={**CROPPED, "image_grid_pinpoints": GRIDS},
        processor=LLAVA,
    ),
    "llava_onevision": Shape(
        "llava_onevision",
        tokens=("<image>", "<video>"),
        config={"image_token_index": "<image>", "video_token_index": "<video>", "image_grid_pinpoints": GRIDS},
        image_processor={"size": SQUARE, "image_grid_pinpoints": GRIDS},
        processor={
            "num_image_tokens": 16,
            "vision_feature_select_strategy": "full",
            "vision_aspect_ratio": "anyres_max_9",
        },
    ),
    # Qwen's.
    "qwen2_vl": qwen("qwen2_vl", text={"rope_parameters": MROPE}, vision={"mlp_ratio": 2}),
    "qwen2_5_vl": qwen(
        "qwen2_5_vl", text={"rope_parameters": MROPE}, vision={"window_size": 40, "fullatt_block_indexes": [1]}
    ),
    "qwen3_vl": qwen("qwen3_vl", text={"rope_parameters": INTERLEAVED}, vision={"deepstack_visual_indexes": [0]}),
    "qwen3_vl_moe": qwen(
        "qwen3_vl_moe",
        text={"rope_parameters": INTERLEAVED},
        vision={"deepstack_visual_indexes": [0]},
        image_class="Qwen2VLImageProcessor",
    ),
    "qwen3_5": qwen("qwen3_5", text=HYBRID),
    "qwen3_5_moe": qwen("qwen3_5_moe", text=HYBRID),
    "qwen4_exp": qwen(
        "qwen4_exp",
        text={
            **HYBRID,
            "hc_lowrank": 16,
            "ple_embed_dim": 16,
            "ngram_vocab_size_base": 64,
            "split_ngram_parts": 2,
            "indexer_n_heads": 2,
            "indexer_kv_heads": 1,
            "indexer_head_dim": 16,
            "indexer_budget": 16,
            "indexer_compress_ratio": 4,
        },
    ),
    # A class of visionr1's own.
    "griffon": griffon("gemma2", attn_logit_softcapping=2.0, final_logit_softcapping=5.0),
    "griffon+qwen2": griffon("qwen2"),
    # Gemma's.
    "gemma3": Shape(
        "gemma3",
        image="<start_of_image>",
        named={"boi_token": "<start_of_image>", "eoi_token": "<end_of_image>", "image_token": "<image_soft_token>"},
        config={
            "mm_tokens_per_image": 4,
            "boi_token_index": "<start_of_image>",
            "eoi_token_index": "<end_of_image>",
            "image_token_index": "<image_soft_token>",
            "text_config": {"layer_types": WINDOWS, "final_logit_softcapping": 5.0},
        },
        image_processor={"size": SQUARE},
        processor={"image_seq_length": 4},
    ),
    "gemma4": gemma4(
        num_hidden_layers=2,
        layer_types=WINDOWS,
        hidden_size_per_layer_input=0,
        use_bidirectional_attention="vision",
    ),
    # The small models: later layers take keys of earlier ones, and each layer has embeddings of its own.
    "gemma4+shared_kv": gemma4(
        num_hidden_layers=4,
        layer_types=[*WINDOWS, *WINDOWS],
        num_kv_shared_layers=2,
        hidden_size_per_layer_input=16,
    ),
    "paligemma": Shape(
        "paligemma",
        tokens=("<image>",),
        config={
            "image_token_index": "<image>",
            "projection_dim": 64,
            "hidden_size": 64,
            "text_config": {"vocab_size": 2048},
        },
        image_processor={"size": SQUARE, "image_seq_length": 16},
    ),
    # GLM's.
    "glm4v": Shape(
        "glm4v",
        image=GLM_IMAGE,
        tokens=GLM_TOKENS,
        named=GLM_NAMED,
        config={**GLM_IDS, "text_config": {"rope_parameters": GLM_MROPE}},
        image_processor=ANY_SIZE_VIDEO,
    ),
    "glm46v": Shape(
        "glm46v",
        image=GLM_IMAGE,
        tokens=GLM_TOKENS,
        named=GLM_NAMED,
        config={**GLM_IDS, "text_config": {"rope_parameters": GLM_MROPE}},
        image_processor=ANY_SIZE_VIDEO,
    ),
    "glm4v_moe": Shape(
        "glm4v_moe",
        image=GLM_IMAGE,
        tokens=GLM_TOKENS,
        named=GLM_NAMED,
        config={**GLM_IDS, "text_config": {"rope_parameters": GLM_MROPE}},
        image_processor=ANY_SIZE_VIDEO,
        image_class="Glm4vImageProcessor",
    ),
    # Mistral's.
    "mistral3": Shape(
        "mistral3",
        image="[IMG]",
        tokens=("[IMG]", "[IMG_BREAK]", "[IMG_END]"),
        config={"image_token_index": "[IMG]"},
        image_processor=PIXTRAL,
        image_class="PixtralImageProcessor",
        processor_class="PixtralProcessor",
        processor={"patch_size": PATCH, "spatial_merge_size": 2},
        needs=("torchvision",),
    ),
    "lighton_ocr": Shape(
        "lighton_ocr",
        image="<|image_pad|>",
        named={
            "image_token": "<|image_pad|>",
            "image_break_token": "<|vision_pad|>",
            "image_end_token": "<|vision_end|>",
        },
        config={"image_token_id": "<|image_pad|>"},
        image_processor=PIXTRAL,
        image_class="PixtralImageProcessor",
        processor={"patch_size": PATCH, "spatial_merge_size": 2},
    ),
    # Idefics.
    "idefics2": Shape(
        "idefics2",
        tokens=("<fake_token_around_image>", "<image>", "<end_of_utterance>"),
        config={
            "image_token_id": "<image>",
            "text_config": {"sliding_window": 16},
            "perceiver_config": {
                "hidden_size": 64,
                "resampler_n_latents": 4,
                "resampler_depth": 1,
                "resampler_n_heads": 4,
                "resampler_head_dim": 16,
                "num_key_value_heads": 2,
            },
        },
        image_processor={"size": {"shortest_edge": 20, "longest_edge": TILE}},
        processor={"image_seq_len": 4},
    ),
    "idefics3": Shape(
        "idefics3",
        tokens=IDEFICS_TOKENS,
        config={"image_token_id": "<image>", "scale_factor": 2, "pad_token_id": "<|endoftext|>"},
        image_processor=IDEFICS,
        processor={"image_seq_len": 4},
    ),
    "smolvlm": Shape(
        "smolvlm",
        tokens=IDEFICS_TOKENS,
        config={"image_token_id": "<image>", "scale_factor": 2, "pad_token_id": "<|endoftext|>"},
        image_processor=IDEFICS,
        processor={"image_seq_len": 4},
    ),
    "internvl": internvl("qwen2"),
    "internvl+qwen3": internvl("qwen3"),
    "internvl+qwen3_moe": internvl("qwen3_moe"),
    "internvl+gpt_oss": internvl("gpt_oss", layer_types=WINDOWS),
    "internvl+qwen3_5": internvl("qwen3_5_text", num_hidden_layers=4, rope_parameters={**HALF_MROPE}),
    # Others.
    "deepseek_vl": Shape(
        "deepseek_vl",
        image="<image_placeholder>",
        named={"image_token": "<image_placeholder>"},
        config={"image_token_id": "<image_placeholder>"},
        image_processor={"size": SQUARE},
        processor={"num_image_tokens": 16},
    ),
    "ovis2": Shape(
        "ovis2",
        tokens=("<image>", "<IMG_START>", "<IMG_ATOM>", "<IMG_GRID>", "<IMG_COL>", "<IMG_ROW>", "<IMG_END>", *OVIS),
        config={
            "image_token_id": "<IMG_ATOM>",
            "visual_indicator_token_ids": OVIS,
            "hidden_size": 64,
            "vision_config": {"vocab_size": 32},
            "vocab_size": 512,
        },
        image_processor={"size": SQUARE},
        processor={"image_token": "<image>", "image_seq_length": 16},
    ),
    "molmo2": Shape(
        "molmo2",
        image="<|image|>",
        tokens=MOLMO,
        named={"image_token": "<|image|>"},
        config={
            "image_start_token_id": "<im_start>",
            "image_end_token_id": "<im_end>",
            "image_patch_id": "<im_patch>",
            "frame_start_token_id": "<frame_start>",
            "frame_end_token_id": "<frame_end>",
            "low_res_image_start_token_id": "<low_res_im_start>",
            "vision_config": {"image_size": [TILE, TILE], "num_position_embeddings": 16},
            "adapter_config": {
                "hidden_size": 64,
                "num_attention_heads": 4,
                "num_key_value_heads": 4,
                "head_dim": 16,
                "intermediate_size": 128,
                "text_hidden_size": 64,
                "vision_feature_layer": [-1, -2],
            },
        },
        image_processor={"size": SQUARE, "patch_size": PATCH, "max_crops": 2, "overlap_margins": [1, 1]},
        needs=("torchvision",),
    ),
    "kimi_k25": Shape(
        "kimi_k25",
        image="<|media_begin|><|media_pad|><|media_end|>",
        tokens=("<|media_begin|>", "<|media_pad|>", "<|media_end|>", "<|kimi_k25_video_placeholder|>"),
        config={
            "image_token_id": "<|media_pad|>",
            "vision_start_token_id": "<|media_begin|>",
            "vision_end_token_id": "<|media_end|>",
            "video_token_id": "<|kimi_k25_video_placeholder|>",
            "projection_hidden_size": 64,
            "text_config": MLA,
            "vision_config": {"pos_emb_height": 8, "pos_emb_width": 8},
        },
        image_processor={"patch_size": PATCH, "merge_kernel_size": [2, 2]},
        needs=("torchvision",),
    ),
    "ernie4_5_vl_moe": Shape(
        "ernie4_5_vl_moe",
        image="<|IMAGE_START|><|IMAGE_PLACEHOLDER|><|IMAGE_END|>",
        named={
            "image_token": "<|IMAGE_PLACEHOLDER|>",
            "image_start_token": "<|IMAGE_START|>",
            "image_end_token": "<|IMAGE_END|>",
            "video_token": "<|VIDEO_PLACEHOLDER|>",
            "video_start_token": "<|VIDEO_START|>",
            "video_end_token": "<|VIDEO_END|>",
        },
        config={
            "image_token_id": "<|IMAGE_PLACEHOLDER|>",
            "image_start_token_id": "<|IMAGE_START|>",
            "image_end_token_id": "<|IMAGE_END|>",
            "video_token_id": "<|VIDEO_PLACEHOLDER|>",
            "video_start_token_id": "<|VIDEO_START|>",
            "video_end_token_id": "<|VIDEO_END|>",
            "text_config": {
                "moe_intermediate_size": [64, 32],
                "moe_k": 2,
                "moe_num_experts": 4,
                "mlp_layer_types": ["dense", "sparse"],
                "rope_parameters": {**MROPE, "mrope_section": [3, 3, 2]},
            },
        },
        image_processor=ANY_SIZE,
    ),
    "lfm2_vl": Shape(
        "lfm2_vl",
        named={
            "image_token": "<image>",
            "image_start_token": "<|image_start|>",
            "image_end_token": "<|image_end|>",
            "image_thumbnail_token": "<|img_thumbnail|>",
        },
        config={
            "image_token_id": "<image>",
            "projector_hidden_size": 64,
            "vision_config": {"num_patches": 16},
            "text_config": {"layer_types": ["conv", "full_attention"], "block_auto_adjust_ff_dim": False},
        },
        image_processor={
            "tile_size": TILE,
            "encoder_patch_size": PATCH,
            "min_image_tokens": 1,
            "max_image_tokens": 4,
            "max_num_patches": 16,
            "max_tiles": 4,
            "min_tiles": 2,
        },
        needs=("torchvision",),
    ),
    "lfm3_vl": qwen(
        "lfm3_vl",
        text={"num_hidden_layers": 3, "layer_types": ["conv", "sliding_attention", "full_attention"]},
        vision={"layer_types": ["conv", "full_attention"], "num_key_value_heads": 2},
        more={"projector_hidden_size": 64},
    ),
    "cohere2_vision": Shape(
        "cohere2_vision",
        image="<|IMG_PATCH|>",
        named={
            "image_token": "<|IMG_PATCH|>",
            "boi_token": "<|START_OF_IMG|>",
            "eoi_token": "<|END_OF_IMG|>",
            "img_line_break_token": "<|IMG_LINE_BREAK|>",
        },
        config={
            "image_token_id": "<|IMG_PATCH|>",
            "alignment_intermediate_size": 64,
            "text_config": {"layer_types": WINDOWS},
        },
        image_processor={"size": SQUARE, "patch_size": 2, "max_patches": 4},
        needs=("torchvision",),
    ),
    "aya_vision": Shape(
        "aya_vision",
        tokens=(
            "<image>",
            "<|START_OF_IMG|>",
            "<|END_OF_IMG|>",
            "<|IMG_PATCH|>",
            "<|IMG_LINE_BREAK|>",
            "TILE_GLOBAL",
            *(f"TILE_{n}" for n in range(1, 13)),
        ),
        config={"image_token_index": "<|IMG_PATCH|>", "text_config": {"layer_types": WINDOWS}},
        image_processor={"size": SQUARE, "max_patches": 4, "crop_to_patches": True},
        processor={"patch_size": PATCH, "img_size": TILE, "downsample_factor": 2},
    ),
    "granite4_vision": Shape(
        "granite4_vision",
        tokens=("<image>",),
        config={
            "image_token_index": "<image>",
            "image_grid_pinpoints": GRIDS,
            "spatial_target_layers": [0, 0, 1, 1],
            "deepstack_layer_map": [[-1, 0]],
            "downsample_rate": "1/2",
            "qformer_config": {
                "hidden_size": 64,
                "num_attention_heads": 4,
                "intermediate_size": 64,
                "encoder_hidden_size": 64,
            },
        },
        image_processor={**CROPPED, "image_grid_pinpoints": GRIDS},
        processor={**LLAVA, "downsample_rate": "1/2"},
    ),
    "exaone4_5": qwen(
        "exaone4_5",
        text={"layer_types": WINDOWS},
        vision={"window_size": 40, "fullatt_block_indexes": [1], "num_key_value_heads": 2},
    ),
    "paddleocr_vl": Shape(
        "paddleocr_vl",
        image="<|IMAGE_START|><|IMAGE_PLACEHOLDER|><|IMAGE_END|>",
        tokens=("<|IMAGE_START|>", "<|IMAGE_END|>", "<|VIDEO|>"),
        named={"image_token": "<|IMAGE_PLACEHOLDER|>"},
        config={
            "image_token_id": "<|IMAGE_PLACEHOLDER|>",
            "video_token_id": "<|VIDEO|>",
            "vision_start_token_id": "<|IMAGE_START|>",
            "vision_end_token_id": "<|IMAGE_END|>",
            "text_config": {"rope_parameters": MROPE},
        },
        image_processor=ANY_SIZE,
    ),
    "video_llama_3": qwen("video_llama_3", image_processor={**ANY_SIZE, "merge_size": 1}),
    "perception_lm": Shape(
        "perception_lm",
        named={"image_token": "<|image|>", "video_token": "<|video|>"},
        image="<|image|>",
        config={
            "image_token_id": "<|image|>",
            "video_token_id": "<|video|>",
            "projector_pooling_ratio": 2,
            "vision_config": {
                "architecture": "vit_pe_lang_large_patch14_448",
                "model_args": {
                    "embed_dim": 64,
                    "depth": 2,
                    "num_heads": 4,
                    "img_size": [TILE, TILE],
                    "patch_size": PATCH,
                    "global_pool": "",
                    "use_post_transformer_norm": False,
                    "init_values": 0.1,
                    "ref_feat_shape": [4, 4],
                },
            },
        },
        image_processor={"tile_size": TILE, "max_num_tiles": 4, "vision_input_type": "thumb+tile"},
        processor={"patch_size": PATCH, "pooling_ratio": 2},
        needs=("torchvision", "timm"),
    ),
    "fast_vlm": Shape(
        "fast_vlm",
        tokens=("<image>",),
        config={
            "image_token_index": "<image>",
            "vision_config": {
                "architecture": "fastvit_t8",
                "hidden_size": 768,
                "model_args": {"inference_mode": True},
            },
        },
        image_class="CLIPImageProcessor",
        processor_class="LlavaProcessor",
        image_processor={"size": {"shortest_edge": 64}, "crop_size": {"height": 64, "width": 64}},
        processor={"patch_size": 32, "vision_feature_select_strategy": "full", "num_additional_image_tokens": 0},
        needs=("timm",),
        many_convolutions=True,
    ),
    "step3p7": Shape(
        "step3p7",
        image="<im_patch>",
        tokens=("<im_patch>", "<im_start>", "<im_end>", "<patch_start>", "<patch_end>", "<patch_newline>"),
        config={
            "image_token_id": "<im_patch>",
            "text_config": {
                "layer_types": WINDOWS,
                "mlp_layer_types": ["dense", "sparse"],
                "share_expert_dim": 64,
                "num_sliding_attention_heads": 4,
            },
            "vision_config": {"image_size": 80, "max_position_embeddings": 64, "mlp_ratio": 2.0},
        },
        image_processor={"size": {"height": 80, "width": 80}, "patch_size": TILE, "vision_patch_size": PATCH},
        needs=("torchvision",),
    ),
    "minicpmv4_6": minicpm("minicpmv4_6"),
    "minicpmv4_7": minicpm("minicpmv4_7"),
}
