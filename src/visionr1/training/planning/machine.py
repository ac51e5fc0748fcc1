"""Machines that a plan is for: how much memory a process has, and how long an operation takes.

An operation takes the time of its products or of its memory traffic, whichever is longer (the roofline model: Williams,
Waterman and Patterson, 2009). A CPU starts one after the other; a GPU's are started beside those that run.
"""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from visionr1.training.planning.meter import Operation

GIB = 2**30
START_ON_CPU = 5e-6
"""Seconds that Python and torch take to start an operation."""
START_ON_GPU = 8e-6
"""The same with the launch of a kernel."""
HALF_OVER_FULL = 8.0
"""How many times as fast a GPU multiplies bfloat16 as float32, without TF32: 989 and 67 TFLOPS of an H100, in part of
which float32 comes closer to its peak."""
CONTEXT_BYTES = 0.8 * GIB
"""Of a process on a GPU: CUDA's context, cuBLAS's workspaces, kernels that were loaded."""
COLLECTIVE_BYTES = 0.5 * GIB
"""NCCL's buffers, where there are several GPUs."""
FRAGMENTATION = 0.05
"""Share of what is made during a step that a GPU's caching allocator holds in pieces nobody can use."""
MEASURED_SECONDS = 0.1
"""How long each measurement of a CPU lasts."""


@dataclass(frozen=True, slots=True)
class Machine:
    """One process's part of a machine: a GPU, or the CPU."""

    name: str
    is_gpu: bool
    memory: float
    """Bytes that the process may take."""
    flops: float
    """Products of float32 a second, as they are reached."""
    flops_half: float
    """The same of bfloat16."""
    bandwidth: float
    """Bytes of memory a second."""
    assumptions: tuple[str, ...]
    """What of this was not measured, in words."""

    def seconds(self, operation: Operation) -> float:
        """Return how long an operation takes."""
        flops = self.flops_half if operation.is_half else self.flops
        longest = max(operation.flops / flops, operation.num_bytes / self.bandwidth)
        if self.is_gpu:
            return max(START_ON_GPU, longest)
        return START_ON_CPU + longest


def assume_gpu(memory_gib: float, tflops: float, terabytes: float) -> Machine:
    """Return a GPU of so much memory that reaches `tflops` in bfloat16 and moves `terabytes` a second."""
    return Machine(
        name=f"GPU of {memory_gib:g} GiB",
        is_gpu=True,
        memory=memory_gib * GIB,
        flops=tflops * 1e12 / HALF_OVER_FULL,
        flops_half=tflops * 1e12,
        bandwidth=terabytes * 1e12,
        assumptions=(
            f"the GPU reaches {tflops:g} TFLOPS in bfloat16 products (--tflops), {tflops / HALF_OVER_FULL:g} in "
            f"float32, moves {terabytes:g} TB a second (--bandwidth) and starts an operation in "
            f"{START_ON_GPU * 1e6:g} us",
            f"CUDA and its libraries take {CONTEXT_BYTES / GIB:g} GiB, NCCL {COLLECTIVE_BYTES / GIB:g} GiB where there "
            f"are several GPUs, and {FRAGMENTATION:.0%} of what a step makes is lost to fragmentation",
            "figures for a GPU are computed; this project has not compared them with a run on one yet",
        ),
    )


def measure_cpu() -> Machine:
    """Return this machine's CPU, measured for half a second."""
    full, half = (_measure_products(dtype) for dtype in (torch.float32, torch.bfloat16))
    return Machine(
        name=f"CPU, {torch.get_num_threads()} threads",
        is_gpu=False,
        memory=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        flops=full,
        flops_half=half,
        bandwidth=_measure_bandwidth(),
        assumptions=(
            f"this CPU, as just measured: {full / 1e9:.0f} GFLOPS in float32 products, {half / 1e9:.0f} in bfloat16",
        ),
    )


def _measure_products(dtype: torch.dtype) -> float:
    """Return the FLOPS of products of a batch's size."""
    rows, inner, columns = 512, 1024, 1024
    left, right = torch.ones(rows, inner, dtype=dtype), torch.ones(inner, columns, dtype=dtype)
    return 2 * rows * inner * columns / _fastest(lambda: left @ right)


def _measure_bandwidth() -> float:
    """Return the bytes a second of an addition that fits into no cache."""
    values = torch.ones(1 << 24)
    output = torch.empty_like(values)
    return 2 * values.nbytes / _fastest(lambda: torch.add(values, 1.0, out=output))


def _fastest(call: Callable[[], object]) -> float:
    """Return the seconds of the fastest of some calls: the others waited for something else."""
    call()
    fastest = float("inf")
    end = time.perf_counter() + MEASURED_SECONDS
    while time.perf_counter() < end:
        began = time.perf_counter()
        call()
        fastest = min(fastest, time.perf_counter() - began)
    return fastest
