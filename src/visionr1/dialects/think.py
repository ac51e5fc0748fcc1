"""A dialect inside `<think>..</think><answer>..</answer>`: a thought, then the answer, as R1-style models write.

The template is VLM-R1's: both tags once, white space between them and around. Only the answer is read for boxes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from visionr1.dialects.base import Dialect
from visionr1.samples import Boxes, Fault, FaultKind, Reply, Size, Task

THINK_REQUEST = (
    " First output the thinking process in <think> </think> tags and then output the final answer in "
    "<answer> </answer> tags."
)
"""The words after any instruction: VLM-R1's words (om-ai-lab/VLM-R1@90052f4, `qwen_module.py`, its template of no
particular task)."""

_THINK, _THINK_END, _ANSWER, _ANSWER_END = "<think>", "</think>", "<answer>", "</answer>"


@dataclass(frozen=True, slots=True)
class Think:
    """The dialect `inner` as an answer after a thought."""

    inner: Dialect

    @property
    def name(self) -> str:
        """See `Dialect.name`: think+ and the name of the inner one."""
        return f"think+{self.inner.name}"

    @property
    def templates(self) -> Mapping[Task, str]:
        """See `Dialect.templates`: those of the inner one, to which `instruction` adds THINK_REQUEST."""
        return self.inner.templates

    @property
    def in_model_px(self) -> bool:
        """See `Dialect.in_model_px`."""
        return self.inner.in_model_px

    def grid_wh(self, input_size_wh: Size) -> tuple[float, float]:
        """See `Dialect.grid_wh`."""
        return self.inner.grid_wh(input_size_wh)

    def render(self, boxes: Boxes, *, size_wh: Size, input_size_wh: Size) -> str:
        """See `Dialect.render`; the thought is empty. ValueError for a label that holds a tag of the template."""
        answer = self.inner.render(boxes, size_wh=size_wh, input_size_wh=input_size_wh)
        if _ANSWER in answer or _ANSWER_END in answer:
            raise ValueError(f"a label holds {_ANSWER} or {_ANSWER_END}, which this dialect cannot write")
        return f"{_THINK}{_THINK_END}\n{_ANSWER}\n{answer}\n{_ANSWER_END}"

    def parse(self, text: str, *, size_wh: Size, input_size_wh: Size, categories: Sequence[str] = ()) -> Reply:
        """See `Dialect.parse`: the last answer is read, or the whole text where there is none."""
        answer, fault = _split_answer(text)
        reply = self.inner.parse(answer, size_wh=size_wh, input_size_wh=input_size_wh, categories=categories)
        if fault is None:
            return reply
        return replace(reply, faults=(fault, *reply.faults))


def _split_answer(text: str) -> tuple[str, Fault | None]:
    """Return the text to read for boxes, and what is wrong with the template around it."""
    thought, thought_end, rest = text.strip().partition(_THINK_END)
    rest = rest.lstrip()
    has_thought = thought.startswith(_THINK) and bool(thought_end)
    has_answer = rest.startswith(_ANSWER) and rest.endswith(_ANSWER_END)
    if has_thought and has_answer and rest.count(_ANSWER) == rest.count(_ANSWER_END) == 1:
        return rest[len(_ANSWER) : -len(_ANSWER_END)], None

    # Out of the template: read the last answer, or all behind the thought if there is none.
    start = text.rfind(_ANSWER)
    if start < 0 and not thought_end and thought.startswith(_THINK):
        return "", Fault(FaultKind.TRUNCATED, None, "the thought does not end")
    if start < 0:
        detail = "expected <answer>..</answer>, found none"
        return rest or text, Fault(FaultKind.SURROUNDING_TEXT, None, detail)

    answer, closing, _ = text[start + len(_ANSWER) :].partition(_ANSWER_END)
    if not closing:
        return answer, Fault(FaultKind.TRUNCATED, None, "the answer does not end")
    detail = "expected one <think>..</think>, one <answer>..</answer> and nothing else"
    return answer, Fault(FaultKind.SURROUNDING_TEXT, None, detail)
