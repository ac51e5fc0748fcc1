"""Whether a chat template ends the prompt in `<think>`: the reply then begins inside a thought that it did not open."""

import logging
from typing import Any

from visionr1.dialects import Dialect
from visionr1.dialects.think import Think, ends_in_open_thought
from visionr1.models.folder.chat_template import bounded_memory, render_prompt

_log = logging.getLogger(__name__)


def dialect_for_template(dialect: Dialect, tokenizer: Any, *, is_default: bool) -> Dialect:
    """Return the dialect of a model whose prompts the tokenizer's chat template writes.

    With a thought it is think+ or open-think+, as the template has it. A plain dialect becomes open-think+ where the
    prompt opens a thought and nobody chose it (`is_default`); one that was chosen stays, with a warning.
    """
    opened = ends_in_open_thought(_render(tokenizer))
    if isinstance(dialect, Think):
        return Think(dialect.inner, opened=opened)

    plain = f"dialect {dialect.name!r} has no thought"
    if opened and is_default:
        thinking = Think(dialect, opened=True)
        _log.warning(
            "the chat template ends the prompt in <think>: replies are asked for and read in dialect %r; name another "
            "with --dialect, in a recipe model.dialect (docs/faq.md#the-chat-template-writes-think)",
            thinking.name,
        )
        return thinking
    if opened:
        _log.warning(
            "%s, but the chat template ends the prompt in <think>, so no reply gets the format reward; name think+%s "
            "(docs/faq.md#the-chat-template-writes-think)",
            *(plain, dialect.name),
        )
    elif is_default and _knows_thoughts(tokenizer):
        _log.warning(
            "%s, but the chat template names <think>; if the model thinks before it answers, name think+%s "
            "(docs/faq.md#the-chat-template-writes-think)",
            *(plain, dialect.name),
        )
    return dialect


def _knows_thoughts(tokenizer: Any) -> bool:
    """Say if the chat template names the tag of a thought, and does not write an empty one into the prompt."""
    return "<think>" in str(tokenizer.chat_template) and "</think>" not in _render(tokenizer)


def _render(tokenizer: Any) -> str:
    """Return a prompt as the chat template writes it, up to where a reply begins.

    It is the first one that the template of a folder writes, so its memory is bounded.
    """
    with bounded_memory():
        return render_prompt(tokenizer.apply_chat_template, [{"type": "image"}, {"type": "text", "text": "?"}])
