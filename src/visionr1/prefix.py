"""Rows that share one image and prompt among the completions of a sample.

The G completions of a sample differ only after the prompt, so one row holds the prompt once:

    [p_1 ... p_n-1 | p_n c1_1 c1_2 ... | p_n c2_1 c2_2 ... | ...]

Each branch repeats the last prompt token, whose hidden state predicts the branch's first token, and
leaves out its own last token, which predicts nothing. A branch sees the prefix and itself (tree
attention) and counts its positions on from the prompt. This is exact: log-probabilities and gradients
are those of G plain rows, at the cost of one image, one prompt and G completions.

A row with one branch is a plain causal row; supervised training uses the same code.
Axis letters: R rows, T tokens, N completion tokens in all.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from visionr1.models.policy import Policy, Prompt, image_features
from visionr1.models.tree_attention import Branches, find_branches

PAD_TO = 64  # rows are as long as a multiple of this: a CPU prepares each new shape of a product anew


@dataclass(frozen=True, slots=True)
class Group:
    """One prompt and the completions (each (T,) token ids) that follow it."""

    prompt: Prompt
    completions: tuple[Tensor, ...]
    indices: tuple[int, ...]
    """The completions' places in the batch that the caller counts."""

    @property
    def num_tokens(self) -> int:
        """Length of its row."""
        return len(self.prompt.input_ids) - 1 + sum(map(len, self.completions))


@dataclass(frozen=True, slots=True)
class Rows:
    """Groups, one per row, padded on the right."""

    input_ids: Tensor
    """(R, T)"""
    position_ids: Tensor
    """(3, R, T)"""
    branches: Branches | None
    """Where the branches lie; None is causal."""
    pixel_values: Tensor
    image_grid_thw: Tensor
    features: Tensor | None
    """(M, K, D) of the image tokens, row by row, where prompts have them."""
    row: Tensor
    """(N,) where the hidden state lies that predicts each completion token: its row,"""
    column: Tensor
    """(N,) its column,"""
    targets: Tensor
    """(N,) the token,"""
    completion: Tensor
    """(N,) and the index of the completion that it belongs to, on the CPU."""

    def to(self, device: torch.device) -> "Rows":
        """These rows on `device`."""
        return replace(
            self,
            input_ids=self.input_ids.to(device),
            position_ids=self.position_ids.to(device),
            branches=self.branches and self.branches.to(device),
            pixel_values=self.pixel_values.to(device),
            image_grid_thw=self.image_grid_thw.to(device),
            features=self.features if self.features is None else self.features.to(device),
            row=self.row.to(device),
            column=self.column.to(device),
            targets=self.targets.to(device),
        )


def group(prompts: Sequence[Prompt], completions: Sequence[Sequence[Tensor]]) -> list[Group]:
    """One group per prompt; completions are counted through, sample by sample."""
    groups, count = [], 0
    for prompt, branches in zip(prompts, completions, strict=True):
        indices = tuple(range(count, count + len(branches)))
        groups.append(Group(prompt, tuple(branches), indices))
        count += len(branches)
    return groups


def split(groups: Iterable[Group], tokens_per_forward: int) -> list[list[Group]]:
    """The groups in micro-batches of at most `tokens_per_forward` padded tokens, of like length.

    A group that is longer by itself is split over rows; one completion never is.
    """
    whole = [part for group in groups for part in _fit(group, tokens_per_forward)]
    batches: list[list[Group]] = []
    for part in sorted(whole, key=lambda part: -part.num_tokens):
        if batches and (len(batches[-1]) + 1) * batches[-1][0].num_tokens <= tokens_per_forward:
            batches[-1].append(part)
        else:
            batches.append([part])
    return batches


def _fit(group: Group, tokens: int) -> list[Group]:
    parts: list[list[int]] = []
    length = 0
    for i, completion in enumerate(group.completions):
        if not parts or length + len(completion) > tokens:
            parts.append([])
            length = len(group.prompt.input_ids) - 1
        parts[-1].append(i)
        length += len(completion)
    return [
        Group(
            group.prompt,
            tuple(group.completions[i] for i in part),
            tuple(group.indices[i] for i in part),
        )
        for part in parts
    ]


def pack(groups: Sequence[Group]) -> Rows:
    """The padded rows of `groups`."""
    longest = max(group.num_tokens for group in groups)
    num_tokens = -(-longest // PAD_TO) * PAD_TO
    shape = (len(groups), num_tokens)
    input_ids = torch.zeros(shape, dtype=torch.long)
    position_ids = torch.zeros((3, *shape), dtype=torch.long)
    targets, spans = [], []  # of each branch that is not empty: row, first column, length, index
    for row, group in enumerate(groups):
        prompt = group.prompt
        end = len(prompt.input_ids) - 1
        last_id, last_position = prompt.input_ids[-1:], prompt.position_ids[:, -1:]
        start = int(prompt.position_ids.max()) + 1
        input_ids[row, :end] = prompt.input_ids[:-1]
        position_ids[:, row, :end] = prompt.position_ids[:, :-1]
        for ids, index in zip(group.completions, group.indices, strict=True):
            if not len(ids):
                continue
            begin, end = end, end + len(ids)
            input_ids[row, begin:end] = torch.cat((last_id, ids[:-1]))
            position_ids[:, row, begin : begin + 1] = last_position
            position_ids[:, row, begin + 1 : end] = torch.arange(start, start + len(ids) - 1)
            targets.append(ids)
            spans.append((row, begin, len(ids), index))
    rows, starts, lengths, indices = torch.tensor(spans, dtype=torch.long).reshape(-1, 4).T
    columns = [torch.arange(begin, begin + length) for _, begin, length, _ in spans]
    branches = None
    if any(len(group.completions) > 1 for group in groups):
        prefixes = torch.tensor([len(group.prompt.input_ids) - 1 for group in groups])
        branches = find_branches(rows, starts, lengths, prefixes, num_tokens)
    return Rows(
        input_ids=input_ids,
        position_ids=position_ids,
        branches=branches,
        pixel_values=torch.cat([group.prompt.pixel_values for group in groups]),
        image_grid_thw=torch.cat([group.prompt.image_grid_thw for group in groups]),
        features=image_features([group.prompt for group in groups]),
        row=rows.repeat_interleave(lengths),
        column=torch.cat(columns),
        targets=torch.cat(targets),
        completion=indices.repeat_interleave(lengths),
    )


def token_logprobs(
    policy: Policy, rows: Rows, *, temperature: float = 1.0, suppress: bool = True
) -> Tensor:
    """Log-probabilities (N,) of the completion tokens, in the order of `rows.targets`."""
    hidden = policy.hidden_states(
        input_ids=rows.input_ids,
        position_ids=rows.position_ids,
        branches=rows.branches,
        pixel_values=rows.pixel_values,
        grid_thw=rows.image_grid_thw,
        features=rows.features,
    )
    return policy.token_logprobs(
        hidden[rows.row, rows.column], rows.targets, temperature=temperature, suppress=suppress
    )
