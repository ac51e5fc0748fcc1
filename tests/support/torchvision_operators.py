"""torchvision beside a torch that it was not built for: the sitecustomize.py of the environment of `make test-vllm`.

PyPI's torchvision is built for CUDA. Beside a CPU build of torch its own operators cannot be loaded, and then importing
it fails where it describes them, and importing transformers' models with it. vLLM needs torchvision, but not these
operators, so declaring them is enough. vLLM starts processes, so it is done where Python starts.
"""

import torch

OPERATORS = ("nms", "qnms")

for operator in OPERATORS:
    if not hasattr(torch.ops.torchvision, operator):
        torch.library.define(f"torchvision::{operator}", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
