"""What torch and malloc keep on a CPU: bounded by a process that loads a model, unless its user says otherwise."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from visionr1.models.loading import load_policy
from visionr1.models.memory.cpu import CACHES, MOST_PREPARED, give_back_memory, limit_prepared_products

linux = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
MEASURE = """
import sys
import torch
from visionr1.models.memory.cpu import give_back_memory, limit_prepared_products

def held():
    give_back_memory()
    pages = int(open("/proc/self/statm").read().split()[1])
    return pages * 4096 / 2**20

torch.set_num_threads(1)
limit_prepared_products()
weight = torch.randn(384, 1536, dtype=torch.bfloat16)
for rows in range(1, 401):
    torch.nn.functional.linear(torch.randn(rows, 1536, dtype=torch.bfloat16), weight)
    if rows == 100:
        before = held()
print(held() - before)
"""


@linux
def test_products_of_many_shapes_do_not_fill_memory() -> None:
    """Three hundred more shapes: about 200 MB on a CPU with units for bfloat16, where all of them are kept."""
    environment = {name: value for name, value in os.environ.items() if name not in CACHES}
    done = subprocess.run(
        [sys.executable, "-c", MEASURE], env=environment, check=True, stdout=subprocess.PIPE, text=True
    )
    assert float(done.stdout) < 80


def test_a_model_that_is_loaded_bounds_them(qwen3_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in CACHES:
        monkeypatch.setenv(name, "")  # restored after the test
        monkeypatch.delenv(name)
    load_policy(qwen3_folder)
    assert [os.environ[name] for name in CACHES] == [str(MOST_PREPARED)] * 2


def test_a_number_that_the_user_has_set_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(CACHES[0], "7")
    monkeypatch.setenv(CACHES[1], "8")
    limit_prepared_products()
    assert [os.environ[name] for name in CACHES] == ["7", "8"]


@linux
def test_freed_memory_is_given_back() -> None:
    """Blocks too small to be mapped one by one, between others that stay."""

    def held() -> int:
        return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])

    give_back_memory()
    blocks = [bytearray(50_000) for _ in range(2000)]
    kept = blocks[::10]
    full = held()
    del blocks
    give_back_memory()
    assert full - held() > 0.5 * 90_000_000 / os.sysconf("SC_PAGE_SIZE")
    assert len(kept) == 200
