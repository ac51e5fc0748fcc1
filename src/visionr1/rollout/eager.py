"""Sampling completions: one prefill per sample, then G branches decoded side by side.

Every image and prompt goes through the model once; its keys and values are then expanded to the G
completions. Rows that have ended leave the batch. Image and special tokens are never sampled, and
position ids are passed, so nothing of one call leaks into the next. On the plain path transformers'
own `generate` runs, a sample at a time, with the same choice of tokens.
Axis letters: B samples, G completions of one sample, N = B x G rows, T tokens, V vocabulary.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from transformers import DynamicCache, GenerationConfig, LogitsProcessor, LogitsProcessorList

from visionr1.models.plain import repeat_inputs
from visionr1.models.policy import Policy
from visionr1.models.prefix import SharedPrefixPath, rotary_positions
from visionr1.models.prompts import Prompt, join_features, join_inputs

KEEP_SHARE = 0.75
"""Ended rows are dropped once fewer than this share is still running: dropping copies the cache."""


Seeds = Sequence[Sequence[int]]
"""One for each prompt. They change with every call, so they are no part of `Sampling`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How replies are drawn."""

    max_new_tokens: int
    """C; a completion that reaches it without an end is truncated."""
    num_completions: int = 1
    """G, of each prompt."""
    temperature: float = 1.0
    """0 is greedy: of the untempered policy the most probable token, whatever the seeds."""
    top_p: float = 1.0
    """Draw from the most probable tokens that hold this mass; 1 is all."""
    top_k: int = 0
    """Draw from so many most probable tokens; 0 is all."""


@dataclass(frozen=True, slots=True, eq=False)
class Completion:
    """One sampled reply."""

    token_ids: Tensor
    """(T,), its end token included unless truncated."""
    text: str
    logprobs: Tensor
    """(T,) of each token under the tempered policy, before top-p and top-k."""
    truncated: bool
    """It reached the token limit without an end."""


class RolloutEngine(Protocol):
    """What samples: `generate`, or another engine that is called like it."""

    def __call__(
        self, policy: Policy, prompts: Sequence[Prompt], sampling: Sampling, seeds: Seeds = ()
    ) -> list[list[Completion]]:
        """See `generate`."""


@torch.no_grad()
def generate(
    policy: Policy,
    prompts: Sequence[Prompt],
    sampling: Sampling,
    seeds: Seeds = (),
    *,
    progress: Callable[[int, int], None] | None = None,
    decoder: "Decoder | None" = None,
) -> list[list[Completion]]:
    """The replies to each prompt; greedy ones need no `seeds`. `decoder` is what goes from token to token, see there.

    A prompt's replies are drawn from its own seed alone, so that they do not depend on which others are in the batch.

    `progress(tokens so far, max_new_tokens)` is called after each token of all rows.
    """
    num_completions, max_new_tokens = sampling.num_completions, sampling.max_new_tokens
    if not policy.path.shares_prefix:
        draw = _Draw(policy, sampling)
        seeds = seeds if sampling.temperature else [()] * len(prompts)
        groups = []
        for prompt, seed in zip(prompts, seeds, strict=True):
            groups.append(_generate_plain(policy, prompt, draw, seed))
            if progress:
                progress(len(groups) * max_new_tokens // len(prompts), max_new_tokens)
        return groups
    decoder = decoder or Decoder()
    device, eos_ids = policy.device, torch.tensor(policy.eos_ids, device=policy.device)
    hidden, prefill, is_prompt = _prefill(policy, prompts)
    cache = BranchCache(prefill, is_prompt, sampling, decoder)
    del prefill  # all of it is in the cache
    hidden = hidden.repeat_interleave(num_completions, dim=0)
    cosine, sine = _rotations(policy.decoder, prompts, sampling, hidden)

    total = len(hidden)
    token_ids = torch.zeros((total, max_new_tokens), dtype=torch.long, device=device)
    logprobs = torch.zeros((total, max_new_tokens), device=device)
    lengths = torch.full((total,), max_new_tokens, device=device)
    rows = torch.arange(total, device=device)  # which completions the running rows are
    running = torch.ones(total, dtype=torch.bool, device=device)
    uniform = _uniform(seeds, sampling).to(device) if sampling.temperature else None
    tokens, chosen = _choose(policy, hidden, sampling, None if uniform is None else uniform[:, 0])
    for step in range(max_new_tokens):
        token_ids[rows, step] = tokens
        logprobs[rows, step] = chosen
        ended = running & torch.isin(tokens, eos_ids)
        lengths[rows[ended]] = step + 1
        running &= ~ended
        num_running = int(running.sum())
        if progress:
            progress(step + 1, max_new_tokens)
        if not num_running or step + 1 == max_new_tokens:
            break
        num_rows = decoder.num_rows(num_running, len(rows))
        if num_rows < len(rows):
            kept = running.argsort(descending=True, stable=True)[:num_rows]
            rows, running, tokens, cosine, sine = (part[kept] for part in (rows, running, tokens, cosine, sine))
            cache.keep(kept)
        cache.open_column()
        rotation = cosine[:, step : step + 1], sine[:, step : step + 1]
        numbers = None if uniform is None else uniform[rows, step + 1]
        tokens, chosen = decoder.step(policy, cache, tokens, rotation, sampling, numbers)
    return _completions(policy, token_ids.cpu(), logprobs.cpu(), lengths.cpu(), running, rows, num_completions)


def decode(
    policy: Policy,
    cache: "BranchCache",
    tokens: Tensor,
    rotation: tuple[Tensor, Tensor],
    sampling: Sampling,
    uniform: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """The next token (N,) of each row after `tokens` (N,), whose `rotation` is cosine and sine (N, 1, D), and its
    log-probability; `uniform` as in `_sample`."""
    states = policy.decoder.embed_tokens(tokens)[:, None]
    for layer in policy.decoder.layers:
        # `forward`, not a call: FSDP2's hooks find nothing to gather (distributed.gathered).
        states = layer.forward(states, position_embeddings=rotation, attention_mask=cache.mask, past_key_values=cache)
    return _choose(policy, policy.decoder.norm(states)[:, 0], sampling, uniform)


def _choose(policy: Policy, hidden: Tensor, sampling: Sampling, uniform: Tensor | None) -> tuple[Tensor, Tensor]:
    """Token (N,) after each hidden state (N, D), and its log-probability."""
    return _sample(policy.logits(hidden, temperature=sampling.temperature or 1.0), sampling, uniform)


class Decoder:
    """How `generate` goes from one token to the next: here operation by operation, with few rows and columns to spare.
    `compiled` has another, which takes fewer shapes and compiles them."""

    block = 64
    """Columns by which the cache grows when it is full."""

    def num_rows(self, num_running: int, num_rows: int) -> int:
        """How many of `num_rows` rows to keep, of which `num_running` must be."""
        return num_running if num_running < KEEP_SHARE * num_rows else num_rows

    def memory(self, place: int, shape: tuple[int, ...], room: int, like: Tensor) -> Tensor:
        """Dense memory (N, heads, columns, D) for part `place` of a cache that will have `room` columns at most."""
        return like.new_empty(shape)

    step = staticmethod(decode)
    """What takes the step."""


class BranchCache:
    """Keys and values (N, heads, columns, D) of the running rows: what layers write into and read from while decoding.

    Attention reads all columns, those not yet written under `mask`, because it is fastest on whole tensors.
    """

    def __init__(self, prefill: DynamicCache, is_prompt: Tensor, sampling: Sampling, decoder: Decoder) -> None:
        """Each row (B, P) of `prefill`, whose prompts lie where `is_prompt`, becomes G rows."""
        self._decoder, device = decoder, is_prompt.device
        self.length: int = is_prompt.shape[1]
        self._room = self._columns(self.length + sampling.max_new_tokens)
        dtype = _cache_dtype(prefill, device)
        self.parts = [part.to(dtype) for layer in prefill.layers for part in (layer.keys, layer.values)]
        self._visible = nn.functional.pad(is_prompt, (0, self._room - self.length))[:, None, None]
        self.column = torch.zeros(1, dtype=torch.long, device=device)
        """(1,) the column to be written."""
        self.keep(torch.arange(len(is_prompt), device=device).repeat_interleave(sampling.num_completions))

    def keep(self, rows: Tensor) -> None:
        """Go on with `rows` of those there are."""
        self._visible = self._visible[rows]
        self._arrange(rows)

    def open_column(self) -> None:
        """Let every row see, and write, one column more."""
        if self.length == self.mask.shape[-1]:
            self._arrange(torch.arange(len(self.mask), device=self.mask.device))
        self.mask[..., self.length] = True
        self.column.fill_(self.length)
        self.length += 1

    def update(self, keys: Tensor, values: Tensor, layer: int, *_: Any) -> tuple[Tensor, Tensor]:
        """Write the column (N, heads, 1, D) and return all of them."""
        own = self.parts[2 * layer], self.parts[2 * layer + 1]
        for part, new in zip(own, (keys, values), strict=True):
            part.index_copy_(2, self.column, new.to(part.dtype))
        return own

    def _arrange(self, rows: Tensor) -> None:
        """Lay out `rows` anew, with room for one column more."""
        columns, length = self._columns(self.length + 1), self.length
        self.mask = self._visible[..., :columns]
        """(N, 1, 1, columns) which of them a row may look at."""
        for place, part in enumerate(self.parts):
            kept = part[:, :, :length].index_select(0, rows)
            shape = (*kept.shape[:2], columns, kept.shape[3])
            self.parts[place] = self._decoder.memory(place, shape, self._room, part)
            self.parts[place][:, :, :length] = kept
            self.parts[place][:, :, length:] = 0

    def _columns(self, length: int) -> int:
        return -(-length // self._decoder.block) * self._decoder.block


class _Draw(LogitsProcessor):  # type: ignore[misc]
    """Chooses the tokens of `generate`: all but the one chosen become impossible."""

    def __init__(self, policy: Policy, sampling: Sampling) -> None:
        self.policy, self.sampling = policy, sampling
        self.uniform: Tensor | None = None
        self.tokens: list[Tensor] = []
        self.logprobs: list[Tensor] = []

    def start(self, uniform: Tensor | None) -> None:
        """Begin a sample whose numbers are `uniform` (G, T)."""
        self.uniform, self.tokens, self.logprobs = uniform, [], []

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        logits = self.policy.restrict(scores, temperature=self.sampling.temperature or 1.0)
        uniform = None if self.uniform is None else self.uniform[:, len(self.tokens)]
        tokens, logprobs = _sample(logits, self.sampling, uniform)
        self.tokens.append(tokens)
        self.logprobs.append(logprobs)
        return torch.full_like(scores, -torch.inf).scatter(1, tokens[:, None], 0.0)


def _generate_plain(policy: Policy, prompt: Prompt, draw: _Draw, seed: Sequence[int]) -> list[Completion]:
    device, model, length = policy.device, policy.model, len(prompt.input_ids)
    num_completions = draw.sampling.num_completions
    draw.start(_uniform([seed], draw.sampling).to(device) if draw.sampling.temperature else None)
    inputs = repeat_inputs(prompt.inputs, num_completions, length, length)
    stated = model.generation_config
    # The folder's own settings (a penalty, a beam) would change what is sampled.
    model.generation_config = GenerationConfig(
        eos_token_id=list(policy.eos_ids),
        pad_token_id=policy.eos_ids[0],
        max_new_tokens=draw.sampling.max_new_tokens,
    )
    try:
        model.generate(
            input_ids=prompt.input_ids.expand(num_completions, -1).to(device),
            attention_mask=torch.ones((num_completions, length), dtype=torch.long, device=device),
            logits_processor=LogitsProcessorList([draw]),
            **{name: tensor.to(device) for name, tensor in inputs.items()},
        )
    finally:
        model.generation_config = stated
    token_ids, logprobs = torch.stack(draw.tokens, dim=1).cpu(), torch.stack(draw.logprobs, dim=1).cpu()
    is_end = torch.isin(token_ids, torch.tensor(policy.eos_ids))
    running = ~is_end.any(dim=1)
    lengths = torch.where(running, token_ids.shape[1], is_end.int().argmax(dim=1) + 1)
    rows = torch.arange(num_completions)
    (completions,) = _completions(policy, token_ids, logprobs, lengths, running, rows, num_completions)
    return completions


def _prefill(policy: Policy, prompts: Sequence[Prompt]) -> tuple[Tensor, DynamicCache, Tensor]:
    """Last hidden state (B, D) of each prompt, its keys and values, and where prompts are (B, T).

    Prompts are padded on the right, where causal attention never looks back from.
    """
    lengths = [len(prompt.input_ids) for prompt in prompts]
    shape = (len(prompts), max(lengths))
    input_ids = torch.zeros(shape, dtype=torch.long)
    position_ids = torch.zeros((len(prompts[0].position_ids), *shape), dtype=torch.long)
    is_prompt = torch.zeros(shape, dtype=torch.bool)
    for row, prompt in enumerate(prompts):
        input_ids[row, : lengths[row]] = prompt.input_ids
        position_ids[:, row, : lengths[row]] = prompt.position_ids
        is_prompt[row, : lengths[row]] = True
    cache = DynamicCache()
    assert isinstance(policy.path, SharedPrefixPath)
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
    """Cosine and sine (N, T, D) of the rotary embedding for the tokens to come."""
    starts = torch.tensor([int(prompt.position_ids.max()) + 1 for prompt in prompts])
    positions = starts.repeat_interleave(sampling.num_completions)[:, None] + torch.arange(sampling.max_new_tokens)
    position_ids = positions.expand(len(prompts[0].position_ids), -1, -1).to(like.device)
    cosine, sine = decoder.rotary_emb(like, rotary_positions(position_ids))
    return cosine, sine


def _uniform(seeds: Seeds, sampling: Sampling) -> Tensor:
    """Numbers (N, T) above 0 and at most 1, the G rows of each prompt from its seed."""
    shape = (sampling.num_completions, sampling.max_new_tokens)
    drawn = [1 - np.random.default_rng(seed).random(shape) for seed in seeds]
    return torch.from_numpy(np.concatenate(drawn)).float()


def _sample(logits: Tensor, sampling: Sampling, uniform: Tensor | None) -> tuple[Tensor, Tensor]:
    """Token (N,) of each row and its log-probability before top-p and top-k: the first at which the probabilities' sum
    reaches the share `uniform` (N,) of the whole; without it, the most probable."""
    logprobs = logits.log_softmax(dim=-1)
    tokens = logprobs.argmax(dim=-1)
    if uniform is not None:
        probabilities = _restrict(logprobs, sampling).exp()
        mass = probabilities.cumsum(dim=-1)
        drawn = torch.searchsorted(mass, uniform[:, None] * mass[:, -1:])
        possible = probabilities.gather(-1, drawn) > 0  # a sum in parallel may fall by a rounding
        tokens = torch.where(possible[:, 0], drawn[:, 0], tokens)
    return tokens, logprobs.gather(-1, tokens[:, None])[:, 0]


def _restrict(logprobs: Tensor, sampling: Sampling) -> Tensor:
    """Minus infinity outside the `top_k` most probable tokens and those that hold mass `top_p`."""
    if sampling.top_k and sampling.top_k < logprobs.shape[-1]:
        least = logprobs.topk(sampling.top_k).values[:, -1:]
        logprobs = logprobs.masked_fill(logprobs < least, -torch.inf).log_softmax(dim=-1)
    if sampling.top_p < 1:
        ordered, order = logprobs.sort(descending=True)
        mass = ordered.exp()
        beyond = mass.cumsum(dim=-1) - mass >= sampling.top_p
        logprobs = logprobs.masked_fill(beyond.scatter(-1, order, beyond), -torch.inf)
    return logprobs


def _completions(
    policy: Policy,
    token_ids: Tensor,
    logprobs: Tensor,
    lengths: Tensor,
    running: Tensor,
    rows: Tensor,
    num_completions: int,
) -> list[list[Completion]]:
    truncated = set(rows[running].tolist())
    replies = []
    for row, length in enumerate(lengths.tolist()):
        ids = token_ids[row, :length]
        text = policy.decode_reply(ids[: length - (row not in truncated)].tolist())
        replies.append(Completion(ids, text, logprobs[row, :length], row in truncated))
    return [replies[start : start + num_completions] for start in range(0, len(replies), num_completions)]


def _cache_dtype(prefill: DynamicCache, device: torch.device) -> torch.dtype:
    """Of the keys that attention will use: casting them once spares a cast per token."""
    if device.type == "cpu":
        return torch.float32  # as attention computes there: see `models.attention.tree`
    if torch.is_autocast_enabled(device.type):
        return torch.get_autocast_dtype(device.type)
    dtype: torch.dtype = prefill.layers[0].keys.dtype
    return dtype
