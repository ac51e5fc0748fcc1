"""Sampling on the shared-prefix path: one prefill per sample, then G branches decoded side by side.

Every image and prompt goes through the model once; its G completions share its keys and values. Rows that have ended
leave the batch. Image and special tokens are never sampled, and position ids are passed, so nothing of one call leaks
into the next.
Axis letters: A axes of position ids, B samples, G completions of one sample, N = B x G rows, T tokens, D width of a
head.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache

from visionr1.models.paths.packed import PackedPath, rotary_positions
from visionr1.models.policy import Policy
from visionr1.models.prompts import Prompt, join_features, join_inputs
from visionr1.rollout.cache import BranchCache
from visionr1.rollout.drafted import sample_with_drafts
from visionr1.rollout.draw import draw_tokens
from visionr1.rollout.engine import Completion, Progress, Sampling, Seeds
from visionr1.rollout.loop import choose_num_rows, sample_rows


def decode(
    policy: Policy,
    cache: BranchCache,
    tokens: Tensor,
    rotation: tuple[Tensor, Tensor],
    sampling: Sampling,
    uniform: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """Decode one step: return the next token (N,) of each row after `tokens` (N,), and its log-probability.

    `rotation` is cosine and sine (N, 1, D) of the positions of `tokens`; `uniform` as in `draw_tokens`.
    """
    states = policy.decoder.embed_tokens(tokens)[:, None]
    for number, layer in enumerate(policy.decoder.layers):
        # `forward`, not a call: the weights are whole while sampling, and FSDP2's hooks would only cost time.
        states = layer.forward(
            states,
            position_embeddings=rotation,
            attention_mask=cache.mask,
            past_key_values=cache,
            prefix=cache.prefix(number),
        )
    return _draw(policy, policy.decoder.norm(states)[:, 0], sampling, uniform)


class Decoder:
    """How `generate` goes from one token to the next: operation by operation, with few rows and columns to spare.

    `compiled` has another, which takes fewer shapes and compiles them.
    """

    block = 32
    """Columns by which branches grow when they are full."""
    compact = True
    """Drop a prompt's keys with its last row."""
    most_guesses = 8
    """Tokens that are guessed for one row and checked by one pass; 0 decodes token by token."""
    step = staticmethod(decode)

    def num_rows(self, num_running: int, num_rows: int) -> int:
        """Return how many of `num_rows` rows to keep, of which `num_running` must be."""
        return choose_num_rows(num_running, num_rows)

    def memory(self, number: int, shape: tuple[int, ...], most_columns: int, like: Tensor) -> Tensor:
        """Return memory for a part of the cache, as `cache.Allocate`."""
        return like.new_empty(shape)


@torch.no_grad()
def generate(
    policy: Policy,
    prompts: Sequence[Prompt],
    sampling: Sampling,
    seeds: Seeds = (),
    *,
    progress: Progress | None = None,
    decoder: Decoder | None = None,
) -> list[list[Completion]]:
    """Sample as `RolloutEngine`; `progress` is called after each token of all rows."""
    decoder = decoder or Decoder()
    branches = PackedBranches(policy, prompts, sampling, decoder)
    if not decoder.most_guesses:
        return sample_rows(policy, branches, sampling, seeds, progress)
    return sample_with_drafts(policy, branches, sampling, seeds, most_guesses=decoder.most_guesses, progress=progress)


class PackedBranches:
    """`loop.Branches` over this package's own cache.

    Images and prompts go through the model once, in one batch; the G rows of each share what the pass leaves.
    """

    def __init__(self, policy: Policy, prompts: Sequence[Prompt], sampling: Sampling, decoder: Decoder) -> None:
        self.policy = policy
        self.choose_num_rows = decoder.num_rows
        self._decoder = decoder
        hidden, prefill, is_prompt = _prefill(policy, prompts)
        self._cache = BranchCache(
            prefill,
            is_prompt,
            num_completions=sampling.num_completions,
            max_new_tokens=sampling.max_new_tokens,
            block=decoder.block,
            allocate=decoder.memory,
            compact=decoder.compact,
        )
        self._hidden = hidden.repeat_interleave(sampling.num_completions, dim=0)
        self._cosine, self._sine = _rotations(policy.decoder, prompts, sampling, self._hidden)
        self.num_rows = len(self._hidden)
        self.device = self._hidden.device

    def draw_first(self, sampling: Sampling, uniform: Tensor | None) -> tuple[Tensor, Tensor]:
        """As in `Branches`."""
        return _draw(self.policy, self._hidden, sampling, uniform)

    def keep(self, rows: Tensor) -> None:
        """As in `Branches`."""
        self._cosine, self._sine = self._cosine[rows], self._sine[rows]
        self._cache.keep(rows)

    def decode(self, tokens: Tensor, step: int, sampling: Sampling, uniform: Tensor | None) -> tuple[Tensor, Tensor]:
        """As in `Branches`."""
        self._cache.open_column()
        rotation = self._cosine[:, step : step + 1], self._sine[:, step : step + 1]
        return self._decoder.step(self.policy, self._cache, tokens, rotation, sampling, uniform)

    def decode_many(
        self, tokens: Tensor, rows: Tensor, places: Tensor, sampling: Sampling, uniform: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """As in `DraftedBranches`."""
        self._cache.open_places(rows, places)
        rows, places = rows.to(self.device), places.to(self.device)
        rotation = self._cosine[rows, places][:, None], self._sine[rows, places][:, None]
        return self._decoder.step(self.policy, self._cache, tokens.to(self.device), rotation, sampling, uniform)

    def skip(self, steps: int) -> None:
        """As in `Branches`."""
        self._cache.skip(steps)

    def cached(self) -> list[Tensor]:
        """As in `Branches`."""
        return [*self._cache.prefix_parts, *self._cache.parts]


def _prefill(policy: Policy, prompts: Sequence[Prompt]) -> tuple[Tensor, DynamicCache, Tensor]:
    """Return the last hidden state (B, D) of each prompt, its keys and values, and where prompts are (B, T).

    Prompts are padded on the right, where causal attention never looks back from.
    """
    assert isinstance(policy.path, PackedPath)
    lengths = [len(prompt.input_ids) for prompt in prompts]
    shape = (len(prompts), max(lengths))
    input_ids = torch.zeros(shape, dtype=torch.long)
    position_ids = torch.zeros((len(prompts[0].position_ids), *shape), dtype=torch.long)
    is_prompt = torch.zeros(shape, dtype=torch.bool)
    for row, prompt in enumerate(prompts):
        input_ids[row] = prompt.input_ids[-1]  # padding is text: token 0 might be that of images
        input_ids[row, : lengths[row]] = prompt.input_ids
        position_ids[:, row, : lengths[row]] = prompt.position_ids
        is_prompt[row, : lengths[row]] = True

    cache = DynamicCache()
    hidden = policy.path.hidden_states(
        policy,
        input_ids=input_ids.to(policy.device),
        position_ids=position_ids.to(policy.device),
        tree=None,
        inputs={name: tensor.to(policy.device) for name, tensor in join_inputs(prompts).items()},
        features=join_features(prompts),
        cache=cache,
    )
    last = torch.tensor(lengths, device=policy.device) - 1
    return hidden[torch.arange(len(prompts), device=policy.device), last], cache, is_prompt.to(policy.device)


def _rotations(decoder: Any, prompts: Sequence[Prompt], sampling: Sampling, like: Tensor) -> tuple[Tensor, Tensor]:
    """Return cosine and sine (N, T, D) of the rotary embedding for the tokens to come."""
    starts = torch.tensor([int(prompt.position_ids.max()) + 1 for prompt in prompts])
    starts = starts.repeat_interleave(sampling.num_completions)
    positions = starts[:, None] + torch.arange(sampling.max_new_tokens)  # (N, T), the same on all axes
    position_ids = positions.expand(len(prompts[0].position_ids), -1, -1).to(like.device)
    cosine, sine = decoder.rotary_emb(like, rotary_positions(position_ids))
    return cosine, sine


def _draw(policy: Policy, hidden: Tensor, sampling: Sampling, uniform: Tensor | None) -> tuple[Tensor, Tensor]:
    """Draw a token (N,) after each hidden state (N, D), and return its log-probability too."""
    logits = policy.logits(hidden, temperature=sampling.temperature or 1.0)
    return draw_tokens(logits, sampling, uniform)
