import json
import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from support.random_models import make_prompts
from visionr1.errors import CheckpointError, DataError, RecipeError
from visionr1.models.loading import load_policy
from visionr1.models.patches import embed_patches
from visionr1.models.policy import Policy
from visionr1.models.saving import save_policy
from visionr1.samples import Query

CAT = Query("detection", ("cat",))


@pytest.fixture
def folder(qwen_folder: Path, tmp_path: Path) -> Path:
    """A copy of a model that a test may spoil."""
    return Path(shutil.copytree(qwen_folder, tmp_path / "model"))


def test_a_prompt_holds_the_image_where_the_template_says(qwen_folder: Path) -> None:
    policy = load_policy(qwen_folder)
    prompt = policy.encode(Image.new("RGB", (120, 80)), CAT)
    patch = policy.image_processor.patch_size
    _, rows, columns = prompt.inputs["image_grid_thw"][0].tolist()
    assert prompt.input_size_wh == (columns * patch, rows * patch)
    is_image = prompt.input_ids == policy.config.image_token_id
    assert int(is_image.sum()) == rows * columns // 4
    assert len(prompt.inputs["pixel_values"]) == rows * columns
    decoded = policy.tokenizer.decode(prompt.input_ids[~is_image])
    assert decoded == prompt.text.replace("<|image_pad|>", "")
    assert "The category set includes cat." in prompt.text
    assert prompt.text.endswith("<|im_start|>assistant\n")


@pytest.mark.parametrize("device", ["gpu", "cuda:99", "tpu:0"])
def test_a_device_that_is_not_there_is_named(qwen3_folder: Path, device: str) -> None:
    with pytest.raises(RecipeError, match=f'device: expected "cpu", .*found {device!r}'):
        load_policy(qwen3_folder, device=device)


def test_a_name_on_the_hub_is_not_downloaded() -> None:
    with pytest.raises(CheckpointError, match=r"no model in Some/Model-3B: .*hf download Some/Model-3B --local-dir"):
        load_policy("Some/Model-3B")


def test_weights_in_a_pickle_are_refused(folder: Path) -> None:
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"cannot load the model in .*safetensors"):
        load_policy(folder)


def test_a_reply_comes_back_as_it_was(model_folder: Path) -> None:
    policy = load_policy(model_folder)
    text = '```json\n[\n\t{"bbox_2d": [1, 20, 300, 44], "label": "gr\N{LATIN SMALL LETTER U WITH DIAERESIS}n"}\n]\n```'
    ids = policy.encode_reply(text)
    assert int(ids[-1]) == policy.eos_ids[0]
    assert policy.decode_reply(ids.tolist()) == text


def test_saved_and_loaded_it_is_the_same(model_folder: Path, tmp_path: Path) -> None:
    policy = load_policy(model_folder)
    save_policy(policy, tmp_path / "again")
    again = load_policy(tmp_path / "again")
    (prompt,) = make_prompts(policy, [(120, 80)])
    (other_prompt,) = make_prompts(again, [(120, 80)])
    assert torch.equal(prompt.input_ids, other_prompt.input_ids)
    assert torch.equal(prompt.inputs["pixel_values"], other_prompt.inputs["pixel_values"])
    for (name, mine), (other_name, other) in zip(
        policy.model.named_parameters(), again.model.named_parameters(), strict=True
    ):
        assert name == other_name
        assert torch.equal(mine, other)
    assert again.dialect is policy.dialect
    assert "visionr1_tree" not in (tmp_path / "again/config.json").read_text(encoding="utf-8")


def test_patches_go_through_a_matrix_product(qwen_folder: Path) -> None:
    policy = load_policy(qwen_folder)
    (prompt,) = make_prompts(policy, [(120, 80)])
    layer = policy.model.model.visual.patch_embed.proj
    assert layer.forward.__func__ is embed_patches
    shape = (-1, layer.in_channels, *layer.kernel_size)
    patches = prompt.inputs["pixel_values"].view(shape)
    expected = torch.nn.Conv3d.forward(layer, patches)
    torch.testing.assert_close(layer(patches), expected, atol=1e-5, rtol=1e-5)

    # Patches that are not cut yet are none of a product's.
    uncut = torch.cat((patches, patches), dim=-1)
    torch.testing.assert_close(layer(uncut), torch.nn.Conv3d.forward(layer, uncut))


def test_the_folder_names_the_dialect_else_the_family(folder: Path) -> None:
    assert load_policy(folder).dialect.name == "qwen25"
    (folder / "visionr1.json").unlink(missing_ok=True)
    model_type = json.loads((folder / "config.json").read_text(encoding="utf-8"))["model_type"]
    assert load_policy(folder).dialect.name == {"qwen2_5_vl": "qwen25", "qwen3_vl": "qwen3"}[model_type]
    assert load_policy(folder, dialect="qwen25").dialect.name == "qwen25"
    (folder / "visionr1.json").write_text('{"dialect": "json:key=bbox,grid=1"}', encoding="utf-8")
    assert load_policy(folder).dialect.name == "json:key=bbox,order=xyxy,grid=1"
    (folder / "visionr1.json").write_text('{"dialect": "json:grid=7"}', encoding="utf-8")
    with pytest.raises(CheckpointError, match=r"visionr1\.json: dialect 'json:grid=7': grid: expected one of 1000, 1"):
        load_policy(folder)
    (folder / "visionr1.json").write_text('{"dialect": "klingon"}', encoding="utf-8")
    with pytest.raises(CheckpointError, match=r"unknown dialect 'klingon'; known: .*qwen25"):
        load_policy(folder)


def test_files_as_the_hub_has_them(qwen25_folder: Path, tmp_path: Path) -> None:
    """Processor settings in the released form, the chat template in a file of its own."""
    folder = Path(shutil.copytree(qwen25_folder, tmp_path / "model"))
    before = load_policy(folder)
    template = folder / "chat_template.jinja"
    chat = {"chat_template": template.read_text(encoding="utf-8")}
    (folder / "chat_template.json").write_text(json.dumps(chat), encoding="utf-8")
    template.unlink()
    processor = before.image_processor
    settings = {
        "min_pixels": processor.size["shortest_edge"],
        "max_pixels": processor.size["longest_edge"],
        "patch_size": processor.patch_size,
        "temporal_patch_size": processor.temporal_patch_size,
        "merge_size": processor.merge_size,
        "image_mean": list(processor.image_mean),
        "image_std": list(processor.image_std),
        "image_processor_type": "Qwen2VLImageProcessor",
        "processor_class": "Qwen2_5_VLProcessor",
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(settings), encoding="utf-8")
    (prompt,) = make_prompts(before, [(120, 80)])
    (same,) = make_prompts(load_policy(folder), [(120, 80)])
    assert torch.equal(prompt.input_ids, same.input_ids)
    torch.testing.assert_close(prompt.inputs["pixel_values"], same.inputs["pixel_values"])


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no model in .*nowhere: config\.json is missing"):
        load_policy(tmp_path / "nowhere")


def test_another_kind_of_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "bert"}', encoding="utf-8")
    with pytest.raises(CheckpointError, match="type 'bert', which reads no images; known best: griffon, internvl, "):
        load_policy(tmp_path)


def test_missing_weights_are_refused(folder: Path) -> None:
    file = folder / "model.safetensors"
    tensors = load_file(file)
    gone = next(name for name in tensors if "mlp" in name)
    save_file({name: tensor for name, tensor in tensors.items() if name != gone}, file, metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=r"do not fit its config\.json.*mlp"):
        load_policy(folder)


def test_a_damaged_weight_file_is_named(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"not weights")
    with pytest.raises(CheckpointError, match="cannot load the model in"):
        load_policy(folder)


def test_no_chat_template(folder: Path) -> None:
    (folder / "chat_template.jinja").unlink()
    with pytest.raises(CheckpointError, match="has no chat template"):
        load_policy(folder)


def test_an_image_too_large_for_the_context(qwen_folder: Path) -> None:
    policy = load_policy(qwen_folder)
    policy.config.get_text_config().max_position_embeddings = 20
    with pytest.raises(
        DataError, match=r"prompt for an image of 120x120 pixels takes \d+ tokens, .*9 of them are the image"
    ):
        policy.encode(Image.new("RGB", (120, 120)), CAT)


def test_an_image_too_thin(qwen_folder: Path) -> None:
    with pytest.raises(DataError, match="the image of 1000x2 pixels cannot be fed"):
        load_policy(qwen_folder).encode(Image.new("RGB", (1000, 2)), CAT)


def test_an_image_token_in_the_query(model_folder: Path) -> None:
    policy = load_policy(model_folder)
    token = policy.tokenizer.convert_ids_to_tokens(policy.config.image_token_id)
    query = Query("referring", (f"the {token} one",))
    with pytest.raises(DataError, match="must hold one image placeholder"):
        policy.encode(Image.new("RGB", (80, 80)), query)


def test_a_run_folder_stands_for_its_final_model(qwen_folder: Path, tmp_path: Path) -> None:
    shutil.copytree(qwen_folder, tmp_path / "run/final")
    assert isinstance(load_policy(tmp_path / "run"), Policy)


def test_no_reply_may_hold_image_or_special_tokens(model_folder: Path) -> None:
    policy = load_policy(model_folder)
    suppressed = set(policy.suppressed_ids.tolist())
    tokenizer, vocabulary = policy.tokenizer, policy.config.get_text_config().vocab_size
    assert {
        tokenizer.convert_tokens_to_ids(t) for t in ("<|image_pad|>", "<|im_start|>", "<|video_pad|>")
    } <= suppressed
    assert set(range(len(tokenizer), vocabulary)) <= suppressed
    assert not suppressed & set(policy.eos_ids)
    logits = policy.logits(torch.zeros(2, policy.config.get_text_config().hidden_size))
    assert logits[:, sorted(suppressed)].isinf().all()
    assert int(logits.isfinite().sum()) == 2 * (vocabulary - len(suppressed))
