"""The weights of a loaded model by the names, and in the form, of the folder that they were loaded from.

transformers renames weights of released folders while it loads them, and joins or splits some (the experts of a
mixture). An engine that has read the folder itself knows its names alone.
"""

from collections.abc import Iterable, Iterator
from typing import Any

from torch import Tensor
from transformers.core_model_loading import WeightConverter, revert_weight_conversion


def as_in_folder(model: Any, weights: Iterable[tuple[str, Tensor]]) -> Iterator[tuple[str, Tensor]]:
    """Yield `weights`, named as in the model's state dict, as `save_pretrained` would write them.

    One after the other, but where several of the model's make one of the folder's: then all are held at once.
    """
    conversions = getattr(model, "_weight_conversions", None) or ()
    joins = [one for one in conversions if isinstance(one, WeightConverter) and len(one.target_patterns) > 1]
    if joins:
        yield from revert_weight_conversion(model, dict(weights)).items()
        return
    for name, weight in weights:
        yield from revert_weight_conversion(model, {name: weight}).items()
