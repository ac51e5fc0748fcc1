"""A folder's processor for images and text alone, as the generic path needs it.

transformers builds a processor with all its parts. A part for videos exists for torchvision alone, so a model that also
reads videos could not be loaded without it, though nobody here feeds it one. So the parts for other things than images
and text are left out, and images are resized by PIL wherever the model's image processor can.
"""

import inspect
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer

# From its own module: the package's name for it is a stand-in before 5.18 where there is no torchvision.
from transformers.models.auto.image_processing_auto import AutoImageProcessor
from transformers.models.auto.processing_auto import PROCESSOR_MAPPING_NAMES, processor_class_from_name

from visionr1.errors import CheckpointError, MissingDependency, short_repr
from visionr1.models.folder.files import read_object
from visionr1.models.folder.foreign import foreign

LOCAL = {"trust_remote_code": False, "local_files_only": True}
"""Settings of every `from_pretrained`: transformers would else ask on the terminal whether to run a folder's code."""
PROCESSOR_FILES = ("processor_config.json", "preprocessor_config.json", "video_preprocessor_config.json")
"""Files about the processor beside the tokenizer's: they are saved as they were loaded."""
CLASS_FILES = (*PROCESSOR_FILES, "tokenizer_config.json")
"""Files that may name the processor's class, in the order in which transformers asks them."""
PATCHES = {
    "patch_size": "patch_size",
    "temporal_patch_size": "temporal_patch_size",
    "merge_size": "spatial_merge_size",
}
"""Settings of image processors, and those of vision towers that they must equal."""
OTHER_PATCHES = frozenset({"Cohere2VisionImageProcessor", "Step3p7ImageProcessor"})
"""Image processors whose `patch_size` is no patch of the tower: the tokens along a tile's edge, and a crop's pixels."""
LARGEST = {
    "shortest_edge": 1 << 26,
    "height": 1 << 14,
    "width": 1 << 14,
    "max_height": 1 << 14,
    "max_width": 1 << 14,
    "patch_size": 1 << 12,
    "temporal_patch_size": 64,
    "merge_size": 64,
    "min_patches": 1 << 10,
    "max_patches": 1 << 10,
}
"""Settings of image processors that decide how large an image becomes, with bounds far beyond any released model's.
`shortest_edge` may be a number of pixels in all (Qwen)."""


def load_processor(folder: Path, model_type: str) -> Any:
    """Return the processor in `folder`, without its parts for videos and sound.

    Raises MissingDependency if it needs a package that is not installed, and CheckpointError if the folder has no
    image processor or no chat template.
    """
    kind = _find_class(folder, model_type)
    tokenizer = read_tokenizer(folder)
    image_processor = load_image_processor(folder)
    with foreign(f"the processor in {folder}"):
        settings, _ = kind.get_processor_dict(folder, **LOCAL)
        processor = _build(kind, settings, {"tokenizer": tokenizer, "image_processor": image_processor})

    # The template may stand beside the tokenizer or the processor; the tokenizer saves it.
    template = processor.chat_template or tokenizer.chat_template
    _check_template(template, folder)
    processor.chat_template = template
    tokenizer.chat_template = template
    return processor


def load_tokenizer(folder: Path) -> Any:
    """Return the tokenizer in `folder`, with its chat template; CheckpointError if there is none."""
    tokenizer = read_tokenizer(folder)
    if tokenizer.chat_template is None and (folder / "chat_template.json").is_file():
        tokenizer.chat_template = read_object(folder / "chat_template.json").get("chat_template")
    _check_template(tokenizer.chat_template, folder)
    return tokenizer


def load_image_processor(folder: Path) -> Any:
    """Return the image processor in `folder`: by PIL if its model has such a one, else by torchvision.

    Raises MissingDependency if a package is missing, CheckpointError if there is no image processor or it is unfit.
    """
    if not any((folder / name).is_file() for name in PROCESSOR_FILES):
        raise CheckpointError(f"{folder} has no image processor: preprocessor_config.json is missing")
    with foreign(f"the image processor in {folder}"):
        try:
            image_processor = AutoImageProcessor.from_pretrained(folder, backend="pil", **LOCAL)
        except (ImportError, ValueError):
            # There may be none by PIL: the message of the other attempt is the one that says what is missing.
            image_processor = AutoImageProcessor.from_pretrained(folder, **LOCAL)
    _check_sizes(image_processor, folder)
    return image_processor


def check_patches(image_processor: Any, vision_config: Any, folder: Path) -> None:
    """Raise CheckpointError if the image processor cuts an image into other patches than the vision tower takes."""
    if type(image_processor).__name__ in OTHER_PATCHES:
        return
    for name, name_in_tower in PATCHES.items():
        cut = getattr(image_processor, name, None)
        taken = getattr(vision_config, name_in_tower, None)
        if isinstance(cut, int) and isinstance(taken, int) and cut != taken:
            raise CheckpointError(
                f"{folder / 'preprocessor_config.json'}: {name}: expected {taken}, as vision_config.{name_in_tower} in "
                f"config.json, found {cut}"
            )


def save_processor(processor: Any, folder: Path, files: Mapping[str, bytes]) -> None:
    """Write a processor that `load_processor` returned; `files` are those that it was loaded from, by name."""
    processor.tokenizer.save_pretrained(folder)
    for name, content in files.items():
        (folder / name).write_bytes(content)


def read_processor_files(folder: Path) -> dict[str, bytes]:
    """Return the content of the files about the processor, by name."""
    return {name: (folder / name).read_bytes() for name in PROCESSOR_FILES if (folder / name).is_file()}


def _find_class(folder: Path, model_type: str) -> Any:
    """Return the processor class that the folder names, else that of its model type; CheckpointError if none."""
    names = []
    for file in CLASS_FILES:
        if (folder / file).is_file():
            name = read_object(folder / file).get("processor_class")
            if isinstance(name, str) and name:
                names.append(name)
    if model_type in PROCESSOR_MAPPING_NAMES:
        names.append(PROCESSOR_MAPPING_NAMES[model_type])

    # Classes of transformers alone: a folder's own code is never run.
    for name in names:
        with foreign(f"the processor class {name!r} that {folder} names"):
            kind = processor_class_from_name(name)
            # A class whose packages are missing fails at its first attribute.
            parts = set() if kind is None else set(kind.get_attributes())
        if {"image_processor", "tokenizer"} <= parts:
            return kind
    raise CheckpointError(f"{folder}: transformers knows no processor for models of type {model_type!r}")


def _build(kind: Any, settings: Mapping[str, Any], parts: Mapping[str, Any]) -> Any:
    """Return a processor of class `kind` of its `parts` and `settings`; other parts are None.

    Where the constructor reads settings of its part for videos (MiniCPM-V), those of images stand in: none is fed.
    """
    accepted = inspect.signature(kind.__init__).parameters
    arguments = {name: value for name, value in settings.items() if name in accepted}
    for name in kind.get_attributes():
        arguments[name] = parts.get(name)
    try:
        return _construct(kind, arguments)
    except AttributeError:
        return _construct(kind, {**arguments, "video_processor": parts["image_processor"]})


def _construct(kind: Any, arguments: Mapping[str, Any]) -> Any:
    """Return a processor of class `kind`, whose parts may be None.

    transformers checks in the constructor that every part is there: the check is replaced on this object while it runs.
    """
    processor = kind.__new__(kind)
    processor.check_argument_for_proper_class = lambda name, part: None
    try:
        processor.__init__(**arguments)
    finally:
        del processor.check_argument_for_proper_class
    return processor


def read_tokenizer(folder: Path, config: Any = None) -> Any:
    """Return the tokenizer in `folder`, with or without a chat template; `config` stands in for its config.json.

    Raises MissingDependency if it needs a package that is not installed, CheckpointError if it cannot be read.
    """
    # transformers would ask for tiktoken, which does not read such a file.
    is_sentencepiece = (folder / "tokenizer.model").is_file() and not (folder / "tokenizer.json").is_file()
    if is_sentencepiece and find_spec("sentencepiece") is None:
        raise MissingDependency(
            f"the tokenizer in {folder} (tokenizer.model) needs sentencepiece, which is not installed: "
            "pip install sentencepiece"
        )
    with foreign(f"the tokenizer in {folder}"):
        return AutoTokenizer.from_pretrained(folder, config=config, **LOCAL)


def _check_template(template: object, folder: Path) -> None:
    """Raise CheckpointError if a chat template is missing, or is no text nor several by name."""
    if template is None:
        raise CheckpointError(f"{folder} has no chat template; is it an instruct model?")
    default = template.get("default") if isinstance(template, dict) else template
    if not isinstance(default, str):
        raise CheckpointError(f"{folder}: expected a chat template that is text, found {short_repr(default)}")


def _check_sizes(image_processor: Any, folder: Path) -> None:
    """Raise CheckpointError if a size in the image processor's settings is no size, or asks for endless memory."""
    settings = dict(vars(image_processor))
    for name in ("size", "crop_size", "max_image_size", "pad_size", "patch_size"):
        value = settings.get(name)
        if value is None or isinstance(value, int | float | str | list | tuple):
            continue
        del settings[name]
        settings.update({key: size for key, size in dict(value).items() if size is not None})
    for name, largest in LARGEST.items():
        value = settings.get(name)
        if value is None:
            continue
        # What the class begins with is no attack: Kimi's counts patches, others' tiles, by the same name.
        default = getattr(type(image_processor), name, None)
        if isinstance(default, int):
            largest = max(largest, default)
        if not isinstance(value, int) or not 1 <= value <= largest:
            raise CheckpointError(
                f"{folder / 'preprocessor_config.json'}: {name}: expected a whole number from 1 to {largest}, "
                f"found {short_repr(value)}"
            )
