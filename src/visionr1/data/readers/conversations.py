"""The conversation of a row: its image, and its pairs of a question and an answer.

VLM-R1 and Qwen write `{"image", "conversations": [{"from": "human", "value"}, {"from": "gpt", "value"}, ...]}`;
ms-swift and others `{"images": [...], "messages": [{"role": "user", "content"}, {"role": "assistant", "content"}]}`,
where a content may be a list of parts, `{"type": "text", "text"}` and `{"type": "image", "image"}` or `{"type":
"image_url", "image_url": {"url"}}`, and an image an object, `{"path"}`. Turns of the system are passed over.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from visionr1.data.row_log import get_field, is_object_list
from visionr1.errors import DataError, short_repr

_TURNS = ("conversations", "messages")
_SPEAKER = ("from", "role")
_TEXT = ("value", "content")
_IMAGE_PARTS = ("image", "image_url")
_PATH = ("path", "url", "image")
"""The keys of the turns, of a turn's speaker and text, of a part that is an image, of an image that is an object."""
_ASKS = ("human", "user")
_ANSWERS = ("gpt", "assistant")


@dataclass(frozen=True, slots=True)
class Pair:
    """A question and its answer, each with the name of its speaker in the file, for messages."""

    question: str
    answer: str
    asks: str
    answers: str


def read_pairs(row: object) -> list[Pair]:
    """Return the pairs of a row's conversation, at least one; DataError if turns do not alternate, or lack text."""
    turns_key = _TURNS[0]
    if get_field(row, _TURNS[0]) is None and get_field(row, _TURNS[1]) is not None:
        turns_key = _TURNS[1]
    turns = get_field(row, turns_key)
    if not is_object_list(turns):
        raise DataError(f"{turns_key}: expected a list of turns, found {short_repr(turns)}")

    spoken = []
    for turn in turns:
        speaker = _get_first(turn, _SPEAKER)
        if isinstance(speaker, str):
            speaker = speaker.strip().lower()
        if speaker != "system":
            spoken.append((speaker, _read_text(_get_first(turn, _TEXT))))

    # Even turns ask, odd ones answer; a question at the end is not answered.
    pairs = []
    for (asks, question), (answers, answer) in zip(spoken[::2], spoken[1::2], strict=False):
        if asks not in _ASKS or answers not in _ANSWERS or question is None or answer is None:
            break
        pairs.append(Pair(question, answer, str(asks), str(answers)))
    if not pairs or len(spoken) != 2 * len(pairs):
        speakers = [speaker for speaker, _ in spoken]
        expected = "a turn from human and one from gpt (or user and assistant) in turn, with text"
        raise DataError(f"{turns_key}: expected {expected}; found turns from {short_repr(speakers)}")
    return pairs


def read_image(row: Mapping[str, Any]) -> str:
    """Return the file name of a row's only image, which may stand in a list; DataError if it has another number."""
    images = _get_first(row, ("image", "images"))
    if images is None:
        images = _find_images_in_parts(_get_first(row, _TURNS))
    image = images
    if isinstance(images, list) and len(images) == 1:
        image = images[0]
    if isinstance(image, dict):
        image = _get_first(image, _PATH)
    if not isinstance(image, str):
        raise DataError(f"image: expected one image, found {short_repr(images)}")
    return image


def _get_first(row: Mapping[str, Any], keys: Sequence[str]) -> Any:
    """Return the value under the first of `keys` that a row has; None if it has none of them."""
    for key in keys:
        if row.get(key) is not None:
            return row[key]
    return None


def _read_text(content: object) -> str | None:
    """Return the text of a turn, whose parts may stand in a list; None if it has none."""
    if isinstance(content, str):
        return content
    if not is_object_list(content):
        return None
    texts = [part["text"] for part in content if isinstance(part.get("text"), str)]
    return "\n".join(texts) or None


def _find_images_in_parts(turns: object) -> list[object]:
    """Return the images that stand among the parts of turns."""
    images = []
    for turn in turns if is_object_list(turns) else []:
        parts = _get_first(turn, _TEXT)
        for part in parts if is_object_list(parts) else []:
            image = _get_first(part, _IMAGE_PARTS)
            if image is not None:
                images.append(image)
    return images
