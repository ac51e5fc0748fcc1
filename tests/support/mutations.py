"""Foreign values put into single fields of a run's files and of stored results, as files that come from anywhere."""

import json
import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from PIL import Image

from visionr1.cli import main
from visionr1.evaluation import DEFAULT

HOSTILE: list[Any] = [
    None,
    True,
    0,
    -1,
    7,
    0.5,
    1e30,
    10**400,
    float("nan"),
    float("inf"),
    "",
    "x",
    "\ud800",
    "../../etc/passwd",
    "\x1b[31m\nerror: all fine",
    [],
    [[]],
    [None],
    ["x", 3],
    [0, 240],
    {},
    {"x": None},
    {"a": {"b": []}},
]
GONE = object()
"""The field is not there."""
FIGURES = ("AP", "AP50", "AP75", "AP strict", "precision", "recall", "F1")


def write_run(folder: Path) -> Path:
    """Write a whole run folder with two results of `eval`, a benchmark and a record of `vqa`, on a set of its own."""
    data = folder.parent / "boxes"
    data.mkdir(parents=True)
    images, annotations, replies = [], [], []
    for number in range(1, 4):
        Image.new("RGB", (64, 48), (40 * number, 90, 120)).save(data / f"{number}.png")
        images.append({"id": number, "file_name": f"{number}.png", "width": 64, "height": 48})
        annotations.append({"id": number, "image_id": number, "category_id": 1, "bbox": [8, 8, 32, 24]})
        text = f'[{{"bbox_2d": [{8 * number}, 8, 40, 32], "label": "cat"}}]'
        replies.append({"sample_id": str(number), "image_id": number, "text": text, "input_size_wh": [64, 48]})
    content = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "cat"}]}
    (data / "_annotations.coco.json").write_text(json.dumps(content))

    folder.mkdir()
    record = write_results(folder, data, replies)
    write_records(folder, record)
    write_logs(folder)
    return folder


def write_results(folder: Path, data: Path, replies: list[Any]) -> dict[str, Any]:
    """Write two results of `eval`, as of a model; return the record of the last."""
    record: dict[str, Any] = {}
    dump_rows(folder.parent / "base.jsonl", replies)
    dump_rows(folder.parent / "trained.jsonl", replies[::-1])
    for name in ("base", "trained"):
        command = ["eval", "--data", str(data), "--predictions", str(folder.parent / f"{name}.jsonl")]
        command += ["--dialect", "qwen25", "--resamples", "5", "--out", str(folder)]
        assert main(command) == 0
        result = folder / f"evaluation/{name}.json"
        record = json.loads(result.read_text())
        record["model"] = name
        del record["prediction_files"]
        result.write_text(json.dumps(record))
        dump_rows(result.with_suffix(".predictions.jsonl"), [{"replies_of": {"dialect": "qwen25"}}, *replies])
    return record


def write_records(folder: Path, record: dict[str, Any]) -> None:
    """Write the results of a benchmark, of `vqa` and of a demo."""
    # Without a folder of its own, so that it is read as the record of a benchmark.
    whole = {"benchmark": "odinw", "mean": {"AP": 0.5}, "missing": ["x"], "notes": ["y"], "results": {"a": record}}
    (folder / "odinw.json").write_text(json.dumps(whole))
    (folder / "vqa").mkdir()
    vqa = {"benchmark": "GQA", "model": "m", "metrics": {"accuracy": 0.5}, "counts": {"questions": 4}, "protocol": {}}
    (folder / "vqa/GQA.json").write_text(json.dumps({**vqa, "by_split": [{"split": "a", "accuracy": 0.5}]}))
    gain = {"gain": {"AP": {"difference": 0.066, "interval": [-0.004, 0.09]}}}
    (folder / "results.json").write_text(json.dumps(gain))


def write_logs(folder: Path) -> None:
    """Write what training leaves."""
    metrics = {"loss": 0.1, "reward/total": 2.0, "reward/recall": 0.5, "kl": 0.1, "seconds/update": 1.0}
    metrics |= {"phase": "train", "progress": 0.5, "watch/duplicates": 0.1, "skipped_samples": 1}
    stages = [[0.5, 0.5, 0.75]] * 2 + [[0.75, 0.75, 0.9]] * 2
    rows = [{"step": step, "stage": stage, **metrics} for step, stage in enumerate(stages, 1)]
    dump_rows(folder / "metrics.jsonl", rows)
    validation = {
        **dict.fromkeys(FIGURES, 0.3),
        "source": "boxes",
        "split": "",
        "images": 3,
        "faults": {"truncated": 1},
    }
    validation |= {"counts": {"replies": 3, "well_formed": 2, "truncated": 1}, "protocol": DEFAULT.to_json()}
    dump_rows(folder / "evaluations.jsonl", [{"step": step, **validation} for step in (2, 4)])
    rollout = {"sample_id": "1", "image_id": 1, "text": "[]", "recall": 0.5, "advantage": 0.7, "num_tokens": 4}
    rollout |= {"truncated": False, "index": 0, "boxes": [[1, 1, 9, 9]], "labels": ["cat"], "categories": ["cat"]}
    rollout |= {"width": 64, "height": 48, "input_width": 64, "input_height": 48}
    dump_rows(folder / "rollouts.jsonl", [{"step": step, "total": 1.0, **rollout} for step in (1, 2, 3, 4)])
    recipe = 'method = "grpo"\n[model]\npath = "base"\n[eval]\nmetric = "AP"\n[[phase]]\n[[phase.data]]\nsource = "b"\n'
    (folder / "recipe.toml").write_text(recipe)
    (folder / "versions.json").write_text(json.dumps({"python": "3.11", "cpus": 2, "command": "visionr1 train"}))


def dump_rows(path: Path, rows: list[Any]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the path of every value inside `value`."""
    items: Any = ()
    if isinstance(value, dict):
        items = value.items()
    elif isinstance(value, list):
        items = enumerate(value)
    for key, inner in items:
        yield (*path, key)
        yield from places(inner, (*path, key))


def change(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    """Return a copy of `value` with `new` at `path`, or nothing there if it is GONE."""
    copy = json.loads(json.dumps(value))
    node = copy
    for key in path[:-1]:
        node = node[key]
    if new is GONE:
        del node[path[-1]]
    else:
        node[path[-1]] = new
    return copy


def mutate_file(file: Path, draw: random.Random) -> str:
    """Change one field of a JSON or JSON Lines file, or one line of another; return what was changed."""
    text = file.read_text()
    if file.suffix == ".json":
        value = json.loads(text)
        path = draw.choice([(), *places(value)])
        new = draw.choice([*HOSTILE, GONE])
        value = new if path == () and new is not GONE else change(value, path, new) if path else value
        file.write_text(json.dumps(value))
        return f"{file.name} {path}: {new!r:.60}"
    lines = text.splitlines()
    index = draw.randrange(len(lines))
    new = draw.choice([*HOSTILE, GONE])
    if file.suffix == ".jsonl":
        row = json.loads(lines[index])
        path = draw.choice([(), *places(row)])
        row = new if path == () and new is not GONE else change(row, path, new) if path else row
        lines[index] = json.dumps(row)
        file.write_text("\n".join(lines) + "\n")
        return f"{file.name} row {index} {path}: {new!r:.60}"

    # TOML: another value, or none, behind the key of a line.
    key = lines[index].partition("=")[0]
    lines[index] = f"{key}= {json.dumps(None if new is GONE else new)}"
    file.write_text("\n".join(lines) + "\n")
    return f"{file.name} {lines[index]:.60}"


def mutated_runs(run: Path, number: int, seed: int) -> Iterator[tuple[Path, str]]:
    """Yield copies of a run with one field changed each, and what was changed."""
    files = [path.relative_to(run) for path in sorted(run.rglob("*")) if path.suffix in (".json", ".jsonl", ".toml")]
    copy = run.with_name("mutated")
    for index in range(number):
        draw = random.Random(f"{seed} {index}")
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(run, copy)
        yield copy, mutate_file(copy / draw.choice(files), draw)
