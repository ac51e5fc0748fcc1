"""`visionr1 score`: JSON rows of completions with their truth in, JSON rows of scores with their reasons out.

A row is as `visionr1.completions` says; `num_instances` matters to preset `release` only. A blank line is no row.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from visionr1.completions import CompletionRow, check_box_order, read_completion
from visionr1.errors import DataError, RecipeError
from visionr1.rewards.score import Score, Scorer
from visionr1.rewards.stages import BEGINNER, Stage
from visionr1.rewards.user import describe_raised


@dataclass(frozen=True, slots=True)
class ScoredRow:
    """A row of the output, and the reasons for it; `row` and `score` are None for a bad row."""

    result: Mapping[str, object]
    """The JSON object that is written."""
    reasons: tuple[str, ...]
    """In words, a line each."""
    row: CompletionRow | None = None
    score: Score | None = None


def score_rows(
    lines: Iterable[str | bytes],
    source: str,
    reward: Scorer,
    *,
    stage: Stage = BEGINNER,
    takes_inverted_boxes: bool = False,
) -> Iterator[ScoredRow]:
    """Score each row of `lines`, in order, by the thresholds of `stage`; a bad row's result is {"error": message}.

    `source` names the lines in messages. True boxes that are inverted are an error unless the reward takes them.
    """
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue

        # A bad row is reported in its place; the others are scored.
        try:
            row = read_completion(line)
            if not takes_inverted_boxes:
                check_box_order(row.truth.boxes)
        except DataError as error:
            message = f"{source}:{number}: {error}"
            yield ScoredRow({"error": message}, (message,))
            continue

        try:
            score = reward.score(row.text, row.truth, stage)
        except (Exception, SystemExit) as error:  # a user's reward may raise anything
            raise RecipeError(
                f"{source}:{number}: the reward raised {describe_raised(error)} at {row.text!r:.200}"
            ) from error

        reasons = tuple(score.reasons(row.truth, reward.weights))
        yield ScoredRow(score.to_json(), reasons, row, score)


def to_json(result: Mapping[str, object]) -> str:
    """Return one line of JSON, in ASCII: whatever a model wrote can be written again in every encoding."""
    return json.dumps(result, allow_nan=False)
