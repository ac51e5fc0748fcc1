"""`visionr1 models`: the table of model families."""

import re
from pathlib import Path

import pytest

from visionr1.cli import main
from visionr1.cli.models import format_families
from visionr1.models.families import FAMILIES
from visionr1.models.loading import DEFAULT_DIALECTS
from visionr1.models.supported import NOT_TRIED, count_exact, find_fault, read_families

ROOT = Path(__file__).parents[2]


def test_every_registered_family_was_measured_and_is_exact() -> None:
    rows = {row["model_type"]: row for row in read_families() if row["status"] == "ok"}
    assert {*FAMILIES, *DEFAULT_DIALECTS} <= set(rows)
    for name, dialect in DEFAULT_DIALECTS.items():
        assert rows[name]["dialect"] == dialect
    assert len(rows) > 30


def test_a_family_that_differs_is_not_said_to_work() -> None:
    (row,) = [row for row in read_families() if row["family"] == "llava"]
    assert find_fault(row) == ""
    assert find_fault({**row, "gradients": 0.1}) == "gradients differ by 1e-01"
    assert find_fault({**row, "greedy": False}) == "greedy"
    assert find_fault({**row, "grpo_step": "error: x"}) == "a step of GRPO: error: x"


def test_the_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any(re.match(r"\| `qwen3_vl` \| packed \| `qwen3` \| \de-0\d \| `size` \|", line) for line in lines)
    assert any("`florence2`" in line and "refused: it is an encoder with a decoder" in line for line in lines)
    assert any("`muse_spark`" in line and line.endswith("not tried") for line in lines)


def test_documents_say_the_same() -> None:
    table = format_families([row for row in read_families() if row["status"] != NOT_TRIED])
    assert table in (ROOT / "docs/models.md").read_text(encoding="utf-8")
    readme = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    assert f"{count_exact(read_families())} types of model" in readme
