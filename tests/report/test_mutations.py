"""A run's folder may come from anywhere: whatever stands in a field, a page or one of our errors comes out.

370 mutations of four commands each were tried beside these, without a traceback.
"""

from pathlib import Path

import pytest

from support.mutations import mutated_runs, write_run
from visionr1.cli import main

NUMBER = 60


def test_single_fields_of_a_run_s_files_never_end_in_a_traceback(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = write_run(tmp_path / "run")
    for folder, changed in mutated_runs(run, NUMBER, seed=1):
        results = [str(folder / "evaluation" / f"{name}.json") for name in ("base", "trained")]
        rollouts = str(folder / "rollouts.jsonl")
        for command in (
            ["report", str(folder)],
            ["compare", *results, "--resamples", "3"],
            ["score", rollouts],
            ["eval", "--predictions", rollouts, "--dialect", "qwen25", "--resamples", "0"],
        ):
            try:
                assert main(command) in (0, 2)
            except Exception as error:
                raise AssertionError(f"{command[0]}: {changed}") from error
            printed = capsys.readouterr()
            assert "\x1b" not in printed.out + printed.err, changed
