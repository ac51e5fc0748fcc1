"""The record that every reward gives of a completion (`Score`), and the protocol of a reward (`Scorer`).

`Score` needs a total and its parts. What else a reward can tell (the reply it read, matched pairs, recall and
precision) has typed fields, which are None where it cannot: metrics, signs of hacking and drawings use what is there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Protocol

from visionr1.rewards.criteria import Pair
from visionr1.rewards.stages import BEGINNER, Stage
from visionr1.samples import Boxes, GroundTruth, Reply


@dataclass(frozen=True, slots=True)
class Score:
    """The reward of a completion, with the reasons.

    `total` is the reward. `parts` are what it is made of, unweighted. `notes` say in words what neither tells, and
    `note_kind` is the kind under which `visionr1 score` lists them as faults.

    The other fields are None where the reward does not know them: the parsed `reply`; `num_predicted`, the boxes that
    it counted; the matched `pairs`, which index into `reply.boxes` and the true boxes; the `stage` in force;
    `plain_recall` and `plain_precision`, Eq. 5 and Eq. 6 before f, which adaptive stages need.
    """

    total: float
    parts: Mapping[str, float]
    notes: tuple[str, ...] = ()
    note_kind: str = "note"
    reply: Reply | None = None
    num_predicted: int | None = None
    pairs: tuple[Pair, ...] | None = None
    stage: Stage | None = None
    plain_recall: float | None = None
    plain_precision: float | None = None

    @property
    def label_accuracy(self) -> float | None:
        """The share of valid pairs whose label is right; None without a valid pair."""
        num_valid = 0
        num_correct = 0
        for pair in self.pairs or ():
            if pair.valid:
                num_valid += 1
                num_correct += pair.label_correct
        if not num_valid:
            return None
        return num_correct / num_valid

    def to_json(self) -> dict[str, object]:
        """Return the score as a row of `visionr1 score`: what it knows, as JSON values."""
        row: dict[str, object] = {"total": self.total, **self.parts}

        # The row has no field for what the reward does not know.
        if self.stage is not None:
            row["stage"] = [self.stage.xi0, self.stage.xi1, self.stage.xi2]
        for name in ("plain_recall", "plain_precision", "num_predicted"):
            value = getattr(self, name)
            if value is not None:
                row[name] = value
        if self.pairs is not None:
            row["pairs"] = [asdict(pair) for pair in self.pairs]
        row["faults"] = self.faults_to_json()
        return row

    def faults_to_json(self) -> list[dict[str, object]]:
        """Return the faults of the reply, then the notes, as JSON values."""
        faults: list[dict[str, object]] = []
        if self.reply is not None:
            for fault in self.reply.faults:
                faults.append({"kind": fault.kind, "item": fault.item, "detail": fault.detail})
        for note in self.notes:
            faults.append({"kind": self.note_kind, "item": None, "detail": note})
        return faults

    def reasons(self, truth: GroundTruth, weights: Mapping[str, float]) -> Iterator[str]:
        """Say in words, a line each, why the completion got its score; `weights` are those of the reward."""
        yield self.sum_in_words(weights)
        if self.num_predicted is not None:
            yield self.counts_in_words(truth)

        # Parts that are measured, but not in the total.
        if weights:
            unweighted = [f"{name} {value:.3f}" for name, value in self.parts.items() if name not in weights]
            if unweighted:
                yield ", ".join(unweighted)

        # What became of each box, then what is wrong with the text.
        if self.pairs is not None and self.reply is not None:
            yield from _pairs_in_words(self.pairs, self.reply.boxes, truth.boxes)
        if self.reply is not None:
            for fault in self.reply.faults:
                where = "the text"
                if fault.item is not None:
                    where = f"item {fault.item}"
                yield f"fault in {where}: {fault.kind} ({fault.detail})"
        yield from self.notes

    def sum_in_words(self, weights: Mapping[str, float]) -> str:
        """Return the total as the weighted sum of its parts; the parts alone where `weights` are empty."""
        terms = []
        for name in weights or self.parts:
            weight = weights.get(name, 1.0)
            term = f"{name} {self.parts[name]:.3f}"
            if weight != 1:
                term = f"{weight:g} x {term}"
            terms.append(term)

        words = f"{self.total:.3f}"
        if terms:
            words += " = " + " + ".join(terms)
        if self.stage is not None:
            words += f" (xi0 {self.stage.xi0}, xi1 {self.stage.xi1}, xi2 {self.stage.xi2})"
        return words

    def counts_in_words(self, truth: GroundTruth) -> str:
        """Return the numbers of predicted and true boxes, and of valid pairs where they are known."""
        words = f"{self.num_predicted} predicted, {len(truth.boxes)} true boxes"
        if self.pairs is not None:
            words += f", {sum(pair.valid for pair in self.pairs)} valid pairs"
        return words


class Scorer(Protocol):
    """Score one completion against its truth, by rule: the protocol of a reward."""

    @property
    def weights(self) -> Mapping[str, float]:
        """The parts that make the total, and how much each counts; empty if the total is not such a sum."""

    @property
    def maximum(self) -> float | None:
        """The largest total there can be; None if it is not known."""

    def score(self, text: str, truth: GroundTruth, stage: Stage = BEGINNER) -> Score:
        """Score one completion, by the thresholds of `stage`. Never raises on its text."""


def _pairs_in_words(pairs: tuple[Pair, ...], predicted: Boxes, true: Boxes) -> Iterator[str]:
    """Say which box matches which, then which predicted and which true boxes match nothing."""
    matched_predicted = set()
    matched_true = set()
    for pair in pairs:
        true_label = true.labels[pair.true]
        label = f"{true_label!r}"
        if not pair.label_correct:
            label = f"{predicted.labels[pair.predicted]!r} where {true_label!r} is true"
        yield f"box {pair.predicted} matches true box {pair.true}: IoU {pair.iou:.3f}, {label}"

        matched_predicted.add(pair.predicted)
        matched_true.add(pair.true)

    # What is left over costs precision, or recall.
    for index, label in enumerate(predicted.labels):
        if index not in matched_predicted:
            yield f"box {index} ({label!r}) matches no true box"
    for index, label in enumerate(true.labels):
        if index not in matched_true:
            yield f"true box {index} ({label!r}) is missed"
