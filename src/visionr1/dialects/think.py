"""A dialect inside `<think>..</think><answer>..</answer>`: a thought, then the answer, as R1-style models write.

The template is VLM-R1's: both tags once, white space between them and around. Only the answer is read for boxes, and it
is looked for behind the thought alone, which may name the tags too. Where the chat template writes `<think>` into the
prompt, the reply begins inside the thought: `open-think+NAME`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from visionr1.dialects.base import Dialect, HasTokens
from visionr1.samples import Boxes, Fault, FaultKind, Reply, Size, Task

THINK_REQUEST = (
    " First output the thinking process in <think> </think> tags and then output the final answer in "
    "<answer> </answer> tags."
)
"""The words after any instruction: VLM-R1's words (om-ai-lab/VLM-R1@90052f4, `qwen_module.py`, its template of no
particular task)."""

THINK, OPEN_THINK = "think+", "open-think+"
"""The beginnings of the names of such dialects: the reply writes the opening tag, or the prompt does."""

_THINK, _THINK_END, _ANSWER, _ANSWER_END = "<think>", "</think>", "<answer>", "</answer>"


@dataclass(frozen=True, slots=True)
class Think:
    """The dialect `inner` as an answer after a thought."""

    inner: Dialect
    opened: bool = False
    """The prompt ends in `<think>`, so that a reply that writes it again has a fault."""

    @property
    def name(self) -> str:
        """See `Dialect.name`: think+ or open-think+, and the name of the inner one."""
        return f"{OPEN_THINK if self.opened else THINK}{self.inner.name}"

    @property
    def templates(self) -> Mapping[Task, str]:
        """See `Dialect.templates`: those of the inner one, to which `instruction` adds THINK_REQUEST."""
        return self.inner.templates

    @property
    def tokens(self) -> Sequence[str]:
        """See `HasTokens`: those of the inner one, if it has any."""
        return self.inner.tokens if isinstance(self.inner, HasTokens) else ()

    @property
    def in_model_px(self) -> bool:
        """See `Dialect.in_model_px`."""
        return self.inner.in_model_px

    def grid_wh(self, *, size_wh: Size, input_size_wh: Size) -> tuple[float, float]:
        """See `Dialect.grid_wh`."""
        return self.inner.grid_wh(size_wh=size_wh, input_size_wh=input_size_wh)

    def render(self, boxes: Boxes, *, size_wh: Size, input_size_wh: Size) -> str:
        """See `Dialect.render`; the thought is empty. ValueError for a label that holds a tag of the template."""
        answer = self.inner.render(boxes, size_wh=size_wh, input_size_wh=input_size_wh)
        if _ANSWER in answer or _ANSWER_END in answer:
            raise ValueError(f"a label holds {_ANSWER} or {_ANSWER_END}, which this dialect cannot write")
        opening = "" if self.opened else _THINK
        return f"{opening}{_THINK_END}\n{_ANSWER}\n{answer}\n{_ANSWER_END}"

    def parse(self, text: str, *, size_wh: Size, input_size_wh: Size, categories: Sequence[str] = ()) -> Reply:
        """See `Dialect.parse`: the last answer is read, or the whole text where there is none."""
        answer, fault = _split_answer(text, opened=self.opened)
        reply = self.inner.parse(answer, size_wh=size_wh, input_size_wh=input_size_wh, categories=categories)
        if fault is None:
            return reply
        return replace(reply, faults=(fault, *reply.faults))


def ends_in_open_thought(prompt: str) -> bool:
    """Say if a prompt ends in `<think>`, as the chat templates of some models write it."""
    return prompt.rstrip().endswith(_THINK)


def _split_answer(text: str, *, opened: bool) -> tuple[str, Fault | None]:
    """Return the text to read for boxes, and what is wrong with the template around it."""
    thought, thought_end, rest = text.strip().partition(_THINK_END)
    rest = rest.lstrip()
    has_tag = thought.startswith(_THINK)
    has_answer = rest.startswith(_ANSWER) and rest.endswith(_ANSWER_END)
    if has_tag is not opened and thought_end and has_answer and rest.count(_ANSWER) == rest.count(_ANSWER_END) == 1:
        return rest[len(_ANSWER) : -len(_ANSWER_END)], None

    # Out of the template. What stands in a thought is no answer, whatever tags it names.
    if not thought_end:
        if has_tag or opened:
            return "", Fault(FaultKind.TRUNCATED, None, "the thought does not end")
        rest = thought

    # Read the last answer, or all behind the last thought if there is none.
    _, tag, answer = rest.rpartition(_ANSWER)
    if not tag:
        detail = "expected <answer>..</answer>, found none"
        return rest.rpartition(_THINK_END)[2], Fault(FaultKind.SURROUNDING_TEXT, None, detail)
    answer, closing, _ = answer.partition(_ANSWER_END)
    if not closing:
        return answer, Fault(FaultKind.TRUNCATED, None, "the answer does not end")

    detail = "expected one <think>..</think>, one <answer>..</answer> and nothing else"
    if opened:
        detail = "expected the rest of the thought, </think>, one <answer>..</answer> and nothing else"
        if has_tag:
            detail = "the prompt opened the thought: expected no second <think>"
    return answer, Fault(FaultKind.SURROUNDING_TEXT, None, detail)
