"""Fixtures of all tests, and the two tiers: `pytest` runs everything, `pytest --fast` the box side alone.

The box side is whatever needs no torch: dialects, rewards, data, scoring, report, command line, documents. It takes
under a minute, and each import of torch in it is an error, so that it stays so.
"""

import os
import signal
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import settings

SLOW = (
    "benchmarks",
    "cases/test_attacks_models.py",
    "cases/test_attacks_runs.py",
    "cases/test_coco_models.py",
    "cases/test_ids_of_a_model.py",
    "cases/test_runs_images.py",
    "cli/test_models.py",
    "cli/test_plan.py",
    "models",
    "rollout",
    "training",
    "test_demo.py",
    "evaluation/test_engines.py",
    "evaluation/test_runner.py",
    "evaluation/test_vqa.py",
    "integrations/test_examples.py",
)
"""Folders and files whose tests load torch."""
MODELS = "qwen3_folder"
"""The fixture under every model folder: a test that asks for a model is slow wherever it stands."""

settings.register_profile("visionr1", deadline=None, derandomize=True, max_examples=100)
settings.load_profile("visionr1")


class NoTorch:
    """A finder of modules that refuses torch: the fast tier runs where none is installed."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name == "torch":
            raise ModuleNotFoundError("the fast tier has no torch: add this test's file to SLOW in tests/conftest.py")
        return None


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--fast", action="store_true", help="run the box side alone: no test that needs torch")


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--fast"):
        sys.meta_path.insert(0, NoTorch())
    # Under nohup a process ignores hangups, and so would the runs that are tested.
    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
    # Workers of xdist share the cores instead of each starting as many threads as there are.
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    if workers > 1:
        os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // workers)))


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    if not config.getoption("--fast"):
        return None
    here = Path(__file__).parent
    return True if any(collection_path == here / name for name in SLOW) else None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not config.getoption("--fast"):
        return
    slow = [item for item in items if MODELS in getattr(item, "fixturenames", ())]
    items[:] = [item for item in items if item not in slow]
    config.hook.pytest_deselected(items=slow)


@pytest.fixture(scope="session")
def qwen3_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Qwen3-VL of a few thousand parameters."""
    from support.random_models import build_qwen3

    return build_qwen3(tmp_path_factory.mktemp("models") / "qwen3_vl", width=64, layers=2, pixels=120 * 120)


@pytest.fixture(scope="session")
def qwen25_folder(qwen3_folder: Path) -> Path:
    """A random Qwen2.5-VL of a few thousand parameters."""
    from support.random_models import build_qwen25

    return build_qwen25(qwen3_folder.parent / "qwen2_5_vl", qwen3_folder, width=64, layers=2)


@pytest.fixture(scope="session")
def internvl_folder(qwen3_folder: Path) -> Path:
    """A random InternVL of a few thousand parameters."""
    from support.random_families import build_internvl

    return build_internvl(qwen3_folder.parent / "internvl", qwen3_folder, width=64, layers=2)


@pytest.fixture(scope="session")
def smolvlm_folder(qwen3_folder: Path) -> Path:
    """A random SmolVLM of a few thousand parameters."""
    from support.random_families import build_smolvlm

    return build_smolvlm(qwen3_folder.parent / "smolvlm", qwen3_folder, width=64, layers=2)


@pytest.fixture(scope="session")
def idefics3_folder(qwen3_folder: Path) -> Path:
    """A random Idefics3 of a few thousand parameters."""
    from support.random_families import build_smolvlm

    return build_smolvlm(qwen3_folder.parent / "idefics3", qwen3_folder, model_type="idefics3", width=64, layers=2)


@pytest.fixture(params=["qwen3", "qwen25"])
def qwen_folder(request: pytest.FixtureRequest) -> Path:
    """Each family of Qwen in turn."""
    folder: Path = request.getfixturevalue(f"{request.param}_folder")
    return folder


@pytest.fixture(params=["internvl", "smolvlm", "idefics3"])
def tiled_folder(request: pytest.FixtureRequest) -> Path:
    """Each family that cuts images into tiles in turn."""
    folder: Path = request.getfixturevalue(f"{request.param}_folder")
    return folder


@pytest.fixture(params=["qwen3", "qwen25", "internvl", "smolvlm", "idefics3"])
def model_folder(request: pytest.FixtureRequest) -> Path:
    """Each family in turn."""
    folder: Path = request.getfixturevalue(f"{request.param}_folder")
    return folder
