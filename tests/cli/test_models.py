"""`visionr1 models`: the table of model families."""

import pytest

from visionr1.cli import main
from visionr1.models.families import FAMILIES
from visionr1.models.loading import DEFAULT_DIALECTS
from visionr1.models.supported import find_fault, read_families


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
    assert any(line.startswith("| `qwen3_vl` | packed | `qwen3` | `size` |") for line in lines)
    assert any(line.startswith("- `mllama`: refused") for line in lines)
