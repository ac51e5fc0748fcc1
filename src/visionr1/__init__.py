"""visionr1: train vision-language models to detect objects, by RL from box annotations.

The names below are the box side: numpy, scipy and pillow, never torch. Each is imported from its room when it is first
used, so that `import visionr1` loads nothing. To train, see `visionr1.training.train`; to evaluate a model,
`visionr1.evaluation.runner`.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # what type checkers and editors read; a test keeps it equal to _HOME
    from visionr1.dialects import get_dialect, instruction
    from visionr1.rewards import Reward, Score, Stage, Stages
    from visionr1.samples import Boxes, Fault, FaultKind, GroundTruth, Query, Reply, Sample

__version__ = "0.2.0"

__all__ = [
    "Boxes",
    "Fault",
    "FaultKind",
    "GroundTruth",
    "Query",
    "Reply",
    "Reward",
    "Sample",
    "Score",
    "Stage",
    "Stages",
    "__version__",
    "get_dialect",
    "instruction",
]

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


if not TYPE_CHECKING:  # a checker that saw this function would take any name for a public one

    def __getattr__(name: str) -> object:
        if name not in _HOME:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
