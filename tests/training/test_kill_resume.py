"""The benchmark that kills, in short: what is left after three kills is a run left alone."""

import json
import subprocess
import sys
from pathlib import Path

PROGRAM = Path(__file__).parents[2] / "benchmarks/kill_resume.py"


def test_three_kills_change_nothing() -> None:
    command = [sys.executable, str(PROGRAM), "--kills", "3", "--steps", "8", "--small"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["different"] == []
    assert result["equal"]
    assert result["kills"] >= 1  # moments are drawn: a quick run may end before the third
    assert result["rows"] == {"metrics.jsonl": 8, "rollouts.jsonl": 32, "evaluations.jsonl": 2}
