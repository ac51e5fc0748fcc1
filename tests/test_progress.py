"""What a long run says where there is no terminal."""

import errno
import io
import sys

import pytest

from visionr1 import progress
from visionr1.progress import Bar, describe_step


def test_a_line_now_and_then_and_one_at_the_end(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = [5.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: clock[0])
    with Bar() as bar:
        for now, share in ((5.0, 0.1), (14.0, 0.2), (15.0, 0.3), (16.0, 1.0)):
            clock[0] = now
            bar.show(share, "base model, images", f"{10 * share:.0f} of 10")
    assert capsys.readouterr().err.splitlines() == [
        " 10.0%  base model, images  1 of 10",
        " 30.0%  base model, images  3 of 10",
        "100.0%  base model, images  10 of 10",
    ]
    with Bar(enabled=False) as bar:
        bar.show(1.0, "silent", "")
    assert capsys.readouterr().err == ""


def test_a_step_tells_what_it_knows() -> None:
    row = {"step": 3, "phase": "train", "progress": 0.25, "loss": -0.01234, "reward/total": 2, "kl": None}
    assert describe_step(row) == (0.25, "train step 3", "loss -0.012  reward 2.000")
    row |= {"reward/area": 0.5, "reward/brevity": -1, "kl": 0.125}
    assert describe_step(row)[2] == "loss -0.012  reward 2.000  area 0.500  brevity -1.000  kl 0.125"


def test_a_terminal_that_is_gone_does_not_end_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    class Gone(io.StringIO):
        def write(self, text: str) -> int:
            raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(sys, "stderr", Gone())
    with Bar() as bar:
        bar.show(1.0, "train", "")
