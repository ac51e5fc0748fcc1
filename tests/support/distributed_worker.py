"""One process among several, started by a launcher: runs the command line for each job in a JSON file.

A job has `arguments`; with `shards` policy and reference are in FSDP2's, which accelerate itself offers only on GPUs,
with `offloads` in those that are kept on the CPU between passes;
with `again`, its run folder is that one, unfinished; with `dies`, the last process kills itself in that step; with
`spoilt`, the loss of its second sample is no number in that step, and the command is to fail; with `one_token`, the
sample at that place of each batch gets replies of one token.
"""

import json
import os
import shutil
import signal
import sys
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

from accelerate import Accelerator, PartialState
from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin
from torch.distributed.fsdp import CPUOffloadPolicy, OffloadPolicy
from torch.distributed.tensor import DTensor

from visionr1.cli import main
from visionr1.training import train
from visionr1.training.distributed import make_accelerator
from visionr1.training.learners import Supervised, SupervisedWork

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from support.short_replies import one_token_replies


def in_shards(device: str, *, offload: bool = False) -> Accelerator:
    """An accelerator as a launcher's FSDP2 settings make it on GPUs."""
    accelerator = make_accelerator(device)
    PartialState().distributed_type = accelerator.state.distributed_type = DistributedType.FSDP
    accelerator.state.fsdp_plugin = FullyShardedDataParallelPlugin(
        fsdp_version=2,
        auto_wrap_policy="transformer_based_wrap",
        cpu_ram_efficient_loading=False,
        cpu_offload=CPUOffloadPolicy(pin_memory=False) if offload else OffloadPolicy(),
    )
    return accelerator


def work(job: dict[str, Any]) -> None:
    """Do one job."""
    take_step, loss = train.take_step, Supervised.loss

    def dying(run: train.TrainingRun, *arguments: Any) -> Any:
        last, step = not run.accelerator.is_main_process, run.position.step + 1
        if last and step == job.get("dies"):
            os.kill(os.getpid(), signal.SIGKILL)
        if "shards" in job:
            assert all(isinstance(weight, DTensor) for weight in run.learner.reference.model.parameters())
        if last and step == job.get("spoilt"):
            Supervised.loss = spoilt  # type: ignore[method-assign]
        return take_step(run, *arguments)

    def spoilt(self: Supervised, work: SupervisedWork) -> Any:
        value, sums = loss(self, work)
        return value * (float("nan") if 1 in work.rows.completion else 1), sums

    if "again" in job and os.environ["RANK"] == "0":  # for which the others wait
        shutil.copytree(job["again"], job["arguments"][2], ignore=shutil.ignore_patterns("final"))
    train.take_step = dying
    train.make_accelerator = make_accelerator
    if job.get("shards"):
        train.make_accelerator = partial(in_shards, offload=job.get("offloads", False))
    with one_token_replies(job["one_token"]) if "one_token" in job else nullcontext():
        status = main(["train", *job["arguments"]])
    train.take_step, Supervised.loss = take_step, loss  # type: ignore[method-assign]
    if status != (2 if "spoilt" in job else 0):
        sys.exit(status or "the command was to fail")


if __name__ == "__main__":
    if os.environ.get("ACCELERATE_USE_DEEPSPEED"):
        import deepspeed.ops

        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False  # gloo's sums, without building any of its own
    for job in json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")):
        work(job)
