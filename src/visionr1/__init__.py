"""visionr1: train vision-language models to detect objects, by RL from box annotations.

The names below are the box side: numpy, scipy and pillow, never torch. What trains and generates
lives in `visionr1.training.train` and `visionr1.evaluation.runner`.
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_HOME = {
    "Boxes": "visionr1.samples",
    "Fault": "visionr1.samples",
    "FaultKind": "visionr1.samples",
    "GroundTruth": "visionr1.samples",
    "Query": "visionr1.samples",
    "Reply": "visionr1.samples",
    "Reward": "visionr1.rewards",
    "Sample": "visionr1.samples",
    "Score": "visionr1.rewards",
    "Stage": "visionr1.rewards",
    "Stages": "visionr1.rewards",
    "get_dialect": "visionr1.dialects",
    "instruction": "visionr1.dialects",
}

__all__ = ["__version__", *_HOME]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
