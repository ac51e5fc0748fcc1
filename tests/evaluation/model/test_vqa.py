"""The bridge to VLMEvalKit, on a stand-in with the parts of it that the bridge touches; the real one's output: docs."""

import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from PIL import Image

from visionr1 import cli
from visionr1.errors import DataError, MissingDependency, RecipeError
from visionr1.evaluation.model.answerer import Answerer
from visionr1.evaluation.model.vqa import _vlmevalkit_model, answer, describe, evaluate_vqa
from visionr1.models.loading import load_policy


class Column(list[Any]):
    """As much of a pandas column as the bridge uses."""

    @property
    def iloc(self) -> "Column":
        return self


class Frame(dict[str, Any]):
    """As much of a pandas table as the bridge uses."""

    @property
    def columns(self) -> list[str]:
        return list(self)

    def to_dict(self, kind: str) -> list[dict[str, Any]]:
        assert kind == "records"
        return [dict(zip(self, row, strict=True)) for row in zip(*self.values(), strict=True)]


class BaseModel:
    def generate(self, message: list[dict[str, str]], dataset: str | None = None) -> str:
        said: str = self.generate_inner(message, dataset)  # type: ignore[attr-defined]
        return said


class Questions:
    """A benchmark: questions about one image, scored by whether anything was answered."""

    MODALITY, TYPE = "IMAGE", "VQA"

    def __init__(self, dataset: str) -> None:
        self.dataset_name, self.rows = dataset, self.load_data(dataset)

    def __len__(self) -> int:
        return len(self.rows["index"])

    @classmethod
    def supported_datasets(cls) -> list[str]:
        return ["GQA_TestDev_Balanced"]

    def load_data(self, dataset: str) -> Any:
        raise AssertionError("would be downloaded")

    def evaluate(self, file: str, **judge: Any) -> Frame:
        assert judge == {"model": "exact_matching", "nproc": 1}
        said = json.loads(Path(file).read_text())
        return Frame(Overall=Column([100 * sum(map(bool, said)) / len(said)]), split=["all"])


@pytest.fixture
def kit(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    image = tmp_path / "image.png"
    Image.new("RGB", (64, 48), "white").save(image)

    def infer(model: Any, work: str, name: str, dataset: Questions) -> None:
        said = []
        for question in dataset.rows["question"]:
            message = [{"type": "image", "value": str(image)}, {"type": "text", "value": question}]
            said.append(model.generate(message, dataset.dataset_name))
        Path(file_of(work, name, dataset.dataset_name)).write_text(json.dumps(said))

    def file_of(work: str, name: str, dataset: str, use_env_format: bool = True) -> str:
        return f"{work}/{name}_{dataset}.json"

    parts: dict[str, dict[str, Any]] = {
        "vlmeval": {"__version__": "0.2"},
        "vlmeval.dataset": {"build_dataset": lambda name: None, "DATASET_CLASSES": [Questions]},
        "vlmeval.inference": {"infer_data_job": infer},
        "vlmeval.smp": {
            "get_pred_file_path": file_of,
            "load": lambda path: Frame(json.loads(Path(path).read_text())),
        },
        "vlmeval.vlm": {},
        "vlmeval.vlm.base": {"BaseModel": BaseModel},
    }
    for name, attributes in parts.items():
        module = ModuleType(name)
        vars(module).update(attributes)
        monkeypatch.setitem(sys.modules, name, module)
    return tmp_path


def test_a_run_leaves_its_record(qwen25_folder: Path, kit: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tsv = kit / "questions.tsv"
    tsv.write_text(json.dumps({"index": [1, 2], "question": ["What?", "Where {}?"], "answer": ["a", "b"]}))
    command = ["vqa", "GQA_TestDev_Balanced", "--model", str(qwen25_folder), "--out", str(kit), "--tsv", str(tsv)]
    assert cli.main([*command, "--max-new-tokens", "2", "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record == json.loads((kit / f"vqa/{qwen25_folder.name}.GQA_TestDev_Balanced.json").read_text())
    assert record["metrics"] == {"accuracy": 1.0} and record["counts"] == {"questions": 2}
    assert record["protocol"]["name"] == "VLMEvalKit 0.2, GQA_TestDev_Balanced" and record["data"] == str(tsv)
    assert "accuracy 100.0 (2 questions" in describe(record)


def test_what_is_wrong_is_named(qwen25_folder: Path, kit: Path) -> None:
    asked = Answerer(load_policy(qwen25_folder))
    with pytest.raises(RecipeError, match="no image benchmark 'GQA'"):
        evaluate_vqa(asked, "GQA", kit, model="m")
    tsv = kit / "questions.tsv"
    with pytest.raises(DataError, match="found no such file"):
        evaluate_vqa(asked, "GQA_TestDev_Balanced", kit, model="m", tsv=tsv)
    tsv.write_text(json.dumps({"index": [1], "question": ["What?"]}))
    with pytest.raises(RecipeError, match="no benchmark 'GQA'"):
        evaluate_vqa(asked, "GQA", kit, model="m", tsv=tsv)
    with pytest.raises(DataError, match="expected answer among them"):
        evaluate_vqa(asked, "GQA_TestDev_Balanced", kit, model="m", tsv=tsv)
    with pytest.raises(DataError, match="has 0 images; models here look at one"):
        _vlmevalkit_model(asked, 1).generate([{"type": "text", "value": "Why?"}], "GQA")


def test_without_vlmevalkit_it_is_named(monkeypatch: pytest.MonkeyPatch, qwen25_folder: Path, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "vlmeval", None)
    with pytest.raises(MissingDependency, match=r"pip install git\+https://github.com/open-compass/VLMEvalKit"):
        evaluate_vqa(Answerer(load_policy(qwen25_folder)), "GQA_TestDev_Balanced", tmp_path, model="m")


def test_the_question_is_the_whole_instruction(qwen25_folder: Path) -> None:
    policy = load_policy(qwen25_folder)
    asked: list[tuple[tuple[str, ...], str]] = []
    encode = policy.encode

    def listen(image: Any, query: Any, template: str = "") -> Any:
        asked.append((query.categories, template))
        return encode(image, query, template)

    policy.encode = listen  # type: ignore[method-assign]
    assert isinstance(answer(Answerer(policy), Image.new("RGB", (64, 48)), "What is {}?", max_new_tokens=1), str)
    assert asked == [(("What is {}?",), "{}")]
