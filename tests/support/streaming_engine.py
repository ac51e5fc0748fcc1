"""An engine that answers prompts as others end and reads the model folder itself, as vLLM does.

The last prompt that it has taken is answered first. Commands name it `tests/support/streaming_engine.py:open_engine`.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

from visionr1.models.adapters import merged_weights
from visionr1.models.loading import load_policy
from visionr1.models.policy import Policy
from visionr1.models.prompts import Prompt
from visionr1.models.settings import ModelSection
from visionr1.rollout.engine import Completion, Sampling, Seeds
from visionr1.rollout.engines import reads_folder
from visionr1.rollout.engines.builtin import generate
from visionr1.rollout.settings import RolloutSection

NAME = f"{__file__}:open_engine"
LABEL = "streaming 1.0"


class StreamingStandIn:
    """A copy of the model of a folder."""

    label = LABEL
    copies_weights = True

    def __init__(self, folder: str | Path, dtype: str) -> None:
        self.policy = load_policy(Path(folder), dtype=dtype)
        self.dtype = dtype
        self.num_loads = 0
        self.most_at_once = 0

    def __call__(
        self, policy: Policy, prompts: Sequence[Prompt], sampling: Sampling, seeds: Seeds = ()
    ) -> list[list[Completion]]:
        self.load(policy)
        return generate(self.policy, [self._whole(prompt) for prompt in prompts], sampling, seeds)

    def load(self, policy: Policy) -> None:
        if policy.has_weights:
            self.num_loads += 1
            weights = dict(merged_weights(policy.model, policy.model.state_dict()))
            self.policy.model.load_state_dict(weights, strict=False)

    def answer(
        self, policy: Policy, prompts: Iterable[Prompt], *, max_new_tokens: int, at_once: int
    ) -> Iterator[tuple[int, Completion]]:
        self.load(policy)
        greedy = Sampling(max_new_tokens=max_new_tokens, temperature=0.0)
        unasked = enumerate(prompts)
        under_way: list[tuple[int, Prompt]] = []
        while True:
            under_way += islice(unasked, at_once - len(under_way))
            if not under_way:
                return
            self.most_at_once = max(self.most_at_once, len(under_way))
            place, prompt = under_way.pop()
            ((completion,),) = generate(self.policy, [self._whole(prompt)], greedy)
            yield place, completion

    def _whole(self, prompt: Prompt) -> Prompt:
        """The prompt with what the vision tower takes, which this engine makes of the image."""
        path: Any = self.policy.path
        encoded = path.family.encode_image(
            self.policy.config, self.policy.image_processor, self.policy.tokenizer, prompt.image
        )
        return replace(prompt, inputs=encoded.inputs)


@reads_folder
def open_engine(policy: Policy, model: ModelSection, rollout: RolloutSection) -> StreamingStandIn:
    """Open a copy of the folder's model."""
    return StreamingStandIn(policy.model.name_or_path, model.dtype)
