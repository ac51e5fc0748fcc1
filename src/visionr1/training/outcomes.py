"""Outcomes of a step's completions: their rows of rollouts.jsonl, and the numbers that its metrics are means of."""

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch.distributed as dist
from torch import Tensor

from visionr1.completions import CompletionRow
from visionr1.dialects import Dialect
from visionr1.models.prompts import Prompt
from visionr1.rewards import Score
from visionr1.rewards.hacking import Counts, count
from visionr1.rewards.hints import MOST_REPLIES, RepliesWithTruth, explain_no_overlap
from visionr1.rollout.engine import Completion
from visionr1.samples import GroundTruth

ZERO_STEPS = 10
"""Steps from the start without any reward, after which a run says so."""

OVERLAP_STEPS = 3
"""Steps from the start without a box that meets a true one, after which a run says so."""

RolloutRow = dict[str, Any]

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Question:
    """A sample as GRPO needs it."""

    id: str
    image_id: int | str
    prompt: Prompt
    truth: GroundTruth
    reward: str
    """The reward of its data source, as in `Sample`."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """The numbers and the row of one completion: small, for it is gathered from all ranks."""

    row: RolloutRow
    """Its row of rollouts.jsonl."""
    numbers: dict[str, float | None]
    """Their means over the step's completions are its metrics; None is left out."""
    watched: Counts
    plain: tuple[float, float] | None
    """Recall and precision before f; None where the reward does not tell them."""

    @classmethod
    def from_score(
        cls,
        question: Question,
        index: int,
        completion: Completion,
        score: Score,
        advantage: float,
        no_spread: bool,
    ) -> "Outcome":
        """Return the outcome of completion `index` of a question, whose group may have `no_spread`."""
        completion_row = CompletionRow(
            text=completion.text,
            truth=question.truth,
            sample_id=question.id,
            image_id=question.image_id,
            index=index,
            truncated=completion.truncated,
        )
        row = {
            **completion_row.to_json(),
            "total": score.total,
            **score.parts,
            "advantage": advantage,
            "num_tokens": len(completion.token_ids),
        }

        numbers: dict[str, float | None] = {
            "groups_without_spread": no_spread,
            "true_boxes": len(question.truth.boxes),
            "reward/total": score.total,
        }
        for name, value in score.parts.items():
            numbers[f"reward/{name}"] = value
        numbers["completion_length"] = len(completion.token_ids)
        numbers["truncated_share"] = completion.truncated

        # Not every reward reads boxes, matches pairs, or has recall and precision.
        if score.num_predicted is not None:
            numbers["boxes_per_completion"] = score.num_predicted
        if score.pairs is not None:
            numbers["label_accuracy"] = score.label_accuracy
        plain = None
        if score.plain_recall is not None and score.plain_precision is not None:
            plain = (score.plain_recall, score.plain_precision)

        return cls(row, numbers, count(score, question.truth), plain)


def make_outcomes(
    questions: Sequence[Question],
    groups: Sequence[Sequence[Completion]],
    scores: Sequence[Sequence[Score]],
    advantages: Tensor,
    no_spread: Tensor,
) -> list[Outcome]:
    """Return the outcome of every completion of this rank; `advantages` are (B, G), `no_spread` (B,)."""
    outcomes = []
    for row, question in enumerate(questions):
        group_has_no_spread = bool(no_spread[row])
        columns = zip(groups[row], scores[row], advantages[row].tolist(), strict=True)
        for index, (completion, score, advantage) in enumerate(columns):
            outcomes.append(Outcome.from_score(question, index, completion, score, advantage, group_has_no_spread))
    return outcomes


def means(rows: Sequence[Mapping[str, float | None]]) -> dict[str, float | None]:
    """Return the mean of each number over the rows that have it; None where it is None in all."""
    values: dict[str, list[float]] = {}
    for row in rows:
        for name, value in row.items():
            values.setdefault(name, [])
            if value is not None:
                values[name].append(value)

    averages: dict[str, float | None] = {}
    for name, numbers in values.items():
        averages[name] = mean(numbers) if numbers else None
    return averages


def mean(values: Sequence[float]) -> float:
    """Return the mean of at least one value."""
    return sum(values) / len(values)


class ZeroRewardWatch:
    """Warn once where no completion of the first steps earns anything: nothing can be learned from them.

    A resumed run begins to count anew.
    """

    def __init__(self) -> None:
        self._faults: Counter[str] = Counter()
        self._num_scores = 0
        self._steps = 0
        self._is_over = dist.is_initialized() and dist.get_rank() > 0  # all ranks see the same, one says it

    def observe(self, outcomes: Sequence[Outcome], scores: Sequence[Sequence[Score]]) -> None:
        """Take in a step, and warn after ZERO_STEPS steps that earned 0, with the commonest fault.

        `outcomes` are those of all ranks. The faults are those of this rank's `scores`, for they are not gathered.
        """
        if self._is_over:
            return
        if any(outcome.row["total"] != 0 for outcome in outcomes):
            self._is_over = True
            return

        for group_scores in scores:
            for score in group_scores:
                self._faults.update(_list_faults(score))
                self._num_scores += 1
        self._steps += 1
        if self._steps == ZERO_STEPS:
            self._is_over = True
            commonest = "the scores say no reason"
            if self._faults:
                fault, number = self._faults.most_common(1)[0]
                commonest = f"the commonest fault, in {number} of {self._num_scores}, is: {fault}"
            _log.warning(
                "every completion of %d steps since the start earned a reward of 0, so nothing was learned; %s",
                *(self._steps, commonest),
            )


class OverlapWatch:
    """Warn once where no box of the first steps overlaps a true one, with the commonest fault and other spaces.

    A resumed run begins to count anew.
    """

    def __init__(self, dialect: Dialect) -> None:
        self._dialect = dialect
        self._completions: list[tuple[str, GroundTruth]] = []
        self._steps = 0
        self._is_over = dist.is_initialized() and dist.get_rank() > 0  # one rank says it

    def observe(self, questions: Sequence[Question], groups: Sequence[Sequence[Completion]]) -> None:
        """Take in this rank's completions of a step, and warn after OVERLAP_STEPS steps."""
        if self._is_over:
            return
        for question, group in zip(questions, groups, strict=True):
            for completion in group:
                if len(self._completions) < MOST_REPLIES:
                    self._completions.append((completion.text, question.truth))

        # One box that meets a true one is enough for the space to be right.
        self._steps += 1
        hint = explain_no_overlap(RepliesWithTruth(self._dialect, self._completions))
        if not hint:
            self._is_over = True
        elif self._steps == OVERLAP_STEPS:
            self._is_over = True
            _log.warning("in all %d completions of the first %d steps %s", len(self._completions), OVERLAP_STEPS, hint)


def _list_faults(score: Score) -> tuple[str, ...]:
    """Return the notes of a score and the kinds of faults of its reply, each once."""
    faults = list(score.notes)
    if score.reply is not None:
        faults.extend(fault.kind for fault in score.reply.faults)
    return tuple(dict.fromkeys(faults))  # each once, in order
