"""A folder's processor for images and text alone, as the generic path needs it.

transformers builds a processor with all its parts. A part for videos exists for torchvision alone, so a model that also
reads videos could not be loaded without it, though nobody here feeds it one. So the parts for other things than images
and text are left out, and images are resized by PIL wherever the model's image processor can.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers import AutoImageProcessor, AutoTokenizer, ProcessorMixin
from transformers.models.auto.processing_auto import PROCESSOR_MAPPING_NAMES, processor_class_from_name

from visionr1.errors import CheckpointError, MissingDependency
from visionr1.files import read_json

PROCESSOR_FILES = ("processor_config.json", "preprocessor_config.json", "video_preprocessor_config.json")
"""Files about the processor beside the tokenizer's: they are saved as they were loaded."""
CLASS_FILES = (*PROCESSOR_FILES, "tokenizer_config.json")
"""Files that may name the processor's class, in the order in which transformers asks them."""


def load_processor(folder: Path, model_type: str) -> Any:
    """Return the processor in `folder`, without its parts for videos and sound.

    Raises MissingDependency if it needs a package that is not installed, and CheckpointError if the folder has no
    image processor or no chat template.
    """
    kind = _without_other_parts(_find_class(folder, model_type))
    parts: list[Any] = []
    for name in kind.get_attributes():
        if name == "image_processor":
            parts.append(load_image_processor(folder))
        elif "tokenizer" in name:
            parts.append(AutoTokenizer.from_pretrained(folder, trust_remote_code=False))
        else:
            parts.append(None)
    settings, _ = kind.get_processor_dict(folder)
    processor = kind.from_args_and_dict(parts, settings)

    # The template may stand beside the tokenizer or the processor; the tokenizer saves it.
    template = processor.chat_template or processor.tokenizer.chat_template
    processor.chat_template = template
    processor.tokenizer.chat_template = template
    if template is None:
        raise CheckpointError(f"{folder} has no chat template; is it an instruct model?")
    return processor


def load_image_processor(folder: Path) -> Any:
    """Return the image processor in `folder`: by PIL if its model has such a one, else by torchvision.

    Raises MissingDependency if a package is missing, CheckpointError if there is no image processor.
    """
    if not any((folder / name).is_file() for name in PROCESSOR_FILES):
        raise CheckpointError(f"{folder} has no image processor: preprocessor_config.json is missing")
    try:
        return AutoImageProcessor.from_pretrained(folder, backend="pil", trust_remote_code=False)
    except (ImportError, ValueError):
        # There is none by PIL: the message of the other attempt is the one that says what is missing.
        pass
    try:
        return AutoImageProcessor.from_pretrained(folder, trust_remote_code=False)
    except (ImportError, ValueError) as error:
        raise MissingDependency(
            f"the image processor in {folder} cannot be loaded: {str(error).strip()}. Models of this kind have one for "
            "torchvision alone; install the build that belongs to your torch: pip install torchvision (on a machine "
            "without a GPU with --index-url https://download.pytorch.org/whl/cpu)"
        ) from error


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
            content = read_json(folder / file)
            if isinstance(content, dict) and isinstance(content.get("processor_class"), str):
                names.append(content["processor_class"])
    if model_type in PROCESSOR_MAPPING_NAMES:
        names.append(PROCESSOR_MAPPING_NAMES[model_type])

    # Classes of transformers alone: a folder's own code is never run.
    for name in names:
        kind = processor_class_from_name(name)
        if kind is not None:
            return kind
    raise CheckpointError(f"{folder}: transformers knows no processor for models of type {model_type!r}")


def _without_other_parts(kind: Any) -> Any:
    """Return a class like `kind` that takes None for a part."""

    def check(self: ProcessorMixin, argument_name: str, argument: Any) -> Any:
        if argument is None:
            return None
        return kind.check_argument_for_proper_class(self, argument_name, argument)

    # It keeps its name, by which transformers finds messages' defaults.
    return type(kind.__name__, (kind,), {"check_argument_for_proper_class": check, "__module__": kind.__module__})
