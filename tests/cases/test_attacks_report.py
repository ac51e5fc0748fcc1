"""Attacks on reports (B11, C5, C12) and item 11 of the list: data that are gone, links, bidi text, rollouts."""

import json
import shutil
import tracemalloc
from itertools import pairwise
from pathlib import Path

import pytest
from PIL import Image

from support.mutations import write_run
from visionr1.cli import main
from visionr1.report.image_views import NUM_IMAGES, choose_evenly_spaced
from visionr1.report.record import read_run


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return write_run(tmp_path / "made" / "run")


def read_page(run: Path) -> str:
    assert main(["report", str(run)]) == 0
    return (run / "report.html").read_text(encoding="utf-8")


def test_b11_a_page_is_made_without_the_data_and_says_so(run: Path) -> None:
    assert "data:image/jpeg" in read_page(run)
    shutil.rmtree(run.parent / "boxes")
    page = read_page(run)
    assert "are left out: " in page
    assert "no such file or folder" in page
    assert "data:image/jpeg" not in page
    assert "AP" in page


def test_b11_a_single_image_that_is_gone_leaves_the_images_out(run: Path) -> None:
    (run.parent / "boxes/2.png").write_bytes(b"")
    page = read_page(run)
    assert "are left out: " in page
    assert "2.png" in page


def test_b11_data_named_from_another_folder_are_left_out(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for path in run.glob("evaluation/*.json"):
        path.write_text(json.dumps({**json.loads(path.read_text()), "data": "boxes"}))
    monkeypatch.chdir(run.parent)
    assert "data:image/jpeg" in read_page(run)
    monkeypatch.chdir(run)
    assert "The images of boxes are left out" in read_page(run)


def test_c12_a_link_out_of_the_data_never_puts_its_file_into_a_page(run: Path, tmp_path: Path) -> None:
    Image.new("RGB", (64, 48), "red").save(tmp_path / "private.png")
    image = run.parent / "boxes/1.png"
    image.unlink()
    image.symlink_to(tmp_path / "private.png")
    page = read_page(run)
    assert "data:image/jpeg" not in page
    assert "is a link to a file outside of" in page


def test_c5_a_name_cannot_turn_the_text_around_it(run: Path) -> None:
    (run / "evaluation/trained.json").rename(run / "evaluation/trained\u202e.json")
    (run / "evaluation/trained.predictions.jsonl").rename(run / "evaluation/trained\u202e.predictions.jsonl")
    page = read_page(run)
    assert page.count("\u202e") > 0
    for place, letter in enumerate(page):
        if letter == "\u202e":
            line = page[:place].rpartition("\n")[2] + page[place:].partition("\n")[0]
            assert "<bdi>" in line or "<title>" in line or "aria-label" in line, line


@pytest.mark.parametrize("total", range(7, 12))
def test_item_11_images_are_evenly_spaced_for_few_more_than_six(total: int) -> None:
    """They were the first six."""
    chosen = choose_evenly_spaced(range(total), NUM_IMAGES)
    assert chosen[-1] >= total - 2
    assert chosen != list(range(NUM_IMAGES))
    gaps = [after - before for before, after in pairwise(chosen)]
    assert max(gaps) - min(gaps) <= 1


def test_item_11_a_run_s_own_rollouts_are_scored_and_evaluated(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rollouts = str(run / "rollouts.jsonl")
    assert main(["score", rollouts]) == 0
    assert [json.loads(line)["num_predicted"] for line in capsys.readouterr().out.splitlines()] == [0] * 4
    assert main(["eval", "--predictions", rollouts, "--dialect", "qwen25", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["counts"]["images"] == 4


def test_c9_rollouts_are_read_row_by_row(run: Path) -> None:
    """All of them were held: 56 MB of rows took 322 MB."""
    row = {**json.loads((run / "rollouts.jsonl").read_text().partition("\n")[0]), "text": "x" * 2000}
    with (run / "rollouts.jsonl").open("w", encoding="utf-8") as file:
        for step in range(1, 2001):
            for index in range(4):
                sample = f"{step}-{index // 2}"
                file.write(json.dumps({**row, "step": step, "sample_id": sample, "total": float(index)}) + "\n")
        file.write('{"step": 2001, "text": "cut o')
    tracemalloc.start()
    record = read_run(run)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4e6
    assert [(row["step"], row["sample_id"]) for row in record.rollouts] == [
        (step, f"{step}-0") for step in (1, 1, 1000, 1000, 2000, 2000)
    ]
    assert record.unfinished == ["rollouts.jsonl"]
