"""Predicting and evaluating with a random model of each family, through the command line too."""

import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import ExifTags, Image

from support.random_models import sharpen
from visionr1 import cli
from visionr1.data import BoxDataset, data_path, read_coco
from visionr1.errors import DataError
from visionr1.evaluation import Prediction, Replies, ReplyLog, Result, Shard, evaluate, read_protocol
from visionr1.evaluation.asking import Asking, collect_replies
from visionr1.evaluation.runner import Model, predict_image, predict_samples
from visionr1.models.loading import load_policy
from visionr1.models.policy import Policy
from visionr1.models.prompts import Prompt
from visionr1.report.draw import draw_boxes
from visionr1.samples import Query, Sample

LIMIT = 20


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> BoxDataset:
    """The first three test images of BCCD, copied beside their boxes."""
    folder = data_path("bccd") / "test"
    rows = json.loads((folder / "annotations_without_background.json").read_text())
    rows["images"] = rows["images"][:3]
    kept = {row["id"] for row in rows["images"]}
    rows["annotations"] = [row for row in rows["annotations"] if row["image_id"] in kept]
    file = tmp_path_factory.mktemp("few") / "few.json"
    file.write_text(json.dumps(rows))
    for row in rows["images"]:
        shutil.copy(folder / row["file_name"], file.parent)
    return read_coco(file)


def test_replies_do_not_depend_on_the_batch(model_folder: Path, few: BoxDataset) -> None:
    policy = sharpen(load_policy(model_folder))
    seen: list[tuple[int, int]] = []
    one = predict_samples(policy, few.samples, max_new_tokens=LIMIT, batch_size=1)
    all_at_once = predict_samples(
        policy, few.samples, max_new_tokens=LIMIT, batch_size=2, progress=lambda done, total: seen.append((done, total))
    )
    for alone, beside in zip(one, all_at_once, strict=True):
        assert replace(alone, token_logprobs=()) == replace(beside, token_logprobs=())
        assert alone.token_logprobs == pytest.approx(beside.token_logprobs, abs=1e-3)
    assert seen == [(2, 3), (3, 3)]
    assert [prediction.sample_id for prediction in one] == [sample.id for sample in few.samples]
    assert all(prediction.input_size_wh for prediction in one)


def test_a_model_is_evaluated_under_the_default_protocol(qwen25_folder: Path, few: BoxDataset) -> None:
    evaluation = evaluate(few, Model(qwen25_folder, max_new_tokens=LIMIT))
    result, (predictions,) = evaluation.result, evaluation.predictions.values()
    assert len(predictions) == 3 and result.counts["replies"] == 3
    assert result.protocol.name == "default" and result.protocol.max_new_tokens == LIMIT
    assert result.counts["true_boxes"] == len(few.table.xywh)


def test_one_prompt_per_present_category_is_really_asked(qwen25_folder: Path, few: BoxDataset) -> None:
    policy = load_policy(qwen25_folder)
    asked: list[tuple[str, ...]] = []
    encode = policy.encode

    def listen(image: Image.Image, query: Query, template: str = "") -> Prompt:
        asked.append(query.categories)
        assert template == protocol.template
        return encode(image, query, template)

    policy.encode = listen  # type: ignore[method-assign]
    protocol = read_protocol(["vision_r1_odinw", "template=Find {}."])
    evaluation = evaluate(few, Model(policy, name="m", max_new_tokens=2), protocol=protocol)
    result, (predictions,) = evaluation.result, evaluation.predictions.values()
    present = [(name,) for s in few.samples for name in s.query.categories if name in s.truth.labels]
    assert asked == present and [p.categories for p in predictions] == present
    assert result.counts["replies"] == result.counts["categories_asked"] == len(present) < 9
    assert result.counts["images"] == 3 and result.protocol.max_new_tokens == 2
    protocol = read_protocol(["vision_r1_odinw", "categories=all", "max_new_tokens=1"])
    asked.clear()
    assert evaluate(few, Model(policy, name="m"), protocol=protocol).result.protocol.max_new_tokens == 1
    assert asked == [(name,) for s in few.samples for name in s.query.categories]


def test_eval_leaves_its_result_and_replies_which_score_the_same(
    qwen25_folder: Path, few: BoxDataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = str(few.table.path)
    model = ["--model", str(qwen25_folder), "--max-new-tokens", str(LIMIT), "--out", str(tmp_path)]
    assert cli.main(["eval", *model, "--data", data, "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    record = json.loads((tmp_path / f"evaluation/{qwen25_folder.name}.json").read_text())
    assert record["model"] == str(qwen25_folder) and record["data"] == data
    assert {key: record[key] for key in printed} == printed
    replies = tmp_path / f"evaluation/{qwen25_folder.name}.predictions.jsonl"
    assert cli.main(["eval", "--predictions", str(replies), "--data", data, "--dialect", "qwen25", "--json"]) == 0
    again = json.loads(capsys.readouterr().out)
    assert again["coco"] == printed["coco"] and again["counts"] == printed["counts"]
    assert Result.from_json(again).interval == Result.from_json(printed).interval


def test_predict_draws_and_prints_json(qwen25_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    Image.new("RGB", (48, 64), "white").save(tmp_path / "photo.png", exif=exif)  # a camera held upright
    out = tmp_path / "drawn.png"
    said = ["predict", str(tmp_path / "photo.png"), "--categories", "cat, dog", "--model", str(qwen25_folder)]
    assert cli.main([*said, "--out", str(out), "--max-new-tokens", str(LIMIT)]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["size_wh"] == [64, 48] and record["drawn"] == str(out) and isinstance(record["boxes"], list)
    assert Image.open(out).format == "PNG"


def test_boxes_that_were_not_asked_for_are_apart_and_not_drawn(
    qwen25_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def replies(policy: Policy, samples: Sequence[Sample], **_: Any) -> list[Prediction]:
        items = [{"bbox_2d": [4, 4, 30, 20], "label": " Cat"}, {"bbox_2d": [40, 10, 60, 40], "label": "dog"}]
        return [Prediction(sample_id="", image_id="", text=json.dumps(items), input_size_wh=(64, 48))]

    monkeypatch.setattr("visionr1.evaluation.runner.predict_samples", replies)
    Image.new("RGB", (64, 48), "white").save(tmp_path / "photo.png")
    sample, boxes, record = predict_image(load_policy(qwen25_folder), tmp_path / "photo.png", ["cat"])
    drawn = draw_boxes(sample.load_image(), boxes, categories=["cat"])
    assert record["boxes"] == [{"xyxy": [4, 4, 30, 20], "label": " Cat"}]
    assert record["not_asked_for"] == [{"xyxy": [40, 10, 60, 40], "label": "dog"}]
    white = (255, 255, 255)
    assert drawn.crop((0, 0, drawn.width // 2, drawn.height)).getcolors() != [(320 * 480, white)]
    assert {color for _, color in drawn.crop((340, 0, 640, 480)).getcolors() or ()} == {white}


@pytest.mark.parametrize(
    ("said", "message"),
    [
        (["predict", "none.png", "--categories", "cat"], "none.png: cannot read this image"),  # before any model loads
        (["predict", "none.png", "--categories", " , "], "--categories: expected names"),
        (["predict", "none.png", "--categories", "cat,dog, Cat"], "--categories: expected each name once"),
        (["predict", ".", "--categories", "cat"], ". is a folder; predict takes one image"),
        (["eval", "--model", "nowhere", "--data", "nowhere"], "no such file or folder"),
        (["eval", "--predictions", "nowhere.json", "--data", "bccd"], "nowhere.json"),
    ],
)
def test_users_errors(said: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(said) == 2
    assert message in capsys.readouterr().err


def test_a_drawing_never_replaces_its_photo(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    photo = tmp_path / "photo.png"
    Image.new("RGB", (64, 48), "white").save(photo)
    before = photo.read_bytes()
    for out in (photo, tmp_path / "x" / ".." / "photo.png", tmp_path / "drawn.jpg"):
        (tmp_path / "x").mkdir(exist_ok=True)
        assert cli.main(["predict", str(photo), "--categories", "cat", "--model", "nowhere", "--out", str(out)]) == 2
        assert "--out: expected a .png file other than the image itself" in capsys.readouterr().err
    assert photo.read_bytes() == before


def test_weights_of_another_precision_are_stated(
    qwen25_folder: Path, few: BoxDataset, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ["--model", str(qwen25_folder), "--data", str(few.table.path), "--max-new-tokens", "2"]
    assert cli.main(["eval", *asked, "--dtype", "bfloat16", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["protocol"]["dtype"] == "bfloat16"


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """A folder for replies. In one beside it, where an evaluation looks for some of its own, are a pipe without a
    writer and a row nested too deep."""
    other = tmp_path / "sets" / "other"
    other.mkdir(parents=True)
    os.mkfifo(other / "pipe.jsonl")
    (other / "deep.jsonl").write_text("[" * 100_000)
    return tmp_path / "sets" / "out"


def test_an_evaluation_that_was_stopped_goes_on(
    qwen25_folder: Path, few: BoxDataset, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = load_policy(qwen25_folder)
    model = Model(policy, name="m")
    asking = Asking.of(model, few.samples, read_protocol(["max_new_tokens=3"]))
    facts = {"model": "m", "data": "few", "split": None}
    whole = collect_replies(model, asking)
    one = collect_replies(
        Model(policy, name="m", batch_size=1), asking, log=ReplyLog(out, "m", facts), shard=Shard(2, 2)
    )
    assert [reply.text for reply in one] == [whole[1].text]
    part = out / "m.part-2-of-2.jsonl"
    part.write_text(part.read_text() + '{"sample_id": "cut o')
    asked: list[str] = []

    def listen(_: object, samples: Sequence[Sample], **options: Any) -> list[Prediction]:
        asked.extend(sample.id for sample in samples)
        return predict_samples(policy, samples, **options)

    monkeypatch.setattr("visionr1.evaluation.runner.predict_samples", listen)
    both = collect_replies(model, asking, log=ReplyLog(out, "m", facts), shard=Shard(2, 2))
    assert both == one and asked == []  # the cut-off row is gone, the whole one is kept
    log = ReplyLog(out, "m", facts)
    assert [reply.text for reply in collect_replies(model, asking, log=log)] == [reply.text for reply in whole]
    assert asked == [few.samples[0].id, few.samples[2].id]
    assert evaluate(few, Replies(whole, policy.dialect), num_resamples=0).result.counts["replies"] == 3
    other = Asking.of(model, few.samples, read_protocol(["max_new_tokens=4"]))
    with pytest.raises(DataError, match="replies of another evaluation: max_new_tokens: expected 4, found 3"):
        collect_replies(model, other, log=ReplyLog(out, "m", facts))
    with pytest.raises(DataError, match='data: expected "many", found "few"'):
        collect_replies(model, asking, log=ReplyLog(out, "m", {**facts, "data": "many"}))
    asking = Asking.of(Model(qwen25_folder, dtype="bfloat16"), few.samples, read_protocol(["max_new_tokens=3"]))
    with pytest.raises(DataError, match='another evaluation: dtype: expected "bfloat16", found "float32"'):
        collect_replies(model, asking, log=ReplyLog(out, "m", facts))
    policy.image_processor.size = {"shortest_edge": 56 * 56, "longest_edge": 99 * 99}
    asking = Asking.of(model, few.samples, read_protocol(["max_new_tokens=3"]))
    with pytest.raises(DataError, match="another evaluation: image_processor"):
        collect_replies(model, asking, log=ReplyLog(out, "m", facts))
    with torch.no_grad():
        next(iter(policy.model.parameters())).add_(1)
    with pytest.raises(DataError, match="another evaluation: weights"):
        collect_replies(model, asking, log=ReplyLog(out, "m", facts))
    (out / "m.part-1-of-1.jsonl").write_text("no header\n")
    with pytest.raises(DataError, match="is no part of an evaluation"):
        collect_replies(model, asking, log=ReplyLog(out, "m", facts))
    log.remove()
    assert not list(out.iterdir())


def test_a_finished_evaluation_is_neither_asked_again_nor_replaced(
    qwen25_folder: Path,
    few: BoxDataset,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[str] = []

    def listen(policy: Policy, samples: Sequence[Sample], **options: Any) -> list[Prediction]:
        asked.extend(sample.id for sample in samples)
        return predict_samples(policy, samples, **options)

    monkeypatch.setattr("visionr1.evaluation.runner.predict_samples", listen)
    command = ["eval", "--model", str(qwen25_folder), "--data", str(few.table.path), "--out", str(tmp_path)]
    command += ["--resamples", "2"]
    name = qwen25_folder.name
    path = tmp_path / f"evaluation/{name}.json"
    assert cli.main([*command, "--max-new-tokens", "3"]) == 0
    assert len(asked) == 3 and f"stored: {path}" in capsys.readouterr().err
    before, said = path.read_bytes(), path.with_name(f"{name}.predictions.jsonl").read_bytes()
    asked.clear()
    for more in (
        [],
        ["--protocol", "default"],
        ["--protocol", "scores=rank"],
        ["--protocol", "qwen3vl", "--protocol", "template=Find {}."],  # asks in other words, so this one is asked
        ["--scores", "constant,token"],
        ["--shard", "2/2"],
    ):
        assert cli.main([*command, "--max-new-tokens", "3", *more]) == 0
        assert len(asked) == (3 if "qwen3vl" in more else 0)
        asked.clear()
        assert path.read_bytes() == before and path.with_name(f"{name}.predictions.jsonl").read_bytes() == said
    names = [f"{name}{more}" for more in ("", "-scores=rank", "-qwen3vl-template=Find_.", "-constant", "-token")]
    assert {file.stem for file in path.parent.glob("*.json")} == set(names)
    capsys.readouterr()
    stored = [str(path), str(path.with_name(f"{name}-constant.json"))]
    assert cli.main(["compare", *stored, str(path.with_name(f"{name}-scores=rank.json")), "--resamples", "2"]) == 0
    text = capsys.readouterr().out
    assert f"{name}-constant - {name}: paired over the images" in text and f"{name}-scores=rank *" in text
    assert cli.main(["report", str(tmp_path)]) == 0
    capsys.readouterr()
    assert cli.main([*command, "--max-new-tokens", "4"]) == 2
    error = capsys.readouterr().err
    assert f"{name}.predictions.jsonl holds replies of another evaluation: max_new_tokens: expected 4, found 3" in error
    assert asked == [] and path.read_bytes() == before


def test_a_limited_evaluation_says_so_everywhere(
    qwen25_folder: Path, few: BoxDataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = ["--model", str(qwen25_folder), "--data", str(few.table.path), "--max-new-tokens", "3"]
    command = ["eval", *model, "--out", str(tmp_path), "--resamples", "2"]
    assert cli.main([*command, "--limit", "2"]) == 0
    text, name = capsys.readouterr().out, qwen25_folder.name
    assert "protocol default with limit=2: 2 evenly spaced images alone; qwen25, " in text and "\n2 images; " in text
    limited = tmp_path / f"evaluation/{name}-limit=2.json"
    rows = limited.with_suffix(".predictions.jsonl").read_text().splitlines()[1:]
    assert [json.loads(row)["image_id"] for row in rows] == [few.table.image_ids[0], few.table.image_ids[2]]
    assert cli.main(command) == 0
    assert cli.main([*command, "--limit", "2", "--protocol", "scores=rank"]) == 0
    capsys.readouterr()
    stored = [limited, tmp_path / f"evaluation/{name}.json", limited.with_name(f"{name}-scores=rank-limit=2.json")]
    assert cli.main(["compare", *map(str, stored), "--resamples", "2"]) == 0
    assert f"{name} - {name}-limit=2: no difference: other data" in capsys.readouterr().out
    (tmp_path / "copy").mkdir()
    for file in tmp_path.glob(f"evaluation/{name}-limit=2.*"):
        (tmp_path / "copy" / file.name).write_bytes(file.read_bytes())
    assert cli.main(["compare", str(limited), str(tmp_path / f"copy/{name}-limit=2.json"), "--resamples", "2"]) == 0
    assert "paired over the images" in capsys.readouterr().out  # both computed anew, of the same two images
    assert cli.main(["eval", "--predictions", "x.json", "--data", "bccd", "--limit", "2"]) == 2
    assert "--limit is for a --model on one data set" in capsys.readouterr().err


def test_shards_and_scores_through_the_command_line(
    qwen25_folder: Path, few: BoxDataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ["--model", str(qwen25_folder), "--data", str(few.table.path), "--max-new-tokens", "3"]
    command = ["eval", *asked, "--out", str(tmp_path), "--resamples", "0"]
    assert cli.main([*command, "--shard", "1/2"]) == 0
    assert "2 of 3 replies are in" in capsys.readouterr().out
    assert cli.main([*command, "--shard", "2/2"]) == 0
    assert "the same command without --shard scores them" in capsys.readouterr().out
    assert cli.main([*command, "--scores", "constant,rank,token"]) == 0
    assert "token *" in capsys.readouterr().out
    left = sorted(path.name for path in (tmp_path / "evaluation").iterdir())
    name = qwen25_folder.name
    assert left == sorted(
        f"{name}-{scores}.{ending}"
        for scores in ("constant", "rank", "token")
        for ending in ("json", "predictions.jsonl")
    )
    row = json.loads((tmp_path / f"evaluation/{name}-token.predictions.jsonl").read_text().splitlines()[1])
    assert len(row["token_ends"]) == len(row["token_logprobs"]) and row["token_ends"][-1] == len(row["text"])
    for wrong in (["--shard", "3/2"], ["--shard", "x"]):
        assert cli.main([*command, *wrong]) == 2
        assert "--shard: expected a part such as 2/8" in capsys.readouterr().err
    assert cli.main(["eval", *asked, "--shard", "1/2"]) == 2
    assert "--shard needs --model, and --out" in capsys.readouterr().err
