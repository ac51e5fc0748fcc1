"""`visionr1 score`: JSON rows of completions with their truth in, JSON rows of scores with their reasons out.

A row is as `visionr1.completions` says; `num_instances` matters to preset `release` only. A blank line is no row.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

from visionr1.completions import CompletionRow, check_box_order, read_completion
from visionr1.dialects import dialect_names, get_dialect, resolve_dialect
from visionr1.errors import DataError, RecipeError
from visionr1.rewards.criteria import Pair
from visionr1.rewards.published.vision_r1_release import ReleaseReward, ReleaseStep
from visionr1.rewards.published.vlm_r1 import DIALECTS as VLM_R1_DIALECTS
from visionr1.rewards.published.vlm_r1 import VlmR1Reward, faults
from visionr1.rewards.score import Reward, Score
from visionr1.rewards.stages import FixedStages
from visionr1.samples import Fault, GroundTruth

PRESETS: Mapping[str, tuple[str, ...]] = {
    "paper": dialect_names(),
    "release": ("qwen25",),
    "vlm_r1": VLM_R1_DIALECTS,
}
"""Every preset with the dialects that it reads."""


@dataclass(frozen=True, slots=True)
class Scored:
    """What a row got: the JSON object for it, the reasons in words, and what was read (None for a bad row)."""

    result: Mapping[str, object]
    reasons: tuple[str, ...]
    row: CompletionRow | None = None
    score: Score | None = None


Scorer = Callable[[CompletionRow], Scored]


def make_scorer(
    preset: str,
    *,
    dialect: str = "qwen25",
    progress: float = 0.0,
    step: float = 0.5,
    release_step: ReleaseStep = None,
) -> Scorer:
    """The scorer of `preset`. Raises RecipeError for a setting that does not exist or does not go with the preset."""
    if preset not in PRESETS:
        raise RecipeError(f"unknown preset {preset!r}; known: {', '.join(PRESETS)}")
    resolve_dialect(dialect)
    if preset != "paper" and dialect not in PRESETS[preset]:
        raise RecipeError(f"preset {preset} does not read the dialect {dialect!r}, but {', '.join(PRESETS[preset])}")
    if preset == "release":
        return release_scorer(release_step)
    if preset == "vlm_r1":
        return vlm_r1_scorer(dialect)
    return paper_scorer(dialect, progress=progress, step=step)


def paper_scorer(dialect: str, *, progress: float, step: float) -> Scorer:
    """Rows scored by preset `paper` in the stage that is in force at `progress`."""
    reward, stage = Reward(dialect=resolve_dialect(dialect)), FixedStages(step).at(progress)

    def score(row: CompletionRow) -> Scored:
        check_box_order(row.truth.boxes)
        found = reward.score(row.text, row.truth, stage=stage)
        return Scored(_paper_result(found), tuple(paper_reasons(found, row.truth)), row, found)

    return score


def release_scorer(step: ReleaseStep) -> Scorer:
    """Rows scored by preset `release` in one of its three step modes."""
    reward = ReleaseReward(step)

    def score(row: CompletionRow) -> Scored:
        found = reward.score(row.text, row.truth, num_instances=row.truth.num_instances)
        result = {
            "total": found.total,
            **found.parts,
            "stage": step,
            "num_predicted": found.num_predicted,
            "pairs": [{"predicted": box, "true": true, "giou": giou} for box, true, giou in found.pairs],
            "faults": [{"kind": "public_code_raises", "item": None, "detail": note} for note in found.notes],
        }
        instances = len(row.truth.boxes) if row.truth.num_instances is None else row.truth.num_instances
        counts = f"{found.num_predicted} predicted, {instances} instances, {len(found.pairs)} matched pairs"
        pairs = [f"box {box} matches true box {true}: GIoU {giou:.3f}" for box, true, giou in found.pairs]
        return Scored(result, (_sum_of_parts(found.total, found.parts), counts, *pairs, *found.notes), row)

    return score


def vlm_r1_scorer(dialect: str) -> Scorer:
    """Rows scored by preset `vlm_r1`."""
    reward = VlmR1Reward(dialect=get_dialect(dialect))

    def score(row: CompletionRow) -> Scored:
        check_box_order(row.truth.boxes)
        found = reward.score(row.text, row.truth)
        notes = tuple(faults(row.text))
        result = {
            "total": found.total,
            **found.parts,
            "num_predicted": found.num_predicted,
            "faults": [{"kind": "vlm_r1", "item": None, "detail": note} for note in notes],
        }
        weighted = {name: found.parts[name] for name in reward.weights}
        counts = f"{found.num_predicted} predicted, {len(row.truth.boxes)} true boxes"
        others = ", ".join(f"{name} {value:.3f}" for name, value in found.parts.items() if name not in weighted)
        return Scored(result, (_sum_of_parts(found.total, weighted), counts, others, *notes), row)

    return score


def score_rows(lines: Iterable[str | bytes], source: str, scorer: Scorer) -> Iterator[Scored]:
    """One result for each row of `lines` (no blank ones), in order; a bad row's is {"error": what is wrong}."""
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            yield scorer(read_completion(line))
        except DataError as error:
            message = f"{source}:{number}: {error}"
            yield Scored({"error": message}, (message,))


def to_json(result: Mapping[str, object]) -> str:
    """One line of JSON, in ASCII: whatever a model wrote can be written again in every encoding."""
    return json.dumps(result, allow_nan=False)


def paper_reasons(score: Score, truth: GroundTruth) -> Iterator[str]:
    """Why a completion got its score, in words, a line each."""
    stage, predicted = score.stage, score.reply.boxes
    yield f"{_sum_of_parts(score.total, score.parts)} (xi0 {stage.xi0}, xi1 {stage.xi1}, xi2 {stage.xi2})"
    valid = sum(pair.valid for pair in score.pairs)
    yield f"{score.reply.num_predicted} predicted, {len(truth.boxes)} true boxes, {valid} valid pairs"
    for pair in score.pairs:
        said, true = predicted.labels[pair.predicted], truth.boxes.labels[pair.true]
        label = f"{true!r}" if pair.label_correct else f"{said!r} where {true!r} is true"
        yield f"box {pair.predicted} matches true box {pair.true}: IoU {pair.iou:.3f}, {label}"
    matched, found = {pair.predicted for pair in score.pairs}, {pair.true for pair in score.pairs}
    for index in sorted(set(range(len(predicted))) - matched):
        yield f"box {index} ({predicted.labels[index]!r}) matches no true box"
    for index in sorted(set(range(len(truth.boxes))) - found):
        yield f"true box {index} ({truth.boxes.labels[index]!r}) is missed"
    for fault in score.reply.faults:
        where = "the text" if fault.item is None else f"item {fault.item}"
        yield f"fault in {where}: {fault.kind} ({fault.detail})"


def _sum_of_parts(total: float, parts: Mapping[str, float]) -> str:
    return f"{total:.3f} = " + " + ".join(f"{name} {value:.3f}" for name, value in parts.items())


def _paper_result(score: Score) -> dict[str, object]:
    stage = score.stage
    return {
        "total": score.total,
        **score.parts,
        "stage": [stage.xi0, stage.xi1, stage.xi2],
        "plain_recall": score.plain_recall,
        "plain_precision": score.plain_precision,
        "num_predicted": score.reply.num_predicted,
        "pairs": [_pair(pair) for pair in score.pairs],
        "faults": [_fault(fault) for fault in score.reply.faults],
    }


def _pair(pair: Pair) -> dict[str, object]:
    return {
        "predicted": pair.predicted,
        "true": pair.true,
        "iou": pair.iou,
        "valid": pair.valid,
        "label_correct": pair.label_correct,
    }


def _fault(fault: Fault) -> dict[str, object]:
    return {"kind": fault.kind, "item": fault.item, "detail": fault.detail}
