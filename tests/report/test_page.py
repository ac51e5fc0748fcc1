import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from visionr1.data import read_source
from visionr1.errors import DataError
from visionr1.evaluation import DEFAULT
from visionr1.evaluation.detection.box_errors import FALSE_KINDS, MEANINGS
from visionr1.evaluation.protocols import EXPRESSION_DEFAULT
from visionr1.report.image_views import NUM_IMAGES, NUM_WORST, choose_evenly_spaced
from visionr1.report.page import write_report
from visionr1.report.training import CHARTS, VALIDATION_CHARTS, choose_reward_charts

HOSTILE = "<script>alert('x')</script>&\u2028\u2029\x85"


class Page(HTMLParser):
    """Every tag with its attributes, and all text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


NUM_CHARTS = len(CHARTS) + 2
"""With those of the reward and its parts."""
KINDS = {kind: number for number, kind in enumerate(FALSE_KINDS, 1)}


def evaluation(ap: float, model: str, tokens: int) -> dict[str, Any]:
    row = {"true_boxes": 40, "found": round(100 * ap), "missed": 7, **KINDS}
    worst = [{"image_id": str(sample.image_id), "errors": 9} for sample in read_source("bccd", split="test")[3:9]]
    return {
        "errors": {
            "all": row,
            "by_category": {"RBC": row, HOSTILE: dict.fromkeys(row, 0)},
            "by_size": {"small": row},
            "by_crowding": {"20 objects or more": row},
            "worst_images": worst,
        },
        "model": model,
        "data": "bccd",
        "split": "test",
        "metrics": {"AP": ap, "AP50": 2 * ap},
        "interval": {"AP": [ap - 0.01, ap + 0.02]},
        "counts": {"images": 72, "truncated": 3},
        "faults": {"unreadable": 2},
        "per_category": {HOSTILE: {"AP": -1.0}, "RBC": {"AP": ap}},
        "protocol": {**replace(DEFAULT, dialect="qwen25", max_new_tokens=tokens).to_json(), "later_key": HOSTILE},
    }


def dump(row: Any) -> str:
    """As a run writes its rows: characters as they are."""
    return json.dumps(row, ensure_ascii=False)


def write_run(folder: Path, *, evaluated: bool = True, trained: bool = True, tokens: int = 512) -> Path:
    folder.mkdir(parents=True)
    if evaluated:
        (folder / "evaluation").mkdir()
        said = {"text": f'[{{"bbox_2d": [1, 2, 30, 40], "label": "{HOSTILE}"}}]', "input_size_wh": [320, 240]}
        for name, ap in (("base", 0.123), ("trained", 0.189)):
            path = folder / "evaluation" / f"{name}.json"
            path.write_text(json.dumps(evaluation(ap, HOSTILE, tokens)))
            samples = read_source("bccd", split="test")
            rows = [
                {"sample_id": sample.id, "image_id": sample.image_id, "truncated": False, **said} for sample in samples
            ]
            path.with_suffix(".predictions.jsonl").write_text("".join(dump(row) + "\n" for row in rows))
        gain = {"gain": {"AP": {"difference": 0.066, "interval": [-0.004, 0.09]}}}
        (folder / "results.json").write_text(json.dumps(gain))
    if trained:
        keys = [key for chart in CHARTS for key in chart.lines]
        keys += ["reward/total", "reward/format", "reward/recall", "reward/precision"]
        stages = [[0.5, 0.5, 0.75]] * 3 + [[0.75, 0.75, 0.9]] * 3
        rows = [{"step": step, "stage": stage, **dict.fromkeys(keys, step / 9)} for step, stage in enumerate(stages, 1)]
        rows[2]["label_accuracy"] = None
        figures = {"AP": 0.1, "AP50": 0.2, "AP75": 0.1, "AP strict": 0.1, "precision": 0.5, "recall": 0.4, "F1": 0.44}
        figures |= {"counts": {"replies": 80, "well_formed": 60, "truncated": 4}}
        validation = {"source": "bccd", "split": HOSTILE, "images": 87, "protocol": DEFAULT.to_json()}
        measured = [{"step": step, **figures, "AP": ap, **validation} for step, ap in ((2, 0.1), (4, 0.3), (6, 0.3))]
        (folder / "evaluations.jsonl").write_text("".join(dump(row) + "\n" for row in measured))
        (folder / "best").mkdir()
        (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        rollout = {"sample_id": HOSTILE, "text": HOSTILE, "format": 1.0, "recall": 0.5, "precision": 0.25}
        rollout |= {"advantage": 0.7, "truncated": True, "num_tokens": HOSTILE}
        rollouts = [{"step": step, "total": total, **rollout} for step in (1, 2, 3, 6) for total in (1.0, 1.75)]
        (folder / "rollouts.jsonl").write_text("".join(dump(row) + "\n" for row in rollouts))
        (folder / "recipe.toml").write_text(
            'method = "grpo"\n[model]\npath = "tiny"\n[[phase]]\n[[phase.data]]\nsource = "bccd"\n'
        )
        (folder / "versions.json").write_text(json.dumps({"python": HOSTILE, "cpus": 2, "command": HOSTILE}))
    return folder


def read_page(run: Path) -> Page:
    return Page(write_report(run, run / "report.html").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Page:
    return read_page(write_run(tmp_path_factory.mktemp("whole") / "run"))


def test_tells_the_result_with_its_interval_and_protocol(page: Page) -> None:
    text = page.text
    assert "Vision-R1 on bccd, starting from tiny" in text
    assert "AP 12.3 → 18.9" in text
    assert "+6.6 95% interval −0.4 to +9.0" in text  # a true minus sign
    assert "12.3 (11.3 to 14.3)" in text
    assert "bccd, test, 72 images; protocol default: qwen25, greedy, 512 tokens;" in text
    assert "fault: unreadable" in text and "n/a" in text
    assert text.count("max new tokens") == 1


def test_marks_a_result_under_another_protocol(page: Page, tmp_path: Path) -> None:
    assert "Vision-R1 *" not in page.text and "not comparable" not in page.text
    run = write_run(tmp_path / "run", trained=False)
    path = run / "evaluation/trained.json"
    path.write_text(path.read_text().replace('"constant_score": 1.0', '"constant_score": 0.99'))
    text = read_page(run).text
    assert "Vision-R1 *" in text and "* Under another protocol than the first: not comparable." in text
    assert "AP 18.9" in text and "→" not in text and "+6.6" in text  # the gain is what results.json says
    path.write_text(path.read_text().replace('"split": "test"', '"split": "valid"'))
    text = read_page(run).text
    assert "Vision-R1 * +" in text and "+ On other data than the first: not comparable." in text
    assert text.count("0 of ") == 6 + NUM_WORST  # the boxes of the one on the same data as the last


def test_the_headline_is_of_results_that_can_be_compared(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", trained=False)
    other = run / "evaluation/trained-max_new_tokens=600.json"  # last by name
    other.write_text(json.dumps(evaluation(0.999, HOSTILE, 600)))
    assert "AP 12.3 → 18.9" in read_page(run).text


def test_names_the_signs_of_reward_hacking(page: Page, tmp_path: Path) -> None:
    assert "Reward hacking watch" in page.text
    assert "of 6 signs at the end of the run" in page.text  # duplicates and format errors among them
    run = write_run(tmp_path / "run", evaluated=False)
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    sound = {"watch/duplicates": 0, "watch/whole_image": 0, "watch/format_errors": 0, "groups_without_spread": 0}
    lines = [json.dumps(row | sound | {"watch/valid_iou": 0.7, "kl": 0.02}) for row in rows]
    (run / "metrics.jsonl").write_text("".join(line + "\n" for line in lines))
    assert "No sign at the end of the run" in read_page(run).text


def test_evaluation_during_training_marks_the_first_of_the_best(page: Page, tmp_path: Path) -> None:
    assert "The dotted line is the best AP: 30.0 at step 4; that model is in best/." in page.text
    assert "87 images; protocol default:" in page.text
    said = [attributes.get("aria-label") or "" for tag, attributes in page.tags if tag == "svg"]
    assert "AP x 100, steps 2 to 6: AP from 10 to 30; AP strict from 10 to 10." in said
    assert "Replies x 100, steps 2 to 6: well formed from 75 to 75; cut off from 5 to 5." in said
    run = write_run(tmp_path / "run", evaluated=False)
    (run / "best").rmdir()
    with (run / "recipe.toml").open("a") as recipe:
        recipe.write('[eval]\nmetric = "F1"\n')
    text = read_page(run).text
    assert "The dotted line is the best F1: 44.0 at step 2." in text and "best/" not in text


def test_is_self_contained_and_runs_nothing(page: Page) -> None:
    for tag, attributes in page.tags:
        assert tag not in {"script", "link", "iframe", "object"}
        assert not [name for name in attributes if name.startswith("on")]
        for name in ("src", "href"):
            assert (attributes.get(name) or "#").startswith(("#", "data:image/jpeg;base64,"))


def test_shows_every_chart_and_image_with_words(page: Page) -> None:
    pictures = [attributes for tag, attributes in page.tags if tag == "svg"]
    assert len(pictures) == NUM_CHARTS + len(VALIDATION_CHARTS) + (6 + NUM_WORST) * 3
    assert all(attributes["role"] == "img" and attributes["aria-label"] for attributes in pictures)
    assert sum(attributes.get("class") == "mark" for _, attributes in page.tags) == NUM_CHARTS + 4  # stage, best/
    assert page.text.count("0 of ") == 2 * (6 + NUM_WORST)  # base and trained, no box right


def test_the_worst_images_are_not_drawn_twice(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", trained=False)
    path = run / "evaluation/trained.json"
    samples = read_source("bccd", split="test")
    for worst, new in (((0, 12, 3), 1), ((0, 12), 0)):  # the first and the thirteenth stand above
        rows = [{"image_id": str(samples[i].image_id), "errors": 9} for i in worst]
        record = json.loads(path.read_text())
        path.write_text(json.dumps({**record, "errors": {**record["errors"], "worst_images": rows}}))
        page = read_page(run)
        assert f"Drawn above already: {samples[0].id}, {samples[12].id}." in page.text
        assert sum(tag == "svg" for tag, _ in page.tags) == (6 + new) * 3


def test_errors_by_kind_size_crowding_and_category(page: Page, tmp_path: Path) -> None:
    text = page.text
    assert all(meaning in text for meaning in MEANINGS.values())
    assert "loose and wrong label" in text and "By crowding" in text and "20 objects or more" in text
    assert "30.047.5" in text  # found of 40 true: 12 by the base, 19 by the trained
    assert text.count("1515") >= 3  # false boxes of both
    assert "12.318.9+6.6" in text  # AP of RBC, before, after and the change
    assert "The images with the most errors of Vision-R1" in text
    assert ": background" in text.split("Worst cases")[1]  # the title of a false box
    run = write_run(tmp_path / "run", trained=False)
    for path in (run / "evaluation").glob("*.json"):
        record = json.loads(path.read_text())
        del record["errors"]  # as an earlier version stored it
        path.write_text(json.dumps(record))
    earlier = read_page(run).text
    assert "Boxes on test images" in earlier and "Worst cases" not in earlier and "What is wrong" not in earlier


def test_boxes_are_read_and_judged_by_the_protocol_of_the_figures(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", trained=False)
    (sample, *_) = read_source("bccd", split="test")
    corners = [[round(side / 2) for side in box] for box in sample.truth.xyxy.tolist()]  # as the model sees the image
    boxes = [{"bbox_2d": box, "label": label} for box, label in zip(corners, sample.truth.labels, strict=True)]
    row = {"image_id": sample.image_id, "input_size_wh": [320, 240]}
    texts = {"base": json.dumps(boxes), "trained": json.dumps(boxes) + " and more"}  # the second is not well formed
    for name, text in texts.items():
        (run / f"evaluation/{name}.predictions.jsonl").write_text(dump({**row, "text": text}) + "\n")

    def found(**protocol: Any) -> list[int]:
        for name in texts:
            path = run / f"evaluation/{name}.json"
            record = json.loads(path.read_text())
            path.write_text(json.dumps({**record, "protocol": {**record["protocol"], **protocol}}))
        return list(map(int, re.findall(r"(?:Base|Vision-R1)(\d+) of \d+ found", read_page(run).text)))

    assert found() == [len(boxes), len(boxes)]
    assert found(parse="strict") == [len(boxes), 0]  # no box of a faulty reply counts
    assert found(match_iou=0.99)[0] < len(boxes) and "matched to it at IoU 0.99" in read_page(run).text


def test_shows_best_and_worst_of_early_middle_and_late(page: Page) -> None:
    text = page.text
    assert [f"Step {step}, sample" in text for step in (1, 2, 3, 6)] == [True, True, False, True]
    assert text.count("Best: 1.75") == text.count("Worst: 1.00") == 3


@pytest.mark.parametrize(
    ("parts", "present", "absent"),
    [
        ({"trained": False}, ["Result", "Boxes on test images"], ["Training", "during training"]),  # eval only
        ({"evaluated": False}, ["Training", "What the model wrote"], ["Result", "Boxes on test images"]),
    ],
)
def test_shows_what_there_is(parts: dict[str, bool], present: list[str], absent: list[str], tmp_path: Path) -> None:
    text = read_page(write_run(tmp_path / "run", **parts)).text
    assert all(title in text for title in present)
    assert not any(title in text for title in absent)


def test_a_folder_that_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"is no run: it has neither"):
        write_report(tmp_path, tmp_path / "report.html")


def test_a_killed_run_has_a_report_that_says_what_is_left_out(page: Page, tmp_path: Path) -> None:
    assert "unfinished" not in page.text
    run = write_run(tmp_path / "run")
    for name, row in (("metrics.jsonl", b'{"step": 7, "lo'), ("rollouts.jsonl", '{"text": "\u2028'.encode()[:-1])):
        with (run / name).open("ab") as log:
            log.write(row)
    text = read_page(run).text
    assert "6 steps" in text
    for name in ("metrics.jsonl", "rollouts.jsonl"):
        assert f"the last row of {name} is unfinished and left out" in text


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    (run / "metrics.jsonl").write_text('{"step": 1}\n{"st\n')
    with pytest.raises(DataError, match=r"metrics.jsonl, line 2, is not JSON"):
        write_report(run, run / "report.html")
    assert not (run / "report.html").exists()


@pytest.mark.parametrize("total", range(1, 21))
def test_images_are_evenly_spaced(total: int) -> None:
    chosen = choose_evenly_spaced(range(total), NUM_IMAGES)
    assert len(chosen) == min(total, NUM_IMAGES) and chosen[0] == 0
    gaps = {after - before for before, after in pairwise([*chosen, total])}  # the last to the end, as to a next one
    assert max(gaps) - min(gaps) <= 1


def test_only_images_that_were_asked_are_drawn(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", trained=False)
    for path in (run / "evaluation").glob("*.predictions.jsonl"):
        path.write_text("\n".join(path.read_text().split("\n")[:8]) + "\n")
    assert "6 of 8 images, evenly spaced" in read_page(run).text


def test_has_a_policy_that_allows_nothing_but_its_own_style_and_images(page: Page) -> None:
    policies = [attributes["content"] for tag, attributes in page.tags if "http-equiv" in attributes]
    assert policies == [
        "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"
    ]


def hostile(value: Any) -> Any:
    """The value with every number in it as hostile text."""
    if isinstance(value, dict):
        return {key: hostile(one) for key, one in value.items()}
    if isinstance(value, list):
        return [hostile(one) for one in value]
    return value if isinstance(value, str) else HOSTILE


def test_fields_that_are_no_numbers_do_no_harm(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    for name in ("base.json", "trained.json"):
        path = run / "evaluation" / name
        record = json.loads(path.read_text())
        spoiled = {key: hostile(record[key]) for key in ("metrics", "interval", "counts", "faults", "per_category")}
        path.write_text(json.dumps(record | spoiled))
    for name in ("metrics.jsonl", "evaluations.jsonl", "rollouts.jsonl"):
        rows = [json.loads(line) for line in (run / name).read_text().split("\n") if line]
        rows = [hostile(row) | {key: row[key] for key in ("step", "protocol", "stage") if key in row} for row in rows]
        (run / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    (run / "results.json").write_text(json.dumps(hostile(json.loads((run / "results.json").read_text()))))

    page = read_page(run)

    test_is_self_contained_and_runs_nothing(page)
    assert f"{HOSTILE} tokens" in page.text


@pytest.mark.parametrize("row", ['{"loss": 1}', '{"step": "1"}', "[1]"])
def test_a_row_without_a_step_is_named(row: str, tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", evaluated=False)
    (run / "metrics.jsonl").write_text(f'{{"step": 1}}\n{row}\n')
    with pytest.raises(DataError, match=r"metrics.jsonl, row 2: step: expected a number, found"):
        write_report(run, run / "report.html")


def test_every_part_of_a_reward_is_drawn_and_written(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", evaluated=False)
    parts = {"area": 0.25, "brevity": -3.0, "format": 1.0}
    metrics = [{"step": step, "reward/total": 1.0, **{f"reward/{key}": parts[key] for key in parts}} for step in (1, 2)]
    (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in metrics))
    rollout = {"step": 1, "sample_id": "7", "index": 0, "text": "[]", "total": 1.0, "advantage": 0.5, "num_tokens": 2}
    (run / "rollouts.jsonl").write_text(json.dumps(rollout | {"truncated": False, **parts}) + "\n")

    charts = choose_reward_charts(metrics)
    page = read_page(run)

    assert [[*chart.lines] for chart in charts] == [["reward/area", "reward/format"], ["reward/brevity"]]
    assert "Reward part: brevity" in page.text
    assert "Best: 1.00 (area 0.25, brevity -3.00, format 1.00); advantage +0.50; 2 tokens" in page.text


def test_many_parts_of_a_reward_share_charts_of_five_colours() -> None:
    row = {"step": 1, **{f"reward/part{i}": 0.5 for i in range(12)}}
    assert [len(chart.lines) for chart in choose_reward_charts([row])] == [5, 5, 2]


def grounding_result(accuracy: float) -> dict[str, Any]:
    return {
        "metrics": {"Acc@0.5": accuracy},
        "interval": {"Acc@0.5": [accuracy - 0.1, accuracy + 0.1]},
        "counts": {"expressions": 80},
        "faults": {},
        "protocol": EXPRESSION_DEFAULT.to_json(),
    }


def test_shows_benchmarks_and_answers_to_questions(tmp_path: Path) -> None:
    (tmp_path / "vqa").mkdir()
    record = {"model": "m", "data": HOSTILE, "split": "", "benchmark": "refcoco", "missing": ["testB"], "notes": []}
    record |= {"results": {"val": grounding_result(0.5), HOSTILE: grounding_result(0.75)}}
    (tmp_path / "refcoco.json").write_text(json.dumps(record))
    answers = {"model": "m", "metrics": {"accuracy": 0.625}, "counts": {"questions": 8}, "by_split": [{"val": 62.5}]}
    (tmp_path / "vqa/m.GQA.json").write_text(json.dumps(answers | {"protocol": {"name": "VLMEvalKit 1"}}))

    page = read_page(tmp_path)

    test_is_self_contained_and_runs_nothing(page)
    assert "Benchmark refcoco" in page.text and "testB is missing." in page.text
    assert "val50.0 (40.0 to 60.0)" in page.text and f"{HOSTILE}75.0 (65.0 to 85.0)" in page.text
    assert "right at IoU >= 0.5" in page.text
    assert "Questions about images" in page.text and "accuracy62.5" in page.text


def test_a_file_that_is_no_result_is_named(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", trained=False)
    (run / "evaluation/mine.json").write_text('{"model": "m", "data": 3}')
    with pytest.raises(DataError, match=r"mine.json is no result of `visionr1 eval`: data: expected str"):
        write_report(run, run / "report.html")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a = [", "is not TOML"),
        ("a = " + "[" * 5000 + "]" * 5000, "is not TOML"),
        ("model = 3", "model: expected a table, found 3"),
        ("[[phase]]\ndata = [3]", "expected tables"),
    ],
    ids=["cut off", "deep", "model", "data"],
)
def test_a_damaged_recipe_is_named(text: str, message: str, tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", evaluated=False)
    (run / "recipe.toml").write_text(text)
    with pytest.raises(DataError, match=rf"recipe\.toml.*{message}"):
        write_report(run, run / "report.html")


def test_names_in_a_recipe_run_nothing(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", evaluated=False)
    trap = tmp_path / "trap.py"
    trap.write_text(f"open({str(tmp_path / 'sprung')!r}, 'w')\nx = 1\n")
    (run / "recipe.toml").write_text(
        f'[model]\npath = "m"\ndialect = "{trap.as_posix()}:x"\n[reward]\npreset = "{trap.as_posix()}:x"\n'
    )
    assert "trap.py:x" in read_page(run).text
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize(
    "gain", [3, {"AP": 3}, {"AP": {"difference": 0.1, "interval": [0]}}, {"AP": {"interval": 10**400}}]
)
def test_gains_of_another_form_are_left_out(gain: Any, tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    (run / "results.json").write_text(json.dumps({"gain": gain}))
    read_page(run)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("3", "row 0: expected an object, found 3"),
        ('{"text": "x"}', "row 0: image_id: expected the id of an image, found None"),
        ('{"image_id": 1, "text": 3}', "row 0: text: expected the reply as a string, found 3"),
    ],
)
def test_a_reply_of_another_form_is_named(row: str, message: str, tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    (run / "evaluation/trained.predictions.jsonl").write_text(row + "\n")
    with pytest.raises(DataError, match=rf"trained\.predictions\.jsonl: {message}"):
        write_report(run, run / "report.html")


def test_a_dialect_that_is_no_name_is_named(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    file = run / "evaluation/trained.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"protocol": {"dialect": {}}}))
    with pytest.raises(
        DataError, match=r"trained.json is no result of `visionr1 eval`: protocol.dialect: expected str"
    ):
        write_report(run, run / "report.html")


@pytest.mark.parametrize("key", ["interval", "counts", "faults", "per_category"])
@pytest.mark.parametrize("value", [3, [1], None])
def test_a_field_of_a_result_that_is_no_table_is_named(key: str, value: object, tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    file = run / "evaluation/trained.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {key: value}))
    with pytest.raises(DataError, match=rf"trained.json is no result of `visionr1 eval`: {key}: expected dict"):
        write_report(run, run / "report.html")
