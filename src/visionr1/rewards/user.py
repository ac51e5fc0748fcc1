"""A reward from a user's code, named as `module:object` or `file.py:object`.

The object is one of three:

- a function of a completion: `def reward(text, truth): ...`, which returns a number, a mapping of parts (the total is
  their sum) or a `Score`. It takes any of `text`, `reply` (as the dialect parses it), `truth` and `stage`, by these
  names. Its other parameters are options, which a recipe sets beside `preset`;
- a class, or a function that makes a reward, whose parameters are options, `dialect` excepted, which is passed in;
- an object that is made already.

Of the last two, the method `score` is as the function of the first. Attributes `maximum` and `weights` are used where
they are there (see `Scorer`).
"""

from __future__ import annotations

import inspect
import math
import traceback
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Annotated, Any

from pydantic import AfterValidator, create_model

from visionr1.completions import OTHER_FIELDS, TRUTH_FIELDS
from visionr1.dialects import Dialect
from visionr1.errors import RecipeError, VisionR1Error
from visionr1.rewards.presets import Preset
from visionr1.rewards.score import Score, Scorer
from visionr1.rewards.stages import BEGINNER, Stage
from visionr1.samples import GroundTruth, Reply
from visionr1.settings import Section


def _refuse_not_finite(value: Any) -> Any:
    """Return the value of an option whose type is not known; RecipeError if a number in it is NaN or infinite."""
    inner: Iterable[Any] = ()
    if isinstance(value, Mapping):
        inner = value.values()
    elif isinstance(value, list | tuple):
        inner = value
    for item in inner:
        _refuse_not_finite(item)
    if isinstance(value, float) and not math.isfinite(value):
        raise RecipeError(f"expected a finite number, found {value}")
    return value


_FINITE = Annotated[Any, AfterValidator(_refuse_not_finite)]
"""The type of an option that is not annotated: anything, but for numbers that are not finite, as everywhere."""
ARGUMENTS = ("text", "reply", "truth", "stage")
"""Arguments that a function which scores a completion may take, by name."""
_CHECKED_TYPES = {kind.__name__: kind for kind in (int, float, str, bool)}
"""Annotations of options that are checked."""


@dataclass(frozen=True, slots=True)
class ScoringCall:
    """Call a function that scores a completion with what its parameters name."""

    name: str
    function: Callable[..., Any]
    arguments: tuple[str, ...]
    options: Mapping[str, object] = field(default_factory=dict)

    def __call__(self, text: str, reply: Reply | None, truth: GroundTruth, stage: Stage) -> Any:
        known = {"text": text, "reply": reply, "truth": truth, "stage": stage}
        arguments = {name: known[name] for name in self.arguments}
        return self.function(**arguments, **self.options)


def scoring_call(name: str, function: Callable[..., Any], options: Mapping[str, object] | None = None) -> ScoringCall:
    """Prepare to call `function` on completions; RecipeError if it needs anything but ARGUMENTS and `options`."""
    options = options or {}
    arguments = []
    for parameter in _parameters(function):
        if parameter.name in ARGUMENTS:
            arguments.append(parameter.name)
        elif parameter.name not in options and parameter.default is parameter.empty:
            raise RecipeError(
                f"{name} takes {parameter.name!r}; a function that scores a completion takes any of "
                f"{', '.join(ARGUMENTS)}, by these names"
            )

    # A function of truth and stage alone gives all completions of a group the same.
    if not {"text", "reply"} & set(arguments):
        raise RecipeError(f"{name} takes neither text nor reply, so that it cannot score a completion")
    return ScoringCall(name, function, tuple(arguments), options)


@dataclass(frozen=True, slots=True)
class UserReward:
    """Score completions by a user's code, and check the results: RecipeError says what is wrong with one."""

    call: ScoringCall
    dialect: Dialect
    weights: Mapping[str, float] = field(default_factory=dict)
    maximum: float | None = None

    def score(self, text: str, truth: GroundTruth, stage: Stage = BEGINNER) -> Score:
        """Score one completion."""
        reply = None
        if "reply" in self.call.arguments:
            reply = parse_reply(self.dialect, text, truth)
        result = self.call(text, reply, truth, stage)
        return check_score(self.call.name, result, reply)


def parse_reply(dialect: Dialect, text: str, truth: GroundTruth) -> Reply:
    """Return what `dialect` reads of a completion."""
    return dialect.parse(text, size_wh=truth.size_wh, input_size_wh=truth.input_size_wh, categories=truth.categories)


def check_score(name: str, result: Any, reply: Reply | None) -> Score:
    """Return what a user's reward returned as a Score; `reply` is what was parsed for it. Raises RecipeError."""
    num_predicted = None
    if reply is not None:
        num_predicted = reply.num_predicted

    if isinstance(result, Score):
        score = result
    elif isinstance(result, Mapping):
        parts = {}
        for key, value in result.items():
            parts[key] = check_number(f"{name}, part {key}", value)
        score = Score(sum(parts.values()), parts, reply=reply, num_predicted=num_predicted)
    else:
        score = Score(check_number(name, result), {}, reply=reply, num_predicted=num_predicted)

    # A Score may be made by hand, and the keys of a mapping may be anything. Both become rows of JSON, so numpy's and
    # torch's numbers become Python's.
    total = check_number(f"{name}, total", score.total)
    parts = {}
    for key, value in score.parts.items():
        check_part_name(name, key)
        parts[key] = check_number(f"{name}, part {key}", value)
    _check_words(name, score)
    number_of_boxes = _check_optional(f"{name}, num_predicted", score.num_predicted)
    return replace(
        score,
        total=total,
        parts=parts,
        num_predicted=None if number_of_boxes is None else int(number_of_boxes),
        plain_recall=_check_optional(f"{name}, plain_recall", score.plain_recall),
        plain_precision=_check_optional(f"{name}, plain_precision", score.plain_precision),
    )


def _check_words(name: str, score: Score) -> None:
    """Raise RecipeError if notes of a Score made by hand are no texts, or its reply, stage or pairs of another kind."""
    notes = score.notes
    if not isinstance(notes, list | tuple) or not all(isinstance(note, str) for note in notes):
        raise RecipeError(f"{name}, notes: expected a tuple of texts, found {notes!r:.80}")
    if not isinstance(score.note_kind, str):
        raise RecipeError(f"{name}, note_kind: expected a text, found {score.note_kind!r:.80}")

    kinds: tuple[tuple[str, Any, type], ...] = (
        ("reply", score.reply, Reply),
        ("stage", score.stage, Stage),
        ("pairs", score.pairs, tuple),
    )
    for field_name, value, kind in kinds:
        if value is not None and not isinstance(value, kind):
            raise RecipeError(f"{name}, {field_name}: expected {kind.__name__} or None, found {value!r:.80}")


def _check_optional(name: str, value: Any) -> float | None:
    """Return `value` as `check_number` does, or None where a Score does not know it."""
    return None if value is None else check_number(name, value)


def check_part_name(name: str, part: Any) -> None:
    """Raise RecipeError if `part` cannot be the name of a part, for it would take the place of a field of its row."""
    if not isinstance(part, str):
        raise RecipeError(f"{name}: expected texts as names of parts, found {part!r}")
    if part in TRUTH_FIELDS or part in OTHER_FIELDS:
        raise RecipeError(f"{name}: a part cannot be called {part!r}, as a field of its row is; choose another name")


def describe_raised(error: BaseException) -> str:
    """Return what a reward raised and, for the author of its code, the file and line that raised it."""
    if isinstance(error, VisionR1Error) or error.__traceback__ is None:
        return repr(error)
    last_call = traceback.extract_tb(error.__traceback__)[-1]
    return f"{error!r} ({last_call.filename}:{last_call.lineno})"


def check_number(name: str, value: Any) -> float:
    """Return `value` as a float; RecipeError if it is no finite number."""
    # numpy's numbers and torch's scalars can be converted, and so can texts, which are refused.
    if isinstance(value, str | bytes) or not hasattr(type(value), "__float__"):
        raise RecipeError(f"{name}: expected a finite number, found {value!r:.80}")
    number = float(value)
    if not math.isfinite(number):
        raise RecipeError(f"{name}: expected a finite number, found {number}")
    return number


def preset_from_object(candidate: Any) -> Preset:
    """Return the preset that an object of a user's code stands for; RecipeError if it is no reward."""
    if isinstance(candidate, Preset):
        return _checked_preset(candidate)
    name = getattr(candidate, "__qualname__", type(candidate).__qualname__)

    # A class has `score` too, but must be called first: it makes the reward.
    is_class = isinstance(candidate, type)
    if not is_class and hasattr(candidate, "score"):
        return _preset_of_object(name, candidate)
    if not callable(candidate):
        raise RecipeError(f"{name} is no reward: expected a function, a class or an object with score()")

    # A function that takes a completion scores it; one that takes none makes the reward.
    if is_class or not {"text", "reply"} & _names(_parameters(candidate)):
        return _preset_of_factory(name, candidate)
    return _preset_of_function(name, candidate)


def _checked_preset(preset: Preset) -> Preset:
    """Return a user's own preset, whose scores are checked like those of any other code of theirs."""

    def build(options: Any, dialect: Dialect) -> Scorer:
        return _wrap(preset.name, preset.build(options, dialect), dialect)

    return replace(preset, build=build)


def _preset_of_object(name: str, reward: Any) -> Preset:
    def build(options: Section, dialect: Dialect) -> Scorer:
        return _wrap(name, reward, dialect)

    return Preset(name, _options_model(name, [], but=()), build, has_adaptive_stages=True)


def _preset_of_factory(name: str, factory: Callable[..., Any]) -> Preset:
    parameters = _parameters(factory)
    takes_dialect = "dialect" in _names(parameters)

    def build(options: Section, dialect: Dialect) -> Scorer:
        arguments = dict(options)
        if takes_dialect:
            arguments["dialect"] = dialect
        try:
            reward = factory(**arguments)
        except VisionR1Error:
            raise
        except Exception as error:  # a user's code may raise anything
            raise RecipeError(f"{name} cannot be made: it raised {describe_raised(error)}") from error
        return _wrap(name, reward, dialect)

    options = _options_model(name, parameters, but=("dialect",))
    return Preset(name, options, build, has_adaptive_stages=True)


def _preset_of_function(name: str, function: Callable[..., Any]) -> Preset:
    parameters = _parameters(function)
    options = _options_model(name, parameters, but=ARGUMENTS)

    # A function that does not look at the stage has no thresholds that could rise.
    stage_options: Mapping[str, object] | None = None
    if "stage" in _names(parameters):
        stage_options = {}

    def build(options: Section, dialect: Dialect) -> Scorer:
        return UserReward(scoring_call(name, function, dict(options)), dialect)

    return Preset(name, options, build, stage_options=stage_options, has_adaptive_stages=True)


def _wrap(name: str, reward: Any, dialect: Dialect) -> UserReward:
    """Return an object with `score`, or a function of a completion, as a reward whose results are checked."""
    function = getattr(reward, "score", reward)
    if not callable(function):
        raise RecipeError(f"{name} made {reward!r:.80}, which is no reward: it has no score()")

    # What it says of itself is shown beside its scores, and so checked as they are.
    weights = getattr(reward, "weights", None) or {}
    if not isinstance(weights, Mapping):
        raise RecipeError(f"{name}.weights: expected a mapping of parts to numbers, found {weights!r:.80}")
    checked = {}
    for part, weight in weights.items():
        check_part_name(f"{name}.weights", part)
        checked[part] = check_number(f"{name}.weights, {part}", weight)
    maximum = _check_optional(f"{name}.maximum", getattr(reward, "maximum", None))
    return UserReward(scoring_call(f"{name}.score", function), dialect, checked, maximum)


def _options_model(name: str, parameters: list[inspect.Parameter], but: tuple[str, ...]) -> type[Section]:
    """Return the settings that parameters `but` some stand for: their names are checked, and simple types."""
    fields: dict[str, Any] = {}
    for parameter in parameters:
        if parameter.name in but:
            continue

        # An annotation is a text where its module has `from __future__ import annotations`.
        annotation = parameter.annotation
        if not isinstance(annotation, str):
            annotation = getattr(annotation, "__name__", "")
        kind = _CHECKED_TYPES.get(annotation, _FINITE)

        default = parameter.default
        if default is parameter.empty:
            default = ...  # pydantic's word for a field that is required
        fields[parameter.name] = (kind, default)
    return create_model(f"{name}Options", __base__=Section, **fields)


def _names(parameters: list[inspect.Parameter]) -> set[str]:
    return {parameter.name for parameter in parameters}


def _parameters(function: Callable[..., Any]) -> list[inspect.Parameter]:
    """Return the parameters that can be given by name."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except ValueError as error:  # some built-in functions have none
        raise RecipeError(f"{function!r:.80} cannot be used as a reward: its parameters are not known") from error
    by_name = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return [parameter for parameter in parameters if parameter.kind in by_name]
