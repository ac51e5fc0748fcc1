"""`visionr1 score`: JSON rows of completions with their truth in, JSON rows of scores with their reasons out.

A row is {"completion": str, "boxes": [[x1, y1, x2, y2], ...], "labels": [str, ...], "categories": [str, ...],
"width": int, "height": int, "input_width": int, "input_height": int, "num_instances": int (optional)}. Boxes are xyxy
pixels of the original image of `width` x `height`; `input_width` x `input_height` is what the processor feeds to the
model. `num_instances`, the number of boxes where it is absent or null, matters to preset `release` only. Other keys are
left alone. A blank line is no row.
"""

from __future__ import annotations

import json
import reprlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

from visionr1.dialects import dialect_names, get_dialect, resolve_dialect
from visionr1.errors import DataError, RecipeError
from visionr1.rewards.criteria import Pair
from visionr1.rewards.published.vision_r1_release import ReleaseReward, ReleaseStep
from visionr1.rewards.published.vlm_r1 import DIALECTS as VLM_R1_DIALECTS
from visionr1.rewards.published.vlm_r1 import VlmR1Reward, faults
from visionr1.rewards.score import Reward, Score
from visionr1.rewards.stages import FixedStages
from visionr1.samples import Boxes, Fault, GroundTruth, normalize_label, normalized_labels

PRESETS: Mapping[str, tuple[str, ...]] = {
    "paper": dialect_names(),
    "release": ("qwen25",),
    "vlm_r1": VLM_R1_DIALECTS,
}
"""Every preset with the dialects that it reads."""


@dataclass(frozen=True, slots=True)
class Row:
    """A completion and all that a reward needs to know to score it."""

    completion: str
    truth: GroundTruth
    num_instances: int


@dataclass(frozen=True, slots=True)
class Scored:
    """What a row got: the JSON object for it, the reasons in words, and what was read (None for a bad row)."""

    result: Mapping[str, object]
    reasons: tuple[str, ...]
    row: Row | None = None
    score: Score | None = None


Scorer = Callable[[Row], Scored]


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

    def score(row: Row) -> Scored:
        _check_order(row.truth.boxes)
        found = reward.score(row.completion, row.truth, stage=stage)
        return Scored(_paper_result(found), tuple(paper_reasons(found, row.truth)), row, found)

    return score


def release_scorer(step: ReleaseStep) -> Scorer:
    """Rows scored by preset `release` in one of its three step modes."""
    reward = ReleaseReward(step)

    def score(row: Row) -> Scored:
        found = reward.score(row.completion, row.truth, num_instances=row.num_instances)
        result = {
            "total": found.total,
            **found.parts,
            "stage": step,
            "num_predicted": found.num_predicted,
            "pairs": [{"predicted": box, "true": true, "giou": giou} for box, true, giou in found.pairs],
            "faults": [{"kind": "public_code_raises", "item": None, "detail": note} for note in found.notes],
        }
        counts = f"{found.num_predicted} predicted, {row.num_instances} instances, {len(found.pairs)} matched pairs"
        pairs = [f"box {box} matches true box {true}: GIoU {giou:.3f}" for box, true, giou in found.pairs]
        return Scored(result, (_sum_of_parts(found.total, found.parts), counts, *pairs, *found.notes), row)

    return score


def vlm_r1_scorer(dialect: str) -> Scorer:
    """Rows scored by preset `vlm_r1`."""
    reward = VlmR1Reward(dialect=get_dialect(dialect))

    def score(row: Row) -> Scored:
        _check_order(row.truth.boxes)
        found = reward.score(row.completion, row.truth)
        notes = tuple(faults(row.completion))
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
            yield scorer(read_row(line))
        except DataError as error:
            message = f"{source}:{number}: {error}"
            yield Scored({"error": message}, (message,))


def read_row(line: str | bytes) -> Row:
    """The row in a line of JSON. Raises DataError that names the field, what was expected and what was found."""
    try:
        fields = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise DataError(f"expected a JSON object, found {_begin(line)} ({error})") from error
    if not isinstance(fields, dict):
        raise DataError(f"expected a JSON object, found {_begin(line)}")
    completion = _field(fields, "completion")
    if not isinstance(completion, str):
        raise _unexpected("completion", "a text", completion)
    truth = read_truth(fields)
    num_instances = fields.get("num_instances")
    if num_instances is None:
        num_instances = len(truth.boxes)
    _check(type(num_instances) is int and num_instances >= 0, "num_instances", "a whole number from 0", num_instances)
    return Row(completion, truth, num_instances)


def read_truth(fields: Mapping[str, object]) -> GroundTruth:
    """The ground truth in a row's fields. Raises DataError as `read_row` does."""
    boxes = _boxes(_field(fields, "boxes"))
    labels, categories = _texts(fields, "labels"), _texts(fields, "categories")
    _check(len(labels) == len(boxes), "labels", f"one for each of {len(boxes)} boxes", list(labels))
    known = normalized_labels(categories)
    for index, label in enumerate(labels if known else ()):  # a misspelt truth is one that no reply can find
        _check(normalize_label(label) in known, f"labels[{index}]", f"one of the {len(known)} categories", label)
    width, height, input_width, input_height = (
        _positive(fields, name) for name in ("width", "height", "input_width", "input_height")
    )
    return GroundTruth(Boxes.of(boxes, labels), categories, (width, height), (input_width, input_height))


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


def _check_order(boxes: Boxes) -> None:
    for index, (x1, y1, x2, y2) in enumerate(boxes.xyxy.tolist()):
        _check(x1 < x2 and y1 < y2, f"boxes[{index}]", "x1 < x2 and y1 < y2", [x1, y1, x2, y2])


def _begin(line: str | bytes) -> str:
    """How a line begins, for messages."""
    text = line if isinstance(line, str) else line.decode(errors="replace")
    return repr(text.strip()[:60])


def _field(fields: Mapping[str, object], name: str) -> object:
    if name not in fields:
        raise DataError(f"field {name}: expected it, found only {', '.join(list(fields)[:12]) or 'an empty object'}")
    return fields[name]


def _boxes(value: object) -> list[list[float]]:
    if not isinstance(value, list):
        raise _unexpected("boxes", "a list of [x1, y1, x2, y2]", value)
    for index, box in enumerate(value):
        four = isinstance(box, list) and len(box) == 4 and all(map(_is_number, box))
        _check(four, f"boxes[{index}]", "four numbers x1, y1, x2, y2 in pixels", box)
    return value


def _texts(fields: Mapping[str, object], name: str) -> tuple[str, ...]:
    value = _field(fields, name)
    if not isinstance(value, list) or not all(isinstance(text, str) for text in value):
        raise _unexpected(name, "a list of texts", value)
    return tuple(value)


def _positive(fields: Mapping[str, object], name: str) -> int:
    value = _field(fields, name)
    if type(value) is not int or not 0 < value < 10**9:
        raise _unexpected(name, "a positive whole number of pixels", value)
    return value


def _is_number(value: object) -> bool:
    """Whether areas of it can be computed."""
    return type(value) in (int, float) and abs(value) < 1e12  # type: ignore[arg-type]


def _check(holds: bool, name: str, expected: str, found: object) -> None:
    if not holds:
        raise _unexpected(name, expected, found)


def _unexpected(name: str, expected: str, found: object) -> DataError:
    return DataError(f"field {name}: expected {expected}, found {reprlib.repr(found)}")
