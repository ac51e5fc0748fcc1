"""torchvision beside a torch that it was not built for.

PyPI's torchvision is built for CUDA. Beside a CPU build of torch its own operators cannot be loaded, and then importing
it fails where it describes them, and importing transformers' models with it. vLLM needs torchvision, but not these
operators: declaring them is enough. A plugin of pytest, because that comes first: `pytest -p support.torchvision_operators`.
"""

import torch

OPERATORS = (
    "torchvision::nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "torchvision::qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)


def pytest_configure() -> None:
    """Declare the operators that torchvision describes when it is imported, unless it brings them itself."""
    for schema in OPERATORS:
        name, _, arguments = schema.partition("(")
        namespace, _, operator = name.partition("::")
        if not hasattr(getattr(torch.ops, namespace), operator):
            torch.library.define(name, f"({arguments}")
