"""`visionr1 models convert` on Griffon-G's released layout: each weight goes where it belongs, or is named."""

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from support.griffon_release import build_release, make_weights, read_record
from visionr1.cli import main
from visionr1.errors import CheckpointError, MissingDependency
from visionr1.models.conversion.griffon import convert_griffon
from visionr1.models.conversion.weights import find_weights, write_weights
from visionr1.models.loading import load_policy

SHAPES = read_record()["models"]["gemma2"]["shapes"]
CONV = "model.mm_projector.conv.weight"
TOWER = "model.vision_tower.vision_tower.vision_model."


@pytest.fixture
def released(tmp_path: Path) -> Path:
    """A checkpoint around Gemma 2; its CLIP lies beside."""
    return build_release(tmp_path / "released", "gemma2")


def convert(released: Path) -> Path:
    """Convert a checkpoint; return the folder that is made."""
    out = released.parent / "converted"
    convert_griffon(released, released.parent / "clip-tower", out)
    return out


def change_json(path: Path, **changes: Any) -> None:
    """Set keys of a JSON file."""
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def store(released: Path, weights: dict[str, torch.Tensor]) -> None:
    """Store other weights in a checkpoint."""
    save_file(weights, released / "model.safetensors", metadata={"format": "pt"})


def test_weights_keep_values_and_types(released: Path) -> None:
    weights = {name: tensor.bfloat16() for name, tensor in make_weights(SHAPES).items()}
    store(released, weights)
    out = convert(released)
    converted = load_file(out / "model.safetensors")
    assert len(converted) == len(weights)
    pairs = {
        "model.multi_modal_projector.conv.weight": CONV,
        "model.vision_tower.embeddings.class_embedding": f"{TOWER}embeddings.class_embedding",
        "model.language_model.layers.1.mlp.up_proj.weight": "model.layers.1.mlp.up_proj.weight",
    }
    for ours, theirs in pairs.items():
        assert torch.equal(converted[ours], weights[theirs])
    assert json.loads((out / "config.json").read_text())["dtype"] == "bfloat16"
    load_policy(out, dtype="bfloat16")


def test_many_files_are_written_with_an_index(released: Path, tmp_path: Path) -> None:
    weights = find_weights(released)
    write_weights(weights, tmp_path, bytes_a_file=20_000)
    expected = make_weights(SHAPES)
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    assert index["metadata"]["total_size"] == sum(4 * tensor.numel() for tensor in expected.values())
    files = {file: load_file(tmp_path / file) for file in set(index["weight_map"].values())}
    assert len(files) > 3
    assert sorted(files)[0] == f"model-00001-of-{len(files):05d}.safetensors"
    for name, tensor in expected.items():
        assert torch.equal(files[index["weight_map"][name]][name], tensor)


def split_files(released: Path, ending: str) -> dict[str, str]:
    """Split the weights into two files with an index, as large checkpoints are; return which file has which."""
    weights = make_weights(SHAPES)
    (released / "model.safetensors").unlink()
    files = {}
    for number in (1, 2):
        part = {name: weights[name] for name in list(weights)[number - 1 :: 2]}
        if ending == "safetensors":
            file = f"model-0000{number}-of-00002.safetensors"
            save_file(part, released / file)
        else:
            file = f"pytorch_model-0000{number}-of-00002.bin"
            torch.save(part, released / file)
        files.update(dict.fromkeys(part, file))
    whole = "model.safetensors" if ending == "safetensors" else "pytorch_model.bin"
    (released / f"{whole}.index.json").write_text(json.dumps({"metadata": {}, "weight_map": files}))
    return files


@pytest.mark.parametrize("ending", ["safetensors", "bin"])
def test_every_way_of_storing_gives_the_same_model(released: Path, ending: str) -> None:
    expected = load_file(convert(released) / "model.safetensors")
    (released.parent / "converted").rename(released.parent / "from_one_file")
    split_files(released, ending)
    converted = load_file(convert(released) / "model.safetensors")
    assert converted.keys() == expected.keys()
    assert all(torch.equal(converted[name], expected[name]) for name in expected)


@pytest.mark.parametrize("ending", ["safetensors", "bin"])
def test_a_missing_file_is_named(released: Path, ending: str) -> None:
    lost = sorted(set(split_files(released, ending).values()))[1]
    (released / lost).unlink()
    with pytest.raises(CheckpointError, match=f"{lost}: the file is missing"):
        convert(released)


def test_a_tower_that_was_not_trained_comes_from_clip(released: Path) -> None:
    weights = make_weights(SHAPES)
    tower = {name: tensor for name, tensor in weights.items() if name.startswith(TOWER)}
    store(released, {name: tensor for name, tensor in weights.items() if name not in tower})
    with pytest.raises(CheckpointError, match=r"clip-tower/pytorch_model\.bin: the file is missing"):
        convert(released)

    # As in CLIP's own folder, beside the weights of its text tower.
    clip = {"vision_model." + name.removeprefix(TOWER): tensor for name, tensor in tower.items()}
    clip["vision_model.embeddings.position_ids"] = torch.arange(50)[None]
    torch.save({**clip, "text_projection.weight": torch.ones(2)}, released.parent / "clip-tower/pytorch_model.bin")
    converted = load_file(convert(released) / "model.safetensors")
    name = "encoder.layers.0.mlp.fc1.weight"
    assert torch.equal(converted[f"model.vision_tower.{name}"], tower[TOWER + name])


def test_weights_for_images_as_prompts_are_left_out_and_counted(
    released: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prompts = {
        "model.prompt_visual_encoder.vision_model.x": torch.ones(1),
        "model.prompt_projector.0.bias": torch.ones(1),
    }
    store(released, {**make_weights(SHAPES), **prompts})
    out = released.parent / "converted"
    command = ["models", "convert", str(released), str(out), "--vision-tower", str(released.parent / "clip-tower")]
    assert main(command) == 0
    assert "left out: 2 weights for images as prompts" in capsys.readouterr().out
    assert main(command) == 2
    assert "expected a new folder" in capsys.readouterr().err


def test_every_wrong_weight_is_named(released: Path) -> None:
    weights = make_weights(SHAPES)
    del weights["model.norm.weight"], weights[f"{TOWER}embeddings.class_embedding"]
    weights[CONV] = torch.zeros(32, 32, 5, 5)
    weights["model.mm_projector.linear.bias"] = torch.zeros(32, dtype=torch.int8)
    weights["model.image_reg_output.weight"] = torch.zeros(1)
    store(released, weights)
    with pytest.raises(CheckpointError) as caught:
        convert(released)
    assert {line.strip() for line in str(caught.value).splitlines()[1:]} == {
        "missing: model.norm.weight",
        f"missing: {TOWER}embeddings.class_embedding",
        f"{CONV}: expected shape (32, 32, 3, 3) of BF16, F16, F32, found (32, 32, 5, 5) of F32",
        "model.mm_projector.linear.bias: expected shape (32,) of BF16, F16, F32, found (32,) of I8",
        "not expected: model.image_reg_output.weight",
    }
    assert not (released.parent / "converted").exists()


@pytest.mark.parametrize("same", [True, False])
def test_an_output_layer_beside_the_embeddings_it_is_tied_to(released: Path, same: bool) -> None:
    weights = make_weights(SHAPES)
    weights["lm_head.weight"] = weights["model.embed_tokens.weight"] + (0 if same else 1)
    store(released, weights)
    if same:
        assert "lm_head.weight" not in load_file(convert(released) / "model.safetensors")
    else:
        with pytest.raises(CheckpointError, match=r"ties lm_head\.weight to model\.embed_tokens\.weight"):
            convert(released)


class Program:
    """What runs a program when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("save", ["torch.save", "pickle"])
def test_a_file_with_code_in_it_is_refused(released: Path, save: str) -> None:
    mark = released.parent / "it_ran"
    content = {**make_weights(SHAPES), "model.x": Program(mark)}
    (released / "model.safetensors").unlink()
    path = released / "pytorch_model.bin"
    if save == "pickle":
        path.write_bytes(pickle.dumps(content))
    else:
        torch.save(content, path)
    with pytest.raises(CheckpointError, match=r"pytorch_model\.bin: expected tensors by name and nothing else"):
        convert(released)
    assert not mark.exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([torch.ones(1)], "expected tensors by name, found"),
        ({"model.norm.weight": [1.0]}, r"expected tensors by name, found \[1\.0\] by 'model\.norm\.weight'"),
        ({7: torch.ones(1)}, "by 7"),
        ({"model.norm.weight": torch.ones(32).to_sparse()}, "found one of torch.sparse_coo on cpu"),
        ({"model.norm.weight": torch.ones(32, device="meta")}, "found one of torch.strided on meta"),
    ],
)
def test_a_file_of_other_things_than_tensors_is_refused(released: Path, content: object, message: str) -> None:
    (released / "model.safetensors").unlink()
    torch.save(content, released / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match=message):
        convert(released)


def test_parameters_are_weights(released: Path) -> None:
    """As some programs save them: with a gradient to come."""
    weights = {name: torch.nn.Parameter(tensor) for name, tensor in make_weights(SHAPES).items()}
    (released / "model.safetensors").unlink()
    torch.save(weights, released / "pytorch_model.bin")
    converted = load_file(convert(released) / "model.safetensors")
    assert torch.equal(converted["model.multi_modal_projector.conv.weight"], weights[CONV])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "llava"}, 'model_type: expected one of "gemma2_Griffon"'),
        ({"mm_projector_type": "linear"}, 'mm_projector_type: expected one of "conv_reduce"'),
        ({"mm_use_im_start_end": True}, "mm_use_im_start_end: expected one of false"),
        ({"image_aspect_ratio": "pad"}, 'image_aspect_ratio: expected one of "square"'),
        ({"mm_vision_select_layer": "-2"}, "mm_vision_select_layer: expected the number of a layer"),
        ({"num_hidden_layers": 10**9}, "num_hidden_layers: expected a number of layers"),
        ({"_attn_implementation": "someone/kernel"}, "names code on the hub"),
        ({"vocab_size": 3}, "expected it to have the token <unused0>"),
    ],
)
def test_other_settings_are_named(released: Path, changes: dict[str, Any], message: str) -> None:
    change_json(released / "config.json", **changes)
    with pytest.raises(CheckpointError, match=message):
        convert(released)


def test_a_processor_of_another_size_is_named(released: Path) -> None:
    change_json(released.parent / "clip-tower/preprocessor_config.json", crop_size={"height": 336, "width": 336})
    with pytest.raises(CheckpointError, match="crop_size: expected 98, the image_size of the vision tower"):
        convert(released)


def test_a_tokenizer_that_needs_sentencepiece_says_so(released: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("visionr1.models.folder.processor.find_spec", lambda name: None)
    (released / "tokenizer.json").rename(released / "tokenizer.model")
    with pytest.raises(MissingDependency, match="pip install sentencepiece"):
        convert(released)
