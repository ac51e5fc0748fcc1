"""Protocols: everything that an evaluation number depends on, as a record with a name.

Under another protocol the same boxes give an AP that differs by more than the gains papers claim, so no number is
printed without one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from difflib import get_close_matches
from typing import Any, Literal, Self, TypeVar, get_args, get_type_hints

from visionr1.errors import RecipeError


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplyProtocol:
    """What the protocols of every task say: how a model is asked, and how its replies are read."""

    name: str = field(compare=False)
    """Not compared: two names may state one protocol, as "default" and "default with scores=constant" do."""
    template: str = ""
    """The instruction, {} for what is asked; empty for the paper's for the dialect's model family (`prompts.py`)."""
    parse: Literal["salvage", "strict"] = "salvage"
    """Boxes of a faulty reply: every complete one, or none. Salvage reports the strict figure beside it."""
    match_iou: float = 0.5
    """IoU from which a box is right (AP has its own ten)."""
    dialect: str = ""
    """How the replies write boxes, and in which coordinate space; empty for boxes in original pixels."""
    decoding: str = "greedy"
    """Empty where a file of predictions does not say."""
    dtype: str = ""
    """Of the weights that replied; empty where a file of predictions does not say."""
    image_processor: str = ""
    """A checksum of the image processor's settings, which say how many pixels the model sees; empty likewise."""
    max_new_tokens: int = 0
    """Of a reply; 0 where a file of predictions does not say."""
    metric: str = ""
    """What a benchmark's own metric does beyond the fields above, in words; empty if nothing."""

    def to_json(self) -> dict[str, Any]:
        """The record as a JSON object."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Self:
        """The protocol in a stored result; keys of later versions are left out."""
        known = {field.name for field in fields(cls)} & set(record)
        values: dict[str, Any] = {key: tuple(v) if isinstance(v := record[key], list) else v for key in known}
        return cls(**values)

    def reply_line(self, asked: str) -> str:
        """How the replies came to be and are read, for `line`; empty for files of boxes."""
        if not self.dialect:
            return ""
        if not self.decoding:
            return f"{self.dialect}, taken as {asked}: wording and decoding are not stated; {self.parse} parse; "
        asked += f', "{self.template}"' if self.template else ""
        tokens = f", {self.max_new_tokens} tokens" if self.max_new_tokens else ""
        weights = f", {self.dtype}" if self.dtype else ""
        return f"{self.dialect}, {self.decoding}{weights}{tokens}; {asked}; {self.parse} parse; "


@dataclass(frozen=True, slots=True, kw_only=True)
class Protocol(ReplyProtocol):
    """How a set is asked for objects of its categories, read and scored."""

    prompt: Literal["joint", "per_category"] = "joint"
    """All categories in one prompt, or one prompt for each."""
    categories: Literal["all", "present", "every"] = "all"
    """Which are asked for: all that the set asks of the image (D3: its group's), those that the image's own truth holds
    (which tells what is there), or every one of the set (D3's inter-group setting)."""
    salvage: Literal["items", "release"] = "items"
    """Which boxes of a faulty reply: of every complete item, or those of Vision-R1's release (`release_salvage.py`)."""
    num_negatives: int = 0
    """With categories=present: how many absent ones are asked too, drawn by sample id; all may fit no prompt."""
    scores: Literal["constant", "rank", "token", "file"] = "constant"
    """Of a box: one number for all; 1 - 0.001 x its place in the reply; the geometric mean of the probabilities of the
    tokens of its label and coordinates; or as a results file gives it."""
    constant_score: float = 1.0
    order: Literal["file", "image_id"] = "file"
    """Of images, which decides between equal scores: the file's, or by image id as pycocotools; then emission."""
    max_dets: tuple[int, int, int] = (1, 10, 100)
    """Boxes of one category in one image for the three AR; the last is that of every AP too."""
    suppression: Literal["none", "truth"] = "none"
    """Before AP: nothing, or of the boxes on a true one all but the best scored are left out (`nms_ap.py`)."""
    limit: int = 0
    """Of the set's images only so many, evenly spaced, are asked and scored; 0 for all."""

    def line(self) -> str:
        """The protocol in one line, to stand under a number."""
        asked = {
            "all": "all categories",
            "present": "only the categories present in the truth (a hint)",
            "every": "every category of the set",
        }[self.categories]
        if self.num_negatives and self.categories == "present":
            asked = f"the categories present in the truth and {self.num_negatives} others drawn by image (a hint)"
        asked += " in one prompt" if self.prompt == "joint" else " in a prompt each"
        stated = {
            "constant": f"constant {self.constant_score:g}",
            "rank": "1 - 0.001 x its place in the reply",
            "token": "geometric mean of the probabilities of its label's and coordinates' tokens",
            "file": "as in the file",
        }
        return (
            f"protocol {self.name}: {f'{self.limit} evenly spaced images alone; ' if self.limit else ''}"
            f"{self.reply_line(asked)}"
            f"{'faulty replies cut as in the release; ' if self.dialect and self.salvage == 'release' else ''}"
            f"box score {stated[self.scores]}; "
            f"ties by {self.order.replace('_', ' ')} order, then emission; "
            f"maxDets {'/'.join(map(str, self.max_dets))}; {'NMS-AP; ' if self.suppression == 'truth' else ''}"
            f"IoU >=; precision, recall, F1 at IoU {self.match_iou:g}" + (f"; {self.metric}" if self.metric else "")
        )


DEFAULT = Protocol(name="default")
"""All categories in one prompt, salvaged parse with the strict AP beside it, constant score, file order."""

COCO_RESULTS = Protocol(name="coco_results", scores="file", order="image_id", decoding="")
"""A file of COCO results as pycocotools scores it: scores as in the file, ties by image id."""

MMDET_MAX_DETS = (100, 300, 1000)

PROTOCOLS = {
    protocol.name: protocol
    for protocol in (
        DEFAULT,
        # Vision-R1's released evaluation (Griffon, Vision-R1/eval): pycocotools' defaults, 512 tokens.
        Protocol(name="vision_r1_coco", salvage="release", constant_score=0.99, order="image_id", max_new_tokens=512),
        Protocol(
            name="vision_r1_odinw",
            salvage="release",
            prompt="per_category",
            categories="present",
            constant_score=0.99,
            order="image_id",
            max_new_tokens=512,
        ),
        # ODinW-13 as the Qwen2.5-VL team describes it (QwenLM/Qwen3-VL issues 839 and 1041), scored by mmdetection.
        Protocol(
            name="qwen25vl",
            prompt="per_category",
            template="Locate every {} in the image and output the coordinates in JSON format.",
            order="image_id",
            max_dets=MMDET_MAX_DETS,
        ),
        # QwenLM/Qwen3-VL, evaluation/ODinW-13: a reply that is not JSON counts as empty.
        Protocol(
            name="qwen3vl",
            template="Locate every instance that belongs to the following categories: '{}'. "
            "Report bbox coordinates in JSON format.",
            parse="strict",
            order="image_id",
            max_dets=MMDET_MAX_DETS,
        ),
        # mmdetection's CocoMetric on a file of results.
        Protocol(name="mmdet", scores="file", order="image_id", max_dets=MMDET_MAX_DETS, decoding=""),
        COCO_RESULTS,
    )
}
"""By name. They say nothing of image sizes: a model folder's preprocessor_config.json does."""

_FIXED = {"name", "dialect", "decoding", "dtype", "image_processor", "metric"}
"""Fields that the evaluation itself states."""


def read_protocol(settings: Sequence[str], base: Protocol = DEFAULT) -> Protocol:
    """The protocol that NAME and FIELD=VALUE settings make, read from left to right; a name comes first.

    Overridden fields become part of the name. Raises RecipeError for an unknown name or field, or a value that does
    not fit, naming what would.
    """
    return read_settings(settings, base, PROTOCOLS)


P = TypeVar("P", bound=ReplyProtocol)


def read_settings(settings: Sequence[str], base: P, named: Mapping[str, P]) -> P:
    """What `read_protocol` says, for the protocols of any task: those that are `named`."""
    changes: dict[str, str] = {}
    for position, setting in enumerate(settings):
        key, is_field, value = setting.partition("=")
        if is_field:
            base = replace(base, **{key: _read_field(type(base), key, value)})
            changes[key] = value
        elif position:
            raise RecipeError(f"{setting}: a protocol's name comes first, then FIELD=VALUE")
        elif setting not in named:
            raise RecipeError(f"unknown protocol {setting!r}{_nearest(setting, named)}; {_known(named)}")
        else:
            base = named[setting]
    changed = ", ".join(f"{key}={value}" for key, value in changes.items())
    return replace(base, name=f"{base.name} with {changed}") if changed else base


ASKED = ("prompt", "categories", "num_negatives", "template", "decoding", "max_new_tokens", "dtype", "image_processor")
"""Fields that replies depend on, and not only their scoring."""


def as_asked(protocol: P, replies_of: Mapping[str, Any]) -> P:
    """A protocol for replies in files: how they were asked is what their first row says, or not known.

    Where they were asked otherwise than the protocol asks, its name says so.
    """
    if protocol.dtype:  # that of a stored result
        return protocol
    own = {key: getattr(protocol, key) for key in ASKED if hasattr(protocol, key)}
    said = {key: replies_of[key] for key, value in own.items() if isinstance(replies_of.get(key), type(value))}
    unlike = any(said.get(key, own.get(key)) != own.get(key) for key in ASKED[:4])
    unknown: dict[str, Any] = {} if said else {"template": "", "decoding": "", "max_new_tokens": 0}
    return replace(protocol, **said, **unknown, name=protocol.name + " (asked otherwise)" * unlike)


def _read_field(protocol: type[ReplyProtocol], key: str, text: str) -> Any:
    kinds = {name: kind for name, kind in get_type_hints(protocol).items() if name not in _FIXED}
    if key not in kinds:
        raise RecipeError(f"a protocol has no field {key!r}{_nearest(key, kinds)}; {_known(kinds)}")
    kind = kinds[key]
    if choices := [choice for choice in get_args(kind) if isinstance(choice, str)]:
        if text not in choices:
            raise RecipeError(f"protocol field {key}: expected one of {', '.join(choices)}, found {text!r}")
        return text
    expected, fits = _CHECKS[key]
    try:
        value = tuple(map(int, text.split(","))) if get_args(kind) else kind(text)
    except ValueError:
        value = None
    if value is None or not fits(value):
        raise RecipeError(f"protocol field {key}: expected {expected}, found {text!r}")
    return value


_CHECKS: Mapping[str, tuple[str, Callable[[Any], bool]]] = {
    "template": ("an instruction with {} where the categories stand", lambda text: "{}" in text),
    "constant_score": ("a finite number", math.isfinite),
    "max_dets": (
        "three numbers of boxes, ascending, such as 1,10,100",
        lambda limits: len(limits) == 3 and 0 < limits[0] < limits[1] < limits[2],
    ),
    "match_iou": ("an IoU above 0 and at most 1", lambda iou: 0 < iou <= 1),
    "max_new_tokens": ("a number of tokens", lambda number: number > 0),
    "limit": ("a number of images", lambda number: number > 0),
    "min_score": ("a finite number", math.isfinite),
    "num_negatives": ("a number of categories, 0 or more", lambda number: number >= 0),
}


def _nearest(text: str, known: Mapping[str, Any]) -> str:
    found = get_close_matches(text, known, 1)
    return f"; did you mean {found[0]!r}?" if found else ""


def _known(names: Mapping[str, Any]) -> str:
    return f"known: {', '.join(names)}"
