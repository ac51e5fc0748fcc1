"""A table of model families: which load, and how exact they are, as small random models.

    python benchmarks/families.py [--quick FAMILY ...] [--write]

Each family of `tests/support/more_shapes.py` is built from transformers' own configuration and compared with
transformers' own forward and `generate`; one step of GRPO is trained by `visionr1 train`. `--write` keeps the rows in
the package, where `visionr1 models` reads them, and the table in docs/models.md. For all families torchvision and timm
have to be there: those whose packages are missing are named, and their rows stay as they were.
"""

import argparse
import contextlib
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
from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES

from support import family_checks as checks
from support.family_builder import Shape, build_family
from support.more_shapes import ALL_SHAPES
from support.random_models import build_qwen3, sharpen
from visionr1.assets import families_path
from visionr1.cli import main as visionr1
from visionr1.cli.models import format_families
from visionr1.files import write_json_atomic, write_text_atomic
from visionr1.models.families import FAMILIES
from visionr1.models.loading import load_policy
from visionr1.models.paths.packed import PackedPath
from visionr1.models.supported import DIFFERENCES, NOT_TRIED, find_fault, read_families

TABLE = Path(__file__).resolve().parents[1] / "docs/models.md"
BEGIN, END = "<!-- families: begin -->\n", "<!-- families: end -->\n"
"""What the table of families stands between in TABLE."""
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


def measure(name: str, shape: Shape, root: Path, like: Path) -> dict[str, Any]:
    """Return the row of one family, of which packages that it needs are there."""
    row: dict[str, Any] = {"family": name, "model_type": shape.model_type, "needs": list(shape.needs)}
    folder = build_family(root / name, like, shape)
    policy = sharpen(load_policy(folder))
    row["path"] = "packed" if isinstance(policy.path, PackedPath) else "generic"

    # Against transformers' own forward pass and `generate`.
    row["logprobs"], row["gradients"] = checks.score_errors(policy)
    row["sampled"] = checks.sampled_error(policy)
    row["features"] = checks.features_error(policy)
    row["greedy"] = checks.greedy_is_generate(policy)
    row["together"] = checks.together_is_alone(policy)
    row["vision_share"] = checks.vision_share(policy)
    row["input_size"] = checks.tells_input_size(policy)
    row["reloads"] = checks.reloads(policy, root / f"{name}_saved")
    row["bound"] = checks.bounded_settings(policy, root / f"{name}_bounded")

    # Last, for it cannot be undone.
    row["checkpointed"] = checks.checkpointed_error(policy)
    row["grpo_step"] = train_one_step(folder, root / f"{name}_run")
    for key in (*DIFFERENCES, "vision_share"):
        row[key] = float(f"{row[key]:.1e}")
    return row | {"status": "ok"}


def write_table() -> None:
    """Write the table of `visionr1 models` into TABLE, in place of the one there."""
    text = TABLE.read_text(encoding="utf-8")
    before, after = text.partition(BEGIN)[0], text.partition(END)[2]
    # Types that nobody tried depend on the version of transformers.
    table = format_families([row for row in read_families() if row["status"] != NOT_TRIED])
    write_text_atomic(TABLE, f"{before}{BEGIN}\n{table}\n\n{END}{after}")


def main() -> None:
    """Measure, print a line a family, and keep them if asked."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", nargs="+", choices=tuple(ALL_SHAPES), metavar="FAMILY", help="these alone")
    parser.add_argument(
        "--write", action="store_true", help="keep the rows in families.json, and the table in models.md"
    )
    args = parser.parse_args()
    torch.set_num_threads(1)

    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        like = build_qwen3(root / "like", width=64, layers=2, pixels=120 * 120)
        for name in args.quick or ALL_SHAPES:
            shape = ALL_SHAPES[name]
            missing = [package for package in shape.needs if importlib.util.find_spec(package) is None]
            if shape.model_type not in (*MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES, *FAMILIES):
                print(f"{name}: not run: transformers {transformers.__version__} does not have it", flush=True)
                continue
            if missing:
                print(f"{name}: not run: {' and '.join(missing)} not installed", flush=True)
                continue
            try:
                row = measure(name, shape, root, like)
            except Exception as error:  # noqa: BLE001 - a family that fails is a row of the table
                row = {"family": name, "model_type": shape.model_type, "needs": list(shape.needs)}
                row["status"] = f"failed: {type(error).__name__}: {str(error)[:200]}"
            rows.append({**row, "transformers": transformers.__version__})
            print(json.dumps(rows[-1]), flush=True)

    failed = [row["family"] for row in rows if find_fault(row)]
    print(f"{len(rows) - len(failed)} of {len(rows)} pass all checks; the others: {', '.join(failed) or 'none'}")
    if args.write:
        path = families_path()
        stored = {row["family"]: row for row in json.loads(path.read_text(encoding="utf-8"))}
        stored |= {row["family"]: row for row in rows}
        write_json_atomic(path, [stored[name] for name in ALL_SHAPES if name in stored])
        write_table()
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
