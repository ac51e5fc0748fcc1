"""Rows that share one image and prompt among the completions of a sample.

The G completions of a sample differ only after the prompt, so a row holds the prompt once, and the
samples of a micro-batch follow each other in one row:

    [p_1 ... p_n-1 | p_n c1_1 c1_2 ... | p_n c2_1 c2_2 ... | ... | q_1 ... q_m-1 | q_m d1_1 ... | ...]

Each branch repeats the last prompt token, whose hidden state predicts the branch's first token, and
leaves out its own last token, which predicts nothing. A branch sees its prefix and itself (tree
attention) and counts its positions on from the prompt. This is exact: log-probabilities and gradients
are those of plain rows, at the cost of one image, one prompt and G completions a sample.

A sample with one branch is a plain causal row; supervised training uses the same code. Models whose
family has no file here (`models/plain.py`) get a row for each completion, with its own image and prompt.
Axis letters: A axes of position ids, R rows, T tokens, N completion tokens in all.
"""

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from visionr1.models import plain
from visionr1.models.attention.tree import Tree
from visionr1.models.family import Inputs
from visionr1.models.plain import repeat_inputs
from visionr1.models.policy import Policy, Prompt, image_features, join_inputs

_log = logging.getLogger("visionr1")
_told: set[int] = set()
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
        """Its length in a row."""
        return len(self.prompt.input_ids) - 1 + sum(map(len, self.completions))


@dataclass(frozen=True, slots=True)
class Rows:
    """Groups, one after the other in one row, padded on the right; on the plain path the completions
    of one group, each in its own."""

    input_ids: Tensor
    """(R, T)"""
    position_ids: Tensor
    """(A, R, T)"""
    tree: Tree | None
    """Where prompts and completions lie; None on the plain path."""
    inputs: Inputs
    """What the vision tower takes of the images; on the plain path, what the model takes besides tokens."""
    features: Tensor | None
    """(M, K, D) of the image tokens, where prompts have them."""
    place: Tensor
    """(N,) where in the rows (R x T) the hidden state lies that predicts each completion token,"""
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
            tree=self.tree and self.tree.to(device),
            inputs={name: tensor.to(device) for name, tensor in self.inputs.items()},
            features=self.features if self.features is None else self.features.to(device),
            place=self.place.to(device),
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
    """The groups in micro-batches of at most `tokens_per_forward` tokens: the longest first, each into
    the first that has room.

    A group that is longer by itself is split; one completion never is (see `check_budget`). On the
    plain path, where every completion repeats its prompt, each micro-batch is of one group.
    """
    groups = list(groups)
    if groups and groups[0].prompt.is_plain:
        return [[part] for group in groups for part in _fit_plain(group, tokens_per_forward)]
    whole = [part for group in groups for part in _fit(group, tokens_per_forward)]
    batches: list[list[Group]] = []
    room: list[int] = []
    for part in sorted(whole, key=lambda part: -part.num_tokens):
        place = next((i for i, free in enumerate(room) if part.num_tokens <= free), len(room))
        if place == len(room):
            batches.append([])
            room.append(tokens_per_forward)
        batches[place].append(part)
        room[place] -= part.num_tokens
    return batches


def check_budget(sample: str, prompt: int, completion: int, tokens_per_forward: int) -> None:
    """Say, once for each budget, where one completion of so many tokens takes more with its prompt than a pass may."""
    if prompt + completion > tokens_per_forward and tokens_per_forward not in _told:
        _told.add(tokens_per_forward)
        _log.warning(
            "sample %s: its prompt takes %d tokens and its completion up to %d, which is more than "
            "optimizer.tokens_per_forward = %d; a completion is never cut, so such a one gets a pass of its own: if "
            "memory runs out, use smaller images or lower rollout.max_new_tokens (said once)",
            *(sample, prompt, completion, tokens_per_forward),
        )


def _fit(group: Group, tokens: int) -> list[Group]:
    parts: list[list[int]] = []
    length = 0
    for i, completion in enumerate(group.completions):
        if not parts or length + len(completion) > tokens:
            parts.append([])
            length = len(group.prompt.input_ids) - 1
        parts[-1].append(i)
        length += len(completion)
    return [_part(group, part) for part in parts]


def _fit_plain(group: Group, tokens: int) -> list[Group]:
    longest_first = sorted(range(len(group.completions)), key=lambda i: -len(group.completions[i]))
    parts: list[Group] = []
    while longest_first:
        longest = len(group.prompt.input_ids) + len(group.completions[longest_first[0]])
        num_rows = max(1, tokens // longest)
        parts.append(_part(group, longest_first[:num_rows]))
        longest_first = longest_first[num_rows:]
    return parts


def _part(group: Group, places: Sequence[int]) -> Group:
    return Group(
        group.prompt,
        tuple(group.completions[i] for i in places),
        tuple(group.indices[i] for i in places),
    )


def pack(groups: Sequence[Group]) -> Rows:
    """The row of `groups`; on the plain path the rows of the one group."""
    if groups[0].prompt.is_plain:
        return _pack_plain(*groups)
    input_ids, position_ids, targets = [], [], []
    prefixes, branches = [], []  # of each its first place and its length
    prefix_of, indices = [], []  # of each branch
    end = 0
    for number, group in enumerate(groups):
        prompt = group.prompt
        last_id, last_position = prompt.input_ids[-1:], prompt.position_ids[:, -1:]
        start = int(prompt.position_ids.max()) + 1
        input_ids.append(prompt.input_ids[:-1])
        position_ids.append(prompt.position_ids[:, :-1])
        prefixes.append((end, len(prompt.input_ids) - 1))
        end += len(prompt.input_ids) - 1
        for ids, index in zip(group.completions, group.indices, strict=True):
            if not len(ids):
                continue
            input_ids += (last_id, ids[:-1])
            position_ids += (last_position, torch.arange(start, start + len(ids) - 1).expand(len(last_position), -1))
            targets.append(ids)
            branches.append((end, len(ids)))
            prefix_of.append(number)
            indices.append(index)
            end += len(ids)
    padding = (0, -end % PAD_TO)
    prompts = [group.prompt for group in groups]
    return Rows(
        input_ids=pad(torch.cat(input_ids), padding)[None],
        position_ids=pad(torch.cat(position_ids, dim=1), padding)[:, None],
        tree=Tree(tuple(prefixes), tuple(branches), tuple(prefix_of), end + padding[1]),
        inputs=join_inputs(prompts),
        features=image_features(prompts),
        place=torch.cat([torch.arange(begin, begin + length) for begin, length in branches]),
        targets=torch.cat(targets),
        completion=torch.tensor(indices).repeat_interleave(torch.tensor([length for _, length in branches])),
    )


def _pack_plain(group: Group) -> Rows:
    prompt = group.prompt
    pairs = [(ids, index) for ids, index in zip(group.completions, group.indices, strict=True) if len(ids)]
    lengths = torch.tensor([len(ids) for ids, _ in pairs])
    first, num_tokens = len(prompt.input_ids) - 1, len(prompt.input_ids) + int(lengths.max()) - 1
    rows = [torch.cat((prompt.input_ids, ids[:-1])) for ids, _ in pairs]
    is_token = torch.arange(num_tokens) <= first + lengths[:, None] - 1
    is_target = is_token & (torch.arange(num_tokens) >= first)
    return Rows(
        input_ids=nn.utils.rnn.pad_sequence(rows, batch_first=True),
        position_ids=prompt.position_ids.new_empty((0, len(rows), num_tokens)),
        tree=None,
        inputs={
            "attention_mask": is_token.long(),
            **repeat_inputs(prompt.inputs, len(rows), len(prompt.input_ids), num_tokens),
        },
        features=None,
        place=is_target.flatten().nonzero().flatten(),
        targets=torch.cat([ids for ids, _ in pairs]),
        completion=torch.tensor([index for _, index in pairs]).repeat_interleave(lengths),
    )


def token_logprobs(policy: Policy, rows: Rows, *, temperature: float = 1.0, suppress: bool = True) -> Tensor:
    """Log-probabilities (N,) of the completion tokens, in the order of `rows.targets`."""
    if rows.tree is None:
        num_tokens = rows.input_ids.shape[1]
        first = int(rows.place.min())  # the prompt's last token, in every row
        logits = plain.logits(policy.model, rows.input_ids, rows.inputs, num_tokens - first)
        place = rows.place - first * (1 + rows.place // num_tokens)
        logits = policy.restrict(logits.flatten(0, 1)[place], temperature=temperature, suppress=suppress)
        return -nn.functional.cross_entropy(logits, rows.targets, reduction="none")
    hidden = policy.hidden_states(
        input_ids=rows.input_ids,
        position_ids=rows.position_ids,
        tree=rows.tree,
        inputs=rows.inputs,
        features=rows.features,
    )
    return policy.token_logprobs(hidden[0, rows.place], rows.targets, temperature=temperature, suppress=suppress)
