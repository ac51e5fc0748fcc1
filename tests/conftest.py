from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("visionr1", deadline=None, derandomize=True, max_examples=100)
settings.load_profile("visionr1")


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
