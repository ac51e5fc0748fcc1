"""Say why no box of many replies overlaps a true one: the commonest fault, and the coordinate space they may be in.

A hint and never a figure: nothing is scored in a space that the user did not name.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from visionr1.dialects import DIALECTS, Dialect
from visionr1.dialects.json_dialect import JsonDialect, json_dialect
from visionr1.dialects.reading.other_forms import name_other_form
from visionr1.dialects.think import Think
from visionr1.rewards.criteria import match
from visionr1.rewards.stages import BEGINNER
from visionr1.samples import Fault, FaultKind, GroundTruth, Reply

MOST_REPLIES = 200
"""Replies that are looked at: enough to see what most of them have."""
LEAST_SHARE = 0.2
"""Of the true boxes, that must be met in another space for it to be named."""
_FAQ = "docs/faq.md#every-score-is-0-and-there-are-boxes"


@dataclass(frozen=True, slots=True)
class OtherSpace:
    """A coordinate space in which boxes would meet true ones: its dialect, its description, and how many are met."""

    dialect: Dialect
    description: str
    num_met: int
    num_true: int


@dataclass(frozen=True, slots=True)
class RepliesWithTruth:
    """Completions with their truths, in a dialect; a truth whose `input_size_wh` is not known has the image's."""

    dialect: Dialect
    completions: Sequence[tuple[str, GroundTruth]]
    knows_input_size: bool = True

    def parse(self, dialect: Dialect | None = None) -> list[Reply]:
        """Read every completion in `dialect`, by default their own."""
        dialect = dialect or self.dialect
        replies = []
        for text, truth in self.completions:
            reply = dialect.parse(
                text, size_wh=truth.size_wh, input_size_wh=truth.input_size_wh, categories=truth.categories
            )
            replies.append(reply)
        return replies

    def count_met(self, replies: Sequence[Reply]) -> int:
        """Count the true boxes that a box of the same label overlaps by half or more; one category needs no label."""
        num_met = 0
        for reply, (_, truth) in zip(replies, self.completions, strict=True):
            needs_label = len(truth.categories) > 1
            for pair in match(reply, truth, BEGINNER, "iou+label"):
                num_met += pair.valid and (pair.label_correct or not needs_label)
        return num_met

    def find_other_label(self, replies: Sequence[Reply]) -> str:
        """Say which other label a box has that overlaps a true one; empty if there is no such box."""
        for reply, (_, truth) in zip(replies, self.completions, strict=True):
            for pair in match(reply, truth, BEGINNER, "iou"):
                if pair.valid and not pair.label_correct:
                    label = reply.boxes.labels[pair.predicted]
                    true_label = truth.boxes.labels[pair.true]
                    return f"a box overlaps one of another label, {label!r} where {true_label!r} is true"
        return ""

    def count_true(self) -> int:
        """Count the true boxes."""
        return sum(len(truth.boxes) for _, truth in self.completions)


def count_in_words(space: OtherSpace) -> str:
    """Say how many true boxes would be met in another space."""
    return f"so read, {space.num_met} of {space.num_true} true boxes would be met"


def explain_no_overlap(replies: RepliesWithTruth, figure: Callable[[OtherSpace], str] = count_in_words) -> str:
    """Return one line that says why no box meets a true one; empty if one does, or if there is nothing to say.

    `figure` says, in words, how good the replies would be in another space.
    """
    parsed = replies.parse()
    if not replies.count_true() or replies.count_met(parsed):
        return ""

    # Where there are no boxes in any form, the counts beside the result say so.
    other = find_other_space(replies)
    has_boxes = other is not None or any(reply.num_predicted for reply in parsed)
    if not has_boxes and not any(name_other_form(text, reads_norm1000=False) for text, _ in replies.completions):
        return ""

    parts = ["no box overlaps a true one of its label"]
    for part in (replies.find_other_label(parsed), commonest_fault(parsed)):
        if part:
            parts.append(part)
    if other is not None:
        parts.append(f"replies look like {other.description}: {figure(other)} (a hint, no result)")
    return f"{'; '.join(parts)} ({_FAQ})"


def commonest_fault(replies: Sequence[Reply]) -> str:
    """Return the commonest fault with an example of its detail; empty if there is none."""
    counts: Counter[FaultKind] = Counter()
    examples: dict[FaultKind, Fault] = {}
    for reply in replies:
        counts.update({fault.kind for fault in reply.faults})
        for fault in reply.faults:
            examples.setdefault(fault.kind, fault)
    if not counts:
        return ""

    # What is wrong with an item says more than what is wrong with the text around it, or with its label alone.
    def rank(kind: FaultKind) -> tuple[int, bool, bool]:
        says_little = kind in (FaultKind.UNKNOWN_LABEL, FaultKind.SURROUNDING_TEXT)
        return counts[kind], examples[kind].item is not None, not says_little

    kind = max(sorted(counts), key=rank)
    in_words = kind.replace("_", " ")
    return f"the commonest fault, in {counts[kind]} of {len(replies)} replies: {in_words} ({examples[kind].detail})"


def find_other_space(replies: RepliesWithTruth) -> OtherSpace | None:
    """Return the space in which most true boxes are met; of several the one that fits the text best.

    None if LEAST_SHARE of them are met in no other.
    """
    num_true = replies.count_true()
    best = None
    best_rank = (max(1, int(LEAST_SHARE * num_true)) - 1, len(replies.completions), 0, True)
    writes_json = _writes_json(replies.dialect)
    for dialect, description in _other_spaces(replies):
        parsed = replies.parse(dialect)
        num_met = replies.count_met(parsed)
        num_faults = sum(len(reply.faults) for reply in parsed)
        num_well_formed = sum(reply.well_formed for reply in parsed)
        rank = (num_met, num_well_formed, -num_faults, _writes_json(dialect) is writes_json)
        if rank > best_rank:
            best = OtherSpace(dialect, description, num_met, num_true)
            best_rank = rank
    return best


def _other_spaces(replies: RepliesWithTruth) -> Iterator[tuple[Dialect, str]]:
    """Yield the dialects there are but the replies' own, then more forms of JSON, each with its description."""
    inner = replies.dialect
    if isinstance(inner, Think):
        inner = inner.inner

    # Of several that read the same, the commonest is named.
    names = [*_SPACES, *(name for name in DIALECTS if name not in _SPACES)]
    others = [(DIALECTS.known(name), _SPACES.get(name, "its own form")) for name in names if name in DIALECTS]
    others += [(json_dialect(name), description) for name, description in _JSON_FORMS.items()]
    for dialect, description in others:
        if dialect.name != inner.name and (replies.knows_input_size or not dialect.in_model_px):
            yield _like(replies.dialect, dialect), f"dialect {dialect.name} ({description})"


def _writes_json(dialect: Dialect) -> bool:
    """Say if a dialect, perhaps behind a thought, is JSON."""
    if isinstance(dialect, Think):
        dialect = dialect.inner
    return isinstance(dialect, JsonDialect)


def _like(dialect: Dialect, other: Dialect) -> Dialect:
    """Return `other` with a thought before the answer if `dialect` has one."""
    if isinstance(dialect, Think):
        return replace(dialect, inner=other)
    return other


_SPACES = {
    "qwen25": "pixels of the model's input",
    "qwen3": "0-1000",
    "internvl": "tags, 0-1000",
    "griffon": "0-1, three decimals",
    "gemini": "box_2d, y first, 0-1000",
    "lfm": "bbox, 0-1",
}
_JSON_FORMS = {
    "json:grid=1": "numbers from 0 to 1",
    "json:grid=image": "pixels of the original image",
    "json:key=bbox,grid=image": "pixels of the original image",
    "json:key=box_2d,order=xyxy": "box_2d, x first, 0-1000",
}
"""Forms of JSON that no dialect has by a plain name, and that are tried too."""
