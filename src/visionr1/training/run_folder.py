"""The folder of a training run: what is in it, and how it is written so that nothing is lost.

    recipe.toml         the resolved recipe
    versions.json       of Python, the packages and the machine
    metrics.jsonl       one row per step
    rollouts.jsonl      one row per completion (GRPO)
    evaluations.jsonl   one row per evaluation during training, with its protocol
    skipped.jsonl       one row per sample that a step could not use (data.on_bad = "skip")
    checkpoints/step_N  a model folder (LoRA: its adapters) and trainer_state.pt, complete or absent
    best/               the model of the best evaluation
    final/              the trained model; both are ordinary transformers folders (LoRA: merged, and adapter/ in them)
    initial/            the model that training started from, where the recipe makes one
    wandb_id, tensorboard/, mlflow/  of the trackers that the recipe names
    .lock               held while a process writes the run (see `run_lock`)

Folders are written under another name and renamed when they are whole. A checkpoint keeps the lengths of
the logs; resuming cuts them back to those, so that no row is missing or twice. A run begins in a folder
that is empty, and touches nothing that it did not make.
"""

import json
import os
import platform
import re
import shlex
import sys
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields
from difflib import unified_diff
from importlib.metadata import version
from pathlib import Path
from types import UnionType
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor

from visionr1 import __version__
from visionr1.errors import CheckpointError, TrainingError, naming, short_repr
from visionr1.files import encode_text, read_json_lines, write_json_atomic, write_text_atomic
from visionr1.folders import interrupted, recover, remove_folder, sync, whole_folder
from visionr1.models.loading import model_folder
from visionr1.models.policy import Policy
from visionr1.models.saving import save_policy, save_trained
from visionr1.training.recipe import Recipe, load_recipe, to_toml
from visionr1.training.schedule import Position

STATE_FILE = "trainer_state.pt"
KEYS_OF_CODE = {
    ("model", "dialect"),
    ("data", "reader"),
    ("eval", "reader"),
    ("rollout", "engine"),
    ("reward", "preset"),
    ("parts", "name"),
}
"""Table and key of the settings that may name code, as `module:object`."""
STATE_FIELDS = ("position", "optimizer", "learner", "data", "log_lengths")
"""What a trainer state holds, each a mapping."""
TORCH_WRITER = re.compile(r"inline_container|PytorchStreamWriter|StreamWriter")
"""Words in the errors of torch's file writer, which are RuntimeErrors."""
LEFT_OVER = re.compile(r"\.(versions\.json|recipe\.toml|results\.json|wandb_id)\.\w{8}")
"""Temporary names of the files that a run writes whole; a kill can leave one."""
LOGS = ("metrics.jsonl", "rollouts.jsonl", "evaluations.jsonl", "skipped.jsonl")
PACKAGES = ("torch", "transformers", "numpy", "pillow", "scipy")


class RunFolder:
    """The files of one run. `open` makes the folder or, to resume, finds it.

    One rank `writes`; calls of the others change nothing.
    """

    def __init__(self, path: Path, *, writes: bool = True) -> None:
        self.path = path
        self.writes = writes
        self.checkpoints = path / "checkpoints"
        self.final = path / "final"
        self.recipe_file = path / "recipe.toml"

    @classmethod
    def open(cls, path: Path, recipe: Recipe, *, resume: bool, writes: bool = True) -> "RunFolder":
        """Make the folder at `path` or, to resume, find it and mend what a kill left.

        Raises TrainingError if a new run finds it in use or not empty, or if a resumed one finds another recipe;
        RecipeError if the recipe there cannot be read.
        """
        folder = cls(path, writes=writes)
        folder.check(recipe, resume=resume)
        if writes:
            folder._remove_left_over_files()
        if writes and resume:
            folder._recover_folders()
            folder._keep_changes(recipe)
        elif writes:
            folder._begin(recipe)
        return folder

    def check(self, recipe: Recipe, *, resume: bool) -> None:
        """Raise what `open` would, but change nothing."""
        if self.writes and resume:
            self._check_recipe(recipe)
        elif self.writes:
            self._check_free()

    def is_finished(self, recipe: Recipe) -> bool:
        """Return True if a run by this very recipe has left final/, the last that it writes.

        Raises RecipeError if the run's recipe cannot be read.
        """
        if not self.final.is_dir() or not self.recipe_file.is_file():
            return False
        if self._foreign_code(recipe):
            return False
        with naming(f"cannot resume {self.path}"):
            return _fixed_text(load_recipe(self.recipe_file)) == _fixed_text(recipe)

    def append(self, name: str, rows: Iterable[Mapping[str, Any]]) -> None:
        """Add rows to the log `name`."""
        if not self.writes:
            return
        lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
        if lines:
            path = self.path / name
            with self.writing(path), path.open("ab") as log:
                log.write(encode_text("".join(lines)))

    def rows(self, name: str, field: str = "", kind: type | UnionType = object) -> list[dict[str, Any]]:
        """Return the rows of the log `name`, none if it is not there.

        Raises TrainingError if a row is not an object whose `field`, if one is named, is of type `kind`.
        """
        path = self.path / name
        rows = read_json_lines(path) if path.is_file() else []
        for number, row in enumerate(rows, 1):
            if not isinstance(row, dict) or (field and not isinstance(row.get(field), kind)):
                raise TrainingError(
                    f"{path}, row {number}: expected an object as the run wrote it, with {field or 'its figures'}, "
                    f"found {short_repr(row)}; put the file back as it was"
                )
        return rows

    def latest_checkpoint(self) -> Path | None:
        """Return the newest complete checkpoint."""
        checkpoints = self._checkpoints()
        return checkpoints[-1] if checkpoints else None

    def write_checkpoint(
        self, policy: Policy, state: dict[str, Any], *, step: int, keep: int, weights: dict[str, Tensor] | None = None
    ) -> None:
        """Write checkpoints/step_N whole, then drop all but the newest `keep`.

        `weights` take the place of the model's own where it holds shards. Raises TrainingError if it cannot be
        written; the ones before it stay.
        """
        if not self.writes:
            return
        final = self.checkpoints / f"step_{step}"
        with self.writing(final), whole_folder(final) as folder:
            save_trained(policy, folder, weights)
            torch.save({**state, "log_lengths": self._log_lengths()}, folder / STATE_FILE)

        # Only now that the new one is whole.
        for old in self._checkpoints()[:-keep]:
            with self.writing(old):
                remove_folder(old)

    def read_state(self, checkpoint: Path) -> dict[str, Any]:
        """Return the trainer state in `checkpoint`, with the logs' lengths.

        Raises CheckpointError if it cannot be read, or if it is damaged: that one names the checkpoint before.
        """
        file = checkpoint / STATE_FILE
        reason: Exception | None = None
        state: Any = None
        try:
            # A file that cannot be opened is not damaged, so it must not be deleted.
            with file.open("rb") as opened:
                opened.read(1)
            state = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
        except Exception as error:  # torch and pickle raise errors of any type for a damaged file
            if _is_unreadable(error):
                raise CheckpointError(
                    f"cannot read {file}: {getattr(error, 'strerror', None) or error}; the checkpoint may be whole: "
                    "make it readable and continue with --resume"
                ) from error
            reason = error

        missing = _find_missing(state)
        if not missing:
            return dict(state)

        others = [path.name for path in self._checkpoints() if path != checkpoint]
        fallback = others[-1] if others else "the beginning"
        raise CheckpointError(
            f"{file} is damaged or of another version ({', '.join(sorted(missing))} cannot be read); delete "
            f"{checkpoint}, and --resume goes on from {fallback}"
        ) from reason

    def cut_logs(self, lengths: Mapping[str, int]) -> None:
        """Shorten each log to its length in bytes in `lengths`, to nothing if not there."""
        if not self.writes:
            return
        for path in self._logs():
            # Never beyond its end: that would fill it up with zero bytes.
            length = min(path.stat().st_size, lengths.get(path.name, 0))
            os.truncate(path, length)

    def write_model(
        self, name: str, policy: Policy, dtype: torch.dtype, weights: dict[str, Tensor] | None = None
    ) -> None:
        """Write the model folder `name` whole; `weights` as in `write_checkpoint`."""
        if not self.writes:
            return
        final = self.path / name
        with self.writing(final), whole_folder(final) as folder:
            save_policy(policy, folder, dtype, weights=weights)

    def _checkpoints(self) -> list[Path]:
        """Return all complete checkpoints, the newest last."""
        by_step: dict[int, Path] = {}
        for path in self.checkpoints.glob("step_*"):
            match = re.fullmatch(r"step_(\d+)", path.name)
            if match:  # not a copy that the user keeps, such as step_10_backup
                by_step[int(match[1])] = path
        return [by_step[step] for step in sorted(by_step)]

    def _begin(self, recipe: Recipe) -> None:
        """Write the files that a run begins with; the versions mark the folder as a run's."""
        try:
            write_json_atomic(self.path / "versions.json", _versions())
            write_text_atomic(self.recipe_file, to_toml(recipe))
        except OSError as error:
            raise TrainingError(f"cannot write into {self.path}: {error}; choose another --run-dir") from error

    def _read_recipe_text(self) -> str:
        """Return the run's recipe as this version writes it; RecipeError names file and key if it cannot be read."""
        # An older version wrote fewer keys: reading fills in the defaults of those that have come since.
        with naming(f"cannot resume {self.path}"):
            return to_toml(load_recipe(self.recipe_file))

    def _keep_changes(self, recipe: Recipe) -> None:
        """Store the recipe that a run goes on with, where it differs in what may be changed."""
        if self._read_recipe_text() != to_toml(recipe):
            with self.writing(self.recipe_file):
                write_text_atomic(self.recipe_file, to_toml(recipe))

    def _foreign_code(self, recipe: Recipe) -> list[str]:
        """Return the names of code (`module:object`) in the run's recipe that `recipe` does not have."""
        try:
            stored = tomllib.loads(self.recipe_file.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):
            return []  # `load_recipe` names what is wrong with it, and imports nothing
        return sorted(_names_of_code(stored) - _names_of_code(tomllib.loads(to_toml(recipe))))

    def _check_recipe(self, recipe: Recipe) -> None:
        """Raise TrainingError if there is no run to resume, or if it is one of another recipe."""
        if not self.recipe_file.is_file():
            raise TrainingError(f"there is no run in {self.path} to resume; start it without --resume")

        # Reading a recipe imports the code that it names. Only what the user names too may run.
        if foreign := self._foreign_code(recipe):
            raise TrainingError(
                f"cannot resume {self.path} with a changed recipe: {self.recipe_file} names {', '.join(foreign)}, "
                "which this recipe does not; nothing that only the folder of a run names is imported"
            )

        before = self._read_recipe_text()
        now = to_toml(recipe)
        if before != now and _fixed_text(load_recipe(self.recipe_file)) != _fixed_text(recipe):
            # The changed lines alone, without the headers of a diff.
            changes = unified_diff(before.splitlines(), now.splitlines(), n=0, lineterm="")
            changed = [line for line in changes if not line.startswith(("---", "+++", "@@"))]
            raise TrainingError(
                f"cannot resume {self.path} with a changed recipe (- the run's, + this one):\n" + "\n".join(changed)
            )

    def _recover_folders(self) -> None:
        """Mend the folders that a kill interrupted, but only those that a run writes."""
        for folder in (*interrupted(self.path), *interrupted(self.checkpoints)):
            if re.fullmatch(r"initial|best|final|step_\d+", folder.name):
                recover(folder)

    def _remove_left_over_files(self) -> None:
        """Remove the temporary files that a kill left while a file of the run was written."""
        for path in self.path.glob(".*"):
            if LEFT_OVER.fullmatch(path.name):
                path.unlink(missing_ok=True)

    def _check_free(self) -> None:
        """Raise TrainingError if a new run cannot have this folder.

        It may hold a run that never began, an evaluation, and hidden files.
        """
        names = {entry.name for entry in self.path.glob("*") if not entry.name.startswith(".")}
        has_run = "versions.json" in names

        # A run that has neither logs nor checkpoints never began, and its place is free.
        if has_run and names & {"metrics.jsonl", self.checkpoints.name}:
            raise TrainingError(
                f"{self.path} holds a run already; continue it with --resume or choose another --run-dir"
            )
        if not has_run and names - {"evaluation"}:
            raise TrainingError(
                f"{self.path} is not empty and holds no run (there is {min(names)}); choose another --run-dir"
            )

    def _logs(self) -> list[Path]:
        return [self.path / name for name in LOGS if (self.path / name).is_file()]

    def _log_lengths(self) -> dict[str, int]:
        """Return the length of each log in bytes, all of which are on the disk."""
        # A checkpoint relies on the rows up to these lengths, so they must outlast a power cut.
        for path in (*self._logs(), self.path):
            sync(path)
        return {log.name: log.stat().st_size for log in self._logs()}

    @contextmanager
    def writing(self, path: Path) -> Iterator[None]:
        """Turn the errors of a write that fails, as on a full disk, into TrainingError."""
        try:
            yield
        except (OSError, RuntimeError, SafetensorError) as error:
            # Of torch's RuntimeErrors only those of its file writer are about the disk.
            if isinstance(error, RuntimeError) and not TORCH_WRITER.search(str(error)):
                raise
            newest = self.latest_checkpoint()
            kept = "there is no checkpoint yet"
            if newest:
                kept = f"the newest checkpoint, {newest}, is kept"
            raise TrainingError(
                f"cannot write {path}: {error}; {kept}; make room and continue with --resume"
            ) from error


def initial_model(recipe: Recipe, run_folder: RunFolder) -> Path:
    """Return the folder of the model that training starts from; "tiny-random" is made there first."""
    if recipe.model.path != "tiny-random":
        return model_folder(recipe.model.path)
    from visionr1.models.tiny import build_tiny

    folder = run_folder.path / "initial"
    if not folder.exists():
        with run_folder.writing(folder), whole_folder(folder) as new:
            build_tiny(new, seed=recipe.seed)
    return folder


def _names_of_code(table: Any, place: tuple[str, str] = ("", "")) -> set[str]:
    """Return the names of the form `module:object` in a TOML document; `place` is the table's key and the one above."""
    names: set[str] = set()
    if isinstance(table, Mapping):
        for key, value in table.items():
            names |= _names_of_code(value, (place[1], key))
    elif isinstance(table, list):
        for item in table:
            names |= _names_of_code(item, place)
    elif place in KEYS_OF_CODE and isinstance(table, str) and ":" in table:
        names.add(table)
    return names


def _fixed_text(recipe: Recipe) -> str:
    """Return the recipe as TOML, but for the settings that a run may change when it is resumed.

    None of them changes a draw of a sample that was used: the number of workers, which samples to do without, where
    the images lie, and where a server is that samples.
    """
    phases = []
    for phase in recipe.phases:
        data = tuple(source.with_changes(on_bad="raise", leave_out=(), images="") for source in phase.data)
        phases.append(phase.with_changes(data=data))
    evaluation = recipe.eval.with_changes(on_bad="raise", images="")
    rollout = recipe.rollout
    if rollout.server:
        rollout = rollout.with_changes(server="http://server", server_weights="", server_timeout=1.0)
    return to_toml(recipe.with_changes(workers=0, phases=tuple(phases), eval=evaluation, rollout=rollout))


def _is_unreadable(error: Exception) -> bool:
    """Return True for an error of opening or reading a file, whatever is in it."""
    if isinstance(error, FileNotFoundError):
        return False
    # torch maps the file into memory, and says by a RuntimeError that it cannot.
    return isinstance(error, OSError | MemoryError) or "unable to mmap" in str(error)


def _find_missing(state: Any) -> set[str]:
    """Return the fields that a trainer state lacks, or that are not what they should be."""
    if not isinstance(state, dict):
        return {"everything"}
    missing = {name for name in STATE_FIELDS if not isinstance(state.get(name), dict)}
    if missing:
        return missing

    # The place that the run had reached, and where its logs are cut.
    position = state["position"]
    names = {field.name for field in fields(Position)}
    if position.keys() != names or not all(isinstance(value, int | float) for value in position.values()):
        missing.add("position")
    if not all(isinstance(length, int) and length >= 0 for length in state["log_lengths"].values()):
        missing.add("log_lengths")
    return missing


def _versions() -> dict[str, Any]:
    """Return the versions of Python and the packages, the machine, and the command that began the run."""
    package_versions = {name: version(name) for name in PACKAGES}
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {
        "python": platform.python_version(),
        "visionr1": __version__,
        **package_versions,
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        "cuda": gpu,
        "command": shlex.join(["visionr1", *sys.argv[1:]]),
    }
