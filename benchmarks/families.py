"""A table of model families: which load, and how exact they are, as small random models.

    python benchmarks/families.py [--quick FAMILY ...] [--write]

Each family of `tests/support/family_shapes.py` is built from transformers' own configuration and compared with
transformers' own forward and `generate`; one step of GRPO is trained by `visionr1 train`. `--write` keeps the rows in
the package, where `visionr1 models` reads them. Families that need a package that is missing are
listed as not run.
"""

import argparse
import contextlib
import copy
import importlib
import importlib.util
import io
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))  # the random models of the tests
if importlib.util.find_spec("torchvision") is not None:
    importlib.import_module("support.torchvision_operators")  # before transformers is imported

import transformers

from support import family_checks as checks
from support.family_builder import Shape, build_family
from support.family_shapes import SHAPES
from support.random_models import build_qwen3, sharpen
from visionr1.assets import families_path
from visionr1.cli import main as visionr1
from visionr1.errors import CheckpointError, MissingDependency, RecipeError
from visionr1.files import write_json_atomic
from visionr1.models.image_bounds import limit_pixels
from visionr1.models.loading import load_policy
from visionr1.models.paths.packed import PackedPath

PIXELS = 3200
"""The bound that images are held to: two tiles of the small models."""
STEP = """
[model]
path = "{model}"
[[data]]
source = "bccd"
split = "train"
[train]
steps = 1
batch_size = 2
learning_rate = 1e-4
[rollout]
group_size = 2
max_new_tokens = 8
"""


def train_one_step(folder: Path, run: Path) -> str:
    """Return "ok" if `visionr1 train` makes one step of GRPO on bccd and its final model loads."""
    recipe = run.with_suffix(".toml")
    recipe.write_text(STEP.format(model=folder), encoding="utf-8")
    output = io.StringIO()
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
        status = visionr1(["train", str(recipe), "--run-dir", str(run)])
    if status:
        return output.getvalue().strip().splitlines()[-1]
    load_policy(run)
    return "ok"


def bounding_settings(folder: Path, dialect: str) -> list[str] | None:
    """Return which settings of the image processor `model.max_pixels` changes; None if no setting bounds images."""
    policy = load_policy(folder, dialect=dialect)
    before = copy.deepcopy(vars(policy.image_processor))
    try:
        limit_pixels(policy, PIXELS)
    except RecipeError:
        return None
    return sorted(name for name, value in vars(policy.image_processor).items() if value != before.get(name))


def measure(name: str, shape: Shape, root: Path, like: Path) -> dict[str, Any]:
    """Return the row of one family."""
    row: dict[str, Any] = {"family": name, "model_type": shape.model_type}
    missing = [package for package in shape.needs if importlib.util.find_spec(package) is None]
    row["needs"] = list(shape.needs)
    if missing:
        return row | {"status": f"not run: {' and '.join(missing)} not installed"}
    folder = build_family(root / name, like, shape)
    try:
        policy = sharpen(load_policy(folder))
    except (CheckpointError, MissingDependency) as error:
        return row | {"status": f"refused: {error}".replace(str(folder), "FOLDER")}

    row["path"] = "packed" if isinstance(policy.path, PackedPath) else "generic"
    row["logprobs"], row["gradients"] = checks.score_errors(policy)
    row["greedy"] = checks.greedy_is_generate(policy)
    row["sampled"] = checks.sampled_error(policy)
    row["together"] = checks.together_is_alone(policy)
    row["reloads"] = checks.reloads(policy, root / f"{name}_saved")
    row["grpo_step"] = train_one_step(folder, root / f"{name}_run")
    (folder / "visionr1.json").unlink()
    try:
        row["dialect"] = load_policy(folder).dialect.name
    except CheckpointError:
        row["dialect"] = None
    row["bound"] = bounding_settings(folder, policy.dialect.name)
    return row | {"status": "ok"}


def main() -> None:
    """Measure, print a line a family, and keep them if asked."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", nargs="+", choices=tuple(SHAPES), metavar="FAMILY", help="these alone")
    parser.add_argument("--write", action="store_true", help="keep the rows in the package's families.json")
    args = parser.parse_args()
    torch.set_num_threads(1)

    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        like = build_qwen3(root / "like", width=64, layers=2, pixels=120 * 120)
        for name in args.quick or SHAPES:
            try:
                row = measure(name, SHAPES[name], root, like)
            except Exception as error:  # noqa: BLE001 - a family that fails is a row of the table
                row = {"family": name, "model_type": SHAPES[name].model_type, "needs": list(SHAPES[name].needs)}
                row["status"] = f"failed: {type(error).__name__}: {str(error)[:200]}"
            rows.append({**row, "transformers": transformers.__version__})
            print(json.dumps(rows[-1]), flush=True)
    if args.write:
        path = families_path()
        stored = {row["family"]: row for row in json.loads(path.read_text())} if path.is_file() else {}
        stored |= {row["family"]: row for row in rows}
        write_json_atomic(path, list(stored.values()))


if __name__ == "__main__":
    main()
