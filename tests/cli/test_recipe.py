import subprocess
import sys
from pathlib import Path

import pytest

from visionr1 import cli
from visionr1.rewards import PRESETS
from visionr1.training.recipe import all_settings, load_recipe, named_sections


def printed(capsys: pytest.CaptureFixture[str], *command: str) -> str:
    assert cli.main(list(command)) == 0
    return capsys.readouterr().out


def test_every_setting_is_listed_with_type_default_and_text(capsys: pytest.CaptureFixture[str]) -> None:
    lines = printed(capsys, "recipe").splitlines()
    for key, setting in all_settings():
        assert f"    {setting.type}" in lines, key
        assert any(line.startswith(f"{setting.key} = ") for line in lines), key
    joined = " ".join(" ".join(lines).split())
    assert all(setting.text in joined for _, setting in all_settings())


def test_a_recipe_s_values_stand_beside_the_defaults(capsys: pytest.CaptureFixture[str]) -> None:
    text = printed(capsys, "recipe", "demo", "--set", "train.steps=9", "--set", "phase.0.name=a")
    assert "[train]  " in text and "steps = 9 (default: 0)\n" in text
    assert 'name = "a" (default: "train")\n' in text
    assert "[rollout]  " in text and "temperature = 0.5 (default: 1.0)" in text


def test_each_phase_is_listed_by_the_key_that_sets_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "two.toml"
    path.write_text('[[phase]]\nsteps = 1\n[[phase]]\nsteps = 2\n[[phase.data]]\nsource = "mine"\n', encoding="utf-8")
    text = printed(capsys, "recipe", str(path))
    names = list(named_sections(load_recipe(path)))
    assert {"phase.0", "phase.0.data.0", "phase.1", "phase.1.data.0"} <= set(names)
    assert all(f"[{name}]  " in text for name in names if name)


def test_options_of_other_rewards_are_listed_only_without_a_recipe(capsys: pytest.CaptureFixture[str]) -> None:
    release = {setting.key for setting in PRESETS.known("release").options.describe()}
    others = release - {setting.key for setting in PRESETS.known("paper").options.describe()}
    everything, paper = printed(capsys, "recipe"), printed(capsys, "recipe", "demo")
    chosen = printed(capsys, "recipe", "demo", "--set", "reward.preset=release")
    assert others
    for key in others:
        assert f"\n{key} = " in everything
        assert f"\n{key} = " not in paper
        assert f"\n{key} = " in chosen


def test_what_a_recipe_has_inside_its_sections_is_listed_with_its_values(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "own.py").write_text("def reward(text, letters=3, *, most: int): return 1.0\n", encoding="utf-8")
    path = tmp_path / "own.toml"
    own = f"{(tmp_path / 'own.py').as_posix()}:reward"
    path.write_text(
        f'[reward]\npreset = "{own}"\nletters = 5\nmost = 9\n[[reward.parts]]\nname = "count"\n'
        '[[data]]\nreward = { preset = "vlm_r1" }\n',
        encoding="utf-8",
    )
    text = printed(capsys, "recipe", str(path))
    assert "letters = 5 (default: 3)\n" in text
    assert "most = 9\n" in text  # it has no default
    assert '[reward.parts.0]  Add a criterion to a preset.\nname = "count"\n' in text
    assert "[data.0.reward]  " in text and 'preset = "vlm_r1"' in text
    assert printed(capsys, "recipe", "demo").count("\nweights = ") == 1


def test_a_change_needs_a_recipe(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["recipe", "--set", "seed=1"]) == 2
    assert "visionr1 recipe RECIPE --set" in capsys.readouterr().err


def test_help_of_train_lists_every_setting_without_torch() -> None:
    program = (
        "import sys\n"
        "from visionr1 import cli\n"
        "try: cli.main(['train', '--help'])\n"
        "except SystemExit: print(*sorted({'torch', 'transformers'} & set(sys.modules)))"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    *lines, heavy = run.stdout.splitlines()
    assert heavy == ""
    for key, setting in all_settings():
        assert [line for line in lines if line.startswith(f"  {key}=") and setting.text.split()[0] in line]


def test_other_commands_do_not_read_the_settings() -> None:
    program = (
        "import sys\nfrom visionr1 import cli\ncli.build_parser()\nprint('visionr1.training.recipe' in sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "False"
