"""Dialects that write boxes in tags, `<ref>label</ref><box>...</box>`, with the tags and numbers of each family.

The empty reply is `None`. A label holds no tag of the dialect and no line break.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from visionr1.boxes import Array, rescale_xyxy
from visionr1.dialects.base import NORM1000_WH, round_to_grid
from visionr1.dialects.reading.brackets import BRACKETS, EMPTY, check_labels, split_boxes
from visionr1.dialects.reading.fallback import read_other
from visionr1.dialects.reading.items import Items, skip_thought
from visionr1.dialects.reading.key_lines import read_key_lines
from visionr1.dialects.reading.labelled import read_labelled, read_untagged
from visionr1.dialects.reading.other_forms import holds_json
from visionr1.dialects.reading.tags import LISTS, TAGS, TagForm, read_tags, with_plain_tags
from visionr1.samples import Boxes, FaultKind, Reply, Size, Task, compose_text


def _to_integers(grid_xyxy: Array) -> list[list[int]]:
    """Return boxes (N, 4) in grid units as the integers that are written, those of largest IoU."""
    numbers: list[list[int]] = round_to_grid(grid_xyxy).astype(int).tolist()
    return numbers


@dataclass(frozen=True, slots=True)
class TaggedDialect:
    """One family's tags."""

    name: str
    templates: Mapping[Task, str] = field(hash=False)
    write_boxes: Callable[[Sequence[Sequence[int]]], str]
    """Return what stands between the tags for these boxes."""
    form: TagForm = LISTS
    shares: Literal["tags", "reference", "nothing"] = "tags"
    """What neighbours of one label share: reference and box tags, the reference alone, or nothing."""
    joiner: str = ""
    """What is written between references."""
    span_wh: tuple[float, float] = NORM1000_WH
    to_numbers: Callable[[Array], list[list[int]]] = _to_integers
    """Return what is written of boxes (N, 4) that span `span_wh`."""
    more_tokens: tuple[str, ...] = ()
    reads_numbers: bool = True
    """Plain numbers, in tags of other families or in another syntax, are in this space, 0 to 1000 or nearly so."""
    in_model_px: bool = False

    @property
    def tokens(self) -> tuple[str, ...]:
        """See `HasTokens`: the tags, and where coordinates are tokens, these."""
        return (*self.form.tags, *self.more_tokens)

    def grid_wh(self, *, size_wh: Size, input_size_wh: Size) -> tuple[float, float]:
        """See `Dialect.grid_wh`."""
        return self.span_wh

    def render(self, boxes: Boxes, *, size_wh: Size, input_size_wh: Size) -> str:
        """See `Dialect.render`; ValueError for a label that is blank or holds a tag of the dialect or a line break."""
        check_labels(boxes.labels, tuple(dict.fromkeys((*self.form.tags, *TAGS))))
        numbers = self.to_numbers(rescale_xyxy(boxes.xyxy, size_wh, self.span_wh))

        # The labels as they follow each other, each with the boxes behind it.
        references: list[tuple[str, list[list[int]]]] = []
        for label, box in zip(boxes.labels, numbers, strict=True):
            if not references or references[-1][0] != label or self.shares == "nothing":
                references.append((label, []))
            references[-1][1].append(box)
        return self.joiner.join(self._write(label, group) for label, group in references) or EMPTY

    def _write(self, label: str, boxes: list[list[int]]) -> str:
        """Return one reference with its boxes."""
        ref, ref_end, box, box_end = self.form.tags
        groups = [boxes] if self.shares == "tags" else [[one] for one in boxes]
        bodies = "".join(f"{box}{self.write_boxes(group)}{box_end}" for group in groups)
        return f"{ref}{compose_text(label)}{ref_end}{bodies}"

    def parse(self, text: str, *, size_wh: Size, input_size_wh: Size, categories: Sequence[str] = ()) -> Reply:
        """See `Dialect.parse`. Boxes whose list was cut off count as far as they are complete."""
        items = Items(tuple(categories))
        answer = split_boxes(skip_thought(text))
        own = answer
        for tag, plain_tag in zip(self.form.tags, TAGS, strict=True):
            own = own.replace(tag, plain_tag)
        plain = with_plain_tags(own)
        is_foreign = own != plain or (self.form.tags != TAGS and any(tag in answer for tag in TAGS))

        if is_foreign and not self.reads_numbers:
            self._read_other(answer, items)
        elif "<box>" in plain:
            read_tags(plain, items, self.form)
        elif not self._has_untagged(plain):
            self._read_other(plain, items)
        else:
            self._read_untagged(plain, items)
            items.fault(FaultKind.OTHER_SYNTAX, f"no tags around label and boxes: {text[:60]!r}")
        if items.count and (is_foreign or answer != text):
            items.fault(FaultKind.OTHER_SYNTAX, f"tags of another family, or a thought: {text[:60]!r}")
        return items.reply(self.span_wh, size_wh)

    def _read_other(self, text: str, items: Items) -> None:
        """Read a text without boxes in tags or brackets."""
        reads_numbers = self.reads_numbers
        read_other(text, items, reads_norm1000=reads_numbers, own=self.name, reads_numbers=reads_numbers)

    def _read_untagged(self, text: str, items: Items) -> None:
        """Read boxes behind their labels, without tags: by keys, in the dialect's own form, or in brackets."""
        read_key_lines(text, items)
        if not items.count and self._has_own_untagged(text):
            read_untagged(text, items, self.form)
        elif not items.count:
            read_labelled(text, items)

    def _has_untagged(self, text: str) -> bool:
        """Say if a text without tags holds boxes: in the dialect's own form where that can be known, or in brackets."""
        if holds_json(text):
            return False
        return self._has_own_untagged(text) or (self.reads_numbers and BRACKETS.search(text) is not None)

    def _has_own_untagged(self, text: str) -> bool:
        """Say if a text without tags holds boxes in the dialect's own form, where that can be known without them."""
        is_known = self.form.body is not None and not self.form.ends_with_tag
        return is_known and self.form.box.search(text) is not None
