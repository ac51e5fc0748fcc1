"""Evaluating files of predictions in tests."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from visionr1.evaluation import PredictionFiles, Result, evaluate


def evaluate_file(files: Path | Sequence[Path], data: Any, *, dialect: str | None = None, **options: Any) -> Result:
    """The result of a file of predictions, or of several shards of one evaluation."""
    paths = [files] if isinstance(files, Path) else files
    return evaluate(data, PredictionFiles(paths, dialect), **options).result
