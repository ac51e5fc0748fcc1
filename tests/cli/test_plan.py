"""`visionr1 plan`."""

import json

import pytest

from visionr1.cli import main

QUICK = ("--set", "train.batch_size=2", "--set", "rollout.group_size=2", "--set", "rollout.max_new_tokens=8")


def test_a_plan_of_the_model_that_ships(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "demo", "--image", "320x240", "--gpus", "1", *QUICK]) == 0
    output = capsys.readouterr().out
    assert output.startswith("model    tiny: qwen3_vl, packed path, 7.26 million weights")
    assert "it fits: " in output and "every image has 320x240 pixels" in output
    assert "what would help" not in output


def test_as_an_object_with_what_would_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "demo", "--image", "64x64", "--gpu-memory", "0.9", "--json", *QUICK]) == 0
    record = json.loads(capsys.readouterr().out)
    peaks = [record["peak"], *(change["peak"] for change in record["changes"])]
    assert not record["fits"] and peaks == sorted(peaks, reverse=True) and len(peaks) > 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere.toml"], "nowhere.toml"),
        (["demo", "--set", "model.depth=3"], "unknown key model.depth"),
        (["demo", "--sharding", "fsdp2"], "--sharding: expected none on a CPU"),
        (["demo", "--image", "64x64", "--data", "bccd"], "--image: expected no --data"),
        (["demo", "--model", "nowhere", "--image", "64x64", "--gpus", "1"], "config.json is missing"),
        (["demo", "--data", "nowhere", "--gpus", "1"], "nowhere"),
    ],
)
def test_a_mistake_is_one_line(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", *arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and message in error and error.count("\n") == 1


@pytest.mark.parametrize("value", ["64", "0x3", "64x", "axb", "-1x3"])
def test_a_size_of_images_is_width_and_height(value: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["plan", "demo", f"--image={value}"])
    assert "expected a width and a height in pixels" in capsys.readouterr().err


@pytest.mark.parametrize("value", ["0", "-3", "nan", "inf", "much"])
def test_memory_and_speed_are_above_zero(value: str, capsys: pytest.CaptureFixture[str]) -> None:
    for flag in ("--gpu-memory", "--tflops", "--bandwidth"):
        with pytest.raises(SystemExit):
            main(["plan", "demo", f"{flag}={value}"])
        assert "expected a number above 0" in capsys.readouterr().err
