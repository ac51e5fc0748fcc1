"""Protocols: everything that an evaluation number depends on, as a record with a name.

Under another protocol the same boxes give an AP that differs by more than the gains papers claim, so no number is
printed without one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import Field, asdict, dataclass, field, fields, replace
from difflib import get_close_matches
from typing import Any, Literal, get_args, get_origin, get_type_hints

from visionr1.boxes import is_number
from visionr1.errors import DataError, RecipeError, short_repr

DETECTION_FIELDS = (
    "prompt",
    "categories",
    "salvage",
    "num_negatives",
    "scores",
    "constant_score",
    "order",
    "max_dets",
    "suppression",
    "limit",
)
EXPRESSION_FIELDS = ("comparison", "overlap", "min_score")
_METRIC_FIELDS = (*DETECTION_FIELDS, *EXPRESSION_FIELDS)
"""Fields that only some metrics use."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Protocol:
    """How a model is asked, how its replies are read, and how they are scored.

    The fields of the first group matter to every metric. A metric uses some of the others; `uses` names them, and only
    those can be set by a user and are stored.
    """

    name: str = field(compare=False)
    """Not compared: two names may state one protocol, as "default" and "default with scores=constant" do."""
    uses: tuple[str, ...] = field(default=DETECTION_FIELDS, compare=False, repr=False)
    """The fields below the first group that the metric uses."""

    # Asking and reading, for every metric.
    template: str = ""
    """The instruction, {} for what is asked; empty for the paper's for the dialect's model family."""
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
    engine: str = ""
    """Name and version of the rollout engine that replied; empty for the built-in one, and where a file of predictions
    does not say."""
    image_processor: str = ""
    """A checksum of the image processor's settings, which say how many pixels the model sees; empty likewise."""
    max_new_tokens: int = 0
    """Of a reply; 0 where a file of predictions does not say."""
    metric: str = ""
    """What a benchmark's own metric does beyond the fields, in words; empty if nothing."""

    # Detection: objects of a set's categories.
    prompt: Literal["joint", "per_category"] = "joint"
    """All categories in one prompt, or one prompt for each."""
    categories: Literal["all", "present", "every"] = "all"
    """Those asked for: all that the set asks of the image (D3: its group's), those that the image's own truth holds
    (which tells what is there), or every one of the set (D3's inter-group setting)."""
    salvage: Literal["items", "release"] = "items"
    """Boxes kept of a faulty reply: of every complete item, or those of Vision-R1's release (`release_salvage.py`)."""
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

    # Referring: what an expression names.
    comparison: Literal["at_least", "above"] = "at_least"
    """How an overlap is compared with `match_iou`: mmdetection's `>=`, or `>` as Griffon and VLM-R1 have it."""
    overlap: Literal["iou", "giou"] = "iou"
    """The overlap that is compared: IoU, or generalised IoU as the authors of gRefCOCO do."""
    min_score: float = 0.0
    """Boxes of a results file below this score are left out; those of a reply have none and stay."""

    def to_json(self) -> dict[str, Any]:
        """Return the fields that the metric uses as a JSON object."""
        unused = {"uses", *_METRIC_FIELDS} - set(self.uses)
        if not self.engine:
            unused.add("engine")
        record = {}
        for key, value in asdict(self).items():
            if key not in unused:
                # A list, as it comes back from a file.
                record[key] = list(value) if isinstance(value, tuple) else value
        return record

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Protocol:
        """Read the protocol in a stored result; keys of later versions are left out, and earlier ones may lack some.

        Raises DataError that names a field with another type or choice.
        """
        values: dict[str, Any] = {"name": ""}
        for field_of_protocol in fields(cls):
            key = field_of_protocol.name
            if key in record and key != "uses":
                values[key] = _read_stored(field_of_protocol, record[key])

        # The fields that a metric does not use are not stored.
        uses = tuple(key for key in _METRIC_FIELDS if key in record)
        return cls(**values, uses=uses)

    def line(self) -> str:
        """Return the protocol in one line, to stand under a number."""
        phrases = self._asking_phrases()
        if "max_dets" in self.uses:
            phrases += self._detection_phrases()
        elif "comparison" in self.uses:
            phrases += self._expression_phrases()
        if self.metric:
            phrases.append(self.metric)
        return f"protocol {self.name}: {'; '.join(phrases)}"

    def _asking_phrases(self) -> list[str]:
        """Say how the replies came to be and are read; of files of boxes only how many images there are."""
        phrases = []
        if self.limit:
            phrases.append(f"{self.limit} evenly spaced images alone")
        if not self.dialect:
            return phrases

        asked = "one prompt a sample"
        if "categories" in self.uses:
            asked = self._categories_phrase()
        elif "comparison" in self.uses:
            asked = "one expression a prompt"
        if self.decoding:
            if self.template:
                asked += f', "{self.template}"'
            phrases += [self._generation_phrase(), asked]
        else:
            # Replies in a file that does not say how they were asked.
            phrases.append(f"{self.dialect}, taken as {asked}: wording and decoding are not stated")
        return [*phrases, f"{self.parse} parse"]

    def _generation_phrase(self) -> str:
        """Say by what the replies were generated, as far as it is known."""
        phrase = f"{self.dialect}, {self.decoding}"
        if self.dtype:
            phrase += f", {self.dtype}"
        if self.engine:
            phrase += f" by {self.engine}"
        if self.max_new_tokens:
            phrase += f", {self.max_new_tokens} tokens"
        return phrase

    def _categories_phrase(self) -> str:
        """Say which categories were asked for, and if all at once."""
        if self.categories == "every":
            asked = "every category of the set"
        elif self.categories == "all":
            asked = "all categories"
        elif self.num_negatives:
            asked = f"the categories present in the truth and {self.num_negatives} others drawn by image (a hint)"
        else:
            asked = "only the categories present in the truth (a hint)"
        if self.prompt == "joint":
            return f"{asked} in one prompt"
        return f"{asked} in a prompt each"

    def _detection_phrases(self) -> list[str]:
        """Say how boxes of categories are scored and matched."""
        score = {
            "constant": f"constant {self.constant_score:g}",
            "rank": "1 - 0.001 x its place in the reply",
            "token": "geometric mean of the probabilities of its label's and coordinates' tokens",
            "file": "as in the file",
        }[self.scores]

        phrases = []
        if self.dialect and self.salvage == "release":
            phrases.append("faulty replies cut as in the release")
        phrases.append(f"box score {score}")
        phrases.append(f"ties by {self.order.replace('_', ' ')} order, then emission")
        phrases.append(f"maxDets {'/'.join(map(str, self.max_dets))}")
        if self.suppression == "truth":
            phrases.append("NMS-AP")
        return [*phrases, "IoU >=", f"precision, recall, F1 at IoU {self.match_iou:g}"]

    def _expression_phrases(self) -> list[str]:
        """Say when the box of an expression is right."""
        phrases = []
        if self.min_score and not self.dialect:
            phrases.append(f"boxes of score {self.min_score:g} or more")
        overlap = {"iou": "IoU", "giou": "GIoU"}[self.overlap]
        sign = {"at_least": ">=", "above": ">"}[self.comparison]
        return [*phrases, f"right at {overlap} {sign} {self.match_iou:g}"]


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

QWEN3_TEMPLATE = (
    'Locate every object that matches the description "{}" in the image. Report bbox coordinates in JSON format.'
)
VLM_R1_TEMPLATE = (
    "Please provide the bounding box coordinate of the region this sentence describes: {}. First output the thinking "
    "process in <think> </think> tags and then output the final answer in <answer> </answer> tags. Output the final "
    "answer in JSON format."
)

EXPRESSION_DEFAULT = Protocol(name="default", uses=EXPRESSION_FIELDS)
GREC_DEFAULT = replace(EXPRESSION_DEFAULT, name="grec", min_score=0.7)

EXPRESSION_PROTOCOLS = {
    protocol.name: protocol
    for protocol in (
        EXPRESSION_DEFAULT,
        GREC_DEFAULT,
        # henghuiding/gRefCOCO, mdetr/datasets/refexp.py: thresholds generalised IoU (its issue 9).
        replace(GREC_DEFAULT, name="grec_giou", overlap="giou"),
        # Vision-R1's and Griffon's evaluation (griffon/eval/eval_rec.py).
        replace(EXPRESSION_DEFAULT, name="vision_r1", comparison="above"),
        # VLM-R1, src/eval/test_rec_r1.py. Its IoU subtracts 1 and adds 1 again: the ordinary one, but 0 for overlaps at
        # most one pixel wide or high.
        replace(EXPRESSION_DEFAULT, name="vlm_r1", comparison="above", template=VLM_R1_TEMPLATE, max_new_tokens=256),
        replace(EXPRESSION_DEFAULT, name="qwen3vl", template=QWEN3_TEMPLATE),
        # mmdetection's RefExpMetric, on files of boxes.
        replace(EXPRESSION_DEFAULT, name="mmdet", decoding=""),
    )
}
"""By name, for benchmarks of expressions."""

_FIXED = {"name", "uses", "dialect", "decoding", "dtype", "engine", "image_processor", "metric"}
"""Fields that the evaluation itself states."""


def read_protocol(
    settings: Sequence[str], base: Protocol = DEFAULT, named: Mapping[str, Protocol] = PROTOCOLS
) -> Protocol:
    """Return the protocol that NAME and FIELD=VALUE settings make, read from left to right; a name comes first.

    A name is one of `named`. Overridden fields become part of the name. Raises RecipeError for an unknown name or
    field, or a value that does not fit, naming what would.
    """
    changes: dict[str, str] = {}
    for position, setting in enumerate(settings):
        key, is_field, value = setting.partition("=")
        if is_field:
            base = replace(base, **{key: _read_field(base, key, value)})
            changes[key] = value  # of a field that is set twice the last counts
        elif position:
            raise RecipeError(f"{setting}: a protocol's name comes first, then FIELD=VALUE")
        elif setting not in named:
            raise RecipeError(f"unknown protocol {setting!r}{_nearest(setting, named)}; {_known(named)}")
        else:
            base = named[setting]
    if not changes:
        return base

    # Whoever reads the name sees that it is not the protocol of that name as it stands.
    changed = ", ".join(f"{key}={value}" for key, value in changes.items())
    return replace(base, name=f"{base.name} with {changed}")


ASKED = (
    *("prompt", "categories", "num_negatives", "template", "decoding", "max_new_tokens"),
    *("dtype", "engine", "image_processor"),
)
"""Fields that replies depend on, and not only their scoring."""
_WORDING = ASKED[:4]


def as_asked(protocol: Protocol, replies_of: Mapping[str, Any]) -> Protocol:
    """Return the protocol for replies in files: how they were asked is what their first row says, or not known.

    Where they were asked otherwise than the protocol asks, its name says so.
    """
    if protocol.dtype:  # that of a stored result
        return protocol

    # The first row may come from any tool: what is of another type is not taken.
    record = {"engine": "", **protocol.to_json()}
    asked = {}
    for key in ASKED:
        if key in record and isinstance(replies_of.get(key), type(record[key])):
            asked[key] = replies_of[key]
    if not asked:
        return replace(protocol, template="", decoding="", max_new_tokens=0)

    name = protocol.name
    if any(key in asked and asked[key] != record[key] for key in _WORDING):
        name += " (asked otherwise)"
    return replace(protocol, **asked, name=name)


def _read_field(protocol: Protocol, key: str, text: str) -> Any:
    """Read the value of a field that the protocol uses; RecipeError if there is no such field or it does not fit."""
    not_settable = _FIXED | (set(_METRIC_FIELDS) - set(protocol.uses))
    types = get_type_hints(Protocol)
    for name in not_settable:
        del types[name]
    if key not in types:
        raise RecipeError(f"a protocol has no field {key!r}{_nearest(key, types)}; {_known(types)}")

    # A field is one of several words, several numbers, or a single value.
    kind = types[key]
    choices = [choice for choice in get_args(kind) if isinstance(choice, str)]
    if choices:
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


def _read_stored(field_of_protocol: Field[Any], value: Any) -> Any:
    """Return the value of a field in a stored result; DataError if it is none of those that there are."""
    key = field_of_protocol.name
    kind = get_type_hints(Protocol)[key]
    if get_origin(kind) is tuple:
        # A list, as JSON has it.
        if isinstance(value, list) and len(value) == 3 and all(type(number) is int for number in value):
            return tuple(value)
        raise DataError(f"protocol.{key}: expected three whole numbers, found {short_repr(value)}")
    if get_origin(kind) is Literal:
        if isinstance(value, str) and value in get_args(kind):
            return value
        raise DataError(f"protocol.{key}: expected one of {', '.join(get_args(kind))}, found {short_repr(value)}")
    if type(value) is not kind and not (kind is float and is_number(value)):
        raise DataError(f"protocol.{key}: expected {kind.__name__}, found {short_repr(value)}")
    return value


def _nearest(text: str, known: Mapping[str, Any]) -> str:
    """Return a hint at a name that was perhaps meant, empty if none is near."""
    matches = get_close_matches(text, known, 1)
    if not matches:
        return ""
    return f"; did you mean {matches[0]!r}?"


def _known(names: Mapping[str, Any]) -> str:
    return f"known: {', '.join(names)}"
