"""The programs of benchmarks/ as modules.

They are no part of the package and are not on the path of the tests. What they compute (the cost model, the settings of
both sides, ratios) is tested as functions all the same, because the programs themselves run for minutes or need a GPU.
"""

from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).parents[2] / "benchmarks"


def load_benchmark(name: str) -> Any:
    """Import benchmarks/`name`.py, which finds its neighbours as it does when it is run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(FOLDER)
        return import_module(name)
