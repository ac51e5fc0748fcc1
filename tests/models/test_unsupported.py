"""Model types that cannot be trained are refused by name; those that nobody tried are named as such."""

import importlib.util
import json
import logging
from pathlib import Path

import pytest
from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES

from support.family_builder import build_family, write_files
from support.more_shapes import ALL_SHAPES
from visionr1.errors import CheckpointError, MissingDependency
from visionr1.models.loading import load_encoder, load_policy
from visionr1.models.supported import read_families
from visionr1.models.unsupported import ELSEWHERE, UNSUPPORTED, check_supported, warn_if_untested


@pytest.mark.parametrize("model_type", UNSUPPORTED)
def test_a_type_is_refused_before_anything_else_is_read(model_type: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": model_type}), encoding="utf-8")
    with pytest.raises(CheckpointError) as refusal:
        load_policy(tmp_path)
    expected = f"{tmp_path}: models of type {model_type!r} are not supported: {UNSUPPORTED[model_type]}; see"
    assert str(refusal.value).startswith(expected)


class Model:
    """A model without a language model where others have it."""

    class config:
        model_type = "new"
        is_encoder_decoder = False


def test_a_type_of_a_later_transformers_is_refused_for_what_it_lacks(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=f"models of type 'new' are not supported: {ELSEWHERE}"):
        check_supported(Model(), tmp_path)


def test_every_type_of_transformers_is_listed() -> None:
    status = {row["model_type"]: row["status"] for row in read_families()}
    assert set(MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES) <= set(status)
    for model_type, reason in UNSUPPORTED.items():
        assert status[model_type] == f"refused: {reason}"


def test_every_built_family_was_measured() -> None:
    rows = {row["family"]: row for row in read_families()}
    for name, shape in ALL_SHAPES.items():
        assert rows[name]["status"] == "ok"
        assert rows[name]["needs"] == list(shape.needs)


def test_an_untested_type_is_named_once_it_is_loaded(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        warn_if_untested("qwen3_5")
        assert not caplog.records
        warn_if_untested("muse_spark")
    assert "models of type 'muse_spark' were not compared with transformers' own forward pass" in caplog.text


NEEDY = [name for name, shape in ALL_SHAPES.items() if shape.needs]


@pytest.mark.parametrize("name", NEEDY)
def test_a_missing_package_is_named_with_its_command(name: str, qwen3_folder: Path, tmp_path: Path) -> None:
    shape = ALL_SHAPES[name]
    missing = [package for package in shape.needs if importlib.util.find_spec(package) is None]
    if missing != list(shape.needs):
        pytest.skip("a package that it needs is installed")
    if shape.model_type not in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES:
        pytest.skip("this transformers does not have it")
    write_files(tmp_path / name, qwen3_folder, shape)
    with pytest.raises(
        MissingDependency, match=rf"needs ({'|'.join(missing)}), which is not installed: pip install \1"
    ):
        load_encoder(tmp_path / name)


def test_weights_that_do_not_fit_are_counted(qwen3_folder: Path, tmp_path: Path) -> None:
    folder = build_family(tmp_path / "llava", qwen3_folder, ALL_SHAPES["llava"])
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config["text_config"]["num_hidden_layers"] = 4
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    with pytest.raises(CheckpointError, match=r"do not fit its config\.json: missing_keys: \d+, such as '[\w.]+'$"):
        load_policy(folder)
