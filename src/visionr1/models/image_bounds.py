"""A bound on the pixels of an image that a model is fed, for any family: set, then checked by asking the processor.

Image processors have as many settings for it as there are families, and some are overruled by others: Qwen2.5-VL's
released `max_pixels` goes before a `size` beside it. So the bound is set on the loaded processor, in the way whose
effect can be measured.
"""

import copy
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from math import isqrt
from pathlib import Path
from typing import Any

from PIL import Image

from visionr1.errors import ImageRefused, RecipeError
from visionr1.files import write_json_atomic
from visionr1.models.policy import Policy
from visionr1.models.prompts import holds_pixels
from visionr1.samples import Size

COUNTS = (
    "max_patches",
    "max_num_tiles",
    "max_tiles",
    "max_crops",
    "max_slice_nums",
    "max_soft_tokens",
    "max_image_tokens",
)
"""Settings that count what an image is cut into."""
LEAST = {"max_patches": "min_patches", "max_tiles": "min_tiles", "max_image_tokens": "min_image_tokens"}
"""Settings that must not exceed the one of COUNTS that they belong to."""
SPLITS = ("do_image_splitting", "crop_to_patches")
"""Settings that say if an image is cut into tiles at all."""
SHAPES = ((1, 1), (4, 3), (3, 4), (3, 2), (2, 3), (2, 1), (1, 2), (3, 1), (1, 3), (5, 1), (1, 5))
"""Width to height of the images that a bound is tried on: each may be cut into another number of tiles."""
SMALL = ((30, 30), (60, 20))
"""Sizes of images that a processor may enlarge."""
TOO_MANY = 1 << 62
"""Pixels of an image that the processor cannot feed with its settings."""
PREPROCESSOR, PROCESSOR = "preprocessor_config.json", "processor_config.json"


def limit_pixels(policy: Policy, max_pixels: int) -> None:
    """Let no image be fed to the model with more than `max_pixels` pixels, tiles and thumbnail together.

    Raises RecipeError if the image processor has no setting that does this.
    """
    # A way sets the processor so that it may keep to the bound, and yields; asked again, to something smaller.
    for way in WAYS:
        with _restored_settings(policy) as settings:
            for _ in way(policy, max_pixels):
                if max(_fed_pixels(policy, max_pixels)) <= max_pixels:
                    policy.max_pixels = max_pixels
                    settings.keep()
                    return
    raise RecipeError(
        f"model.max_pixels: expected a number of pixels that {type(policy.image_processor).__name__} can keep to, "
        f"found {max_pixels}: it feeds {max(_fed_pixels(policy, max_pixels))} whatever its settings; take a larger "
        "number, or leave the key out"
    )


def check_bound_acts(policy: Policy, max_pixels: int) -> None:
    """Raise RecipeError if no bound has an effect, for the image processor feeds all images at one size below it."""
    numbers = list(_fed_pixels(policy, max_pixels))
    one_size = numbers[0]
    if one_size > max_pixels or any(number != one_size for number in numbers):
        return

    # Padded to one size they may be smaller with other settings (Gemma 4).
    for way in WAYS:
        with _restored_settings(policy):
            for _ in way(policy, one_size - 1):
                if max(_fed_pixels(policy, one_size - 1)) < one_size:
                    return
    raise RecipeError(
        f"model.max_pixels: found {max_pixels}, which has no effect: {type(policy.image_processor).__name__} feeds "
        f"every image at one size, {one_size} pixels; leave the key out (docs/faq.md#modelmax_pixels-has-no-effect)"
    )


def save_bounds(policy: Policy, folder: Path) -> None:
    """Write the image processor's settings, as `limit_pixels` set them, into the files of a saved `folder`."""
    policy.image_processor.save_pretrained(folder)
    path = folder / PROCESSOR
    content = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    if "image_processor" in content:  # there it goes before preprocessor_config.json
        settings = json.loads((folder / PREPROCESSOR).read_text(encoding="utf-8"))
        write_json_atomic(path, {**content, "image_processor": settings})


def name_bound(files: Mapping[str, bytes], usual: str) -> str:
    """Return which setting bounds images in a model folder, and its file; `usual` is that of the family.

    `files` are the content of the folder's processor files by name.
    """
    # processor_config.json goes first where it has a part about images.
    settings = json.loads(files.get(PROCESSOR, b"{}")).get("image_processor")
    place, file = "image_processor.", PROCESSOR
    if not isinstance(settings, dict):
        settings = json.loads(files.get(PREPROCESSOR, b"{}"))
        place, file = "", PREPROCESSOR

    # max_pixels goes before the family's usual setting.
    if isinstance(settings, dict) and settings.get("max_pixels"):
        usual = "max_pixels"
    return f"{place}{usual} in {file}"


class _Settings:
    """The settings that bound images: of the image processor, and what the model must know of them."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._of_processor = copy.deepcopy(vars(policy.image_processor))
        self._grids = copy.deepcopy(getattr(policy.config, "image_grid_pinpoints", None))
        self._is_kept = False

    def keep(self) -> None:
        """Leave the settings as they are now."""
        self._is_kept = True

    def restore(self) -> None:
        """Set back what was changed, unless it is kept."""
        if self._is_kept:
            return
        vars(self._policy.image_processor).clear()
        vars(self._policy.image_processor).update(self._of_processor)
        if self._grids is not None:
            self._policy.config.image_grid_pinpoints = self._grids


@contextmanager
def _restored_settings(policy: Policy) -> Iterator[_Settings]:
    """Set back, behind this block, what was set inside it and not kept."""
    settings = _Settings(policy)
    try:
        yield settings
    finally:
        settings.restore()


def _fed_pixels(policy: Policy, max_pixels: int) -> Iterator[int]:
    """Yield the pixels that the model is fed of small images and of ones much larger than `max_pixels`.

    The first number beyond `max_pixels` is the last.
    """
    sizes = list(SMALL)
    for wide, high in SHAPES:
        side = isqrt(4 * max_pixels // (wide * high)) + 1
        sizes.append((wide * side, high * side))
    for size_wh in sizes:
        number = count_pixels(policy, size_wh)
        yield number
        if number > max_pixels:
            return


def count_pixels(policy: Policy, size_wh: Size) -> int:
    """Return the pixels that the model is fed of an image of this size; TOO_MANY if it cannot be fed."""
    try:
        prompt = policy.path.encode(Image.new("RGB", size_wh), "x")
    except ImageRefused:
        return TOO_MANY
    number = sum(tensor.numel() for name, tensor in prompt.inputs.items() if holds_pixels(name, tensor))

    # Three channels, and for Qwen's patches each frame twice.
    frames = getattr(policy.image_processor, "temporal_patch_size", 1) if "image_grid_thw" in prompt.inputs else 1
    return number // 3 // frames


def _set_nothing(policy: Policy, max_pixels: int) -> Iterator[None]:
    """Leave the settings as they are: they may be small enough."""
    yield


def _set_area(policy: Policy, max_pixels: int) -> Iterator[None]:
    """Set edges that are numbers of pixels in all (Qwen, GLM)."""
    processor = policy.image_processor
    size = _sizes(processor)
    if {"shortest_edge", "longest_edge"} <= set(size):
        # A small image is enlarged to the shortest edge and rounded up, so that needs room below the bound.
        for divisor in (1, 2, 4, 8):
            smallest = min(size["shortest_edge"], max_pixels // divisor)
            processor.size = {"shortest_edge": smallest, "longest_edge": max_pixels}
            yield


def _set_edge(policy: Policy, max_pixels: int) -> Iterator[None]:
    """Set the longest edge of an image that is cut into square tiles (SmolVLM, Idefics, Step 3)."""
    processor = policy.image_processor
    size = _sizes(processor)
    tile = getattr(processor, "max_image_size", None)
    if "longest_edge" in size:
        edge = (tile or {}).get("longest_edge") or 14
        for number in range(isqrt(max_pixels) // edge, 0, -1):
            processor.size = {**size, "longest_edge": number * edge}
            yield
    elif isinstance(tile, int):
        for eighths in range(8, 0, -1):
            processor.max_image_size = min(tile, isqrt(max_pixels) * eighths // 8)
            yield


def _set_count(policy: Policy, max_pixels: int) -> Iterator[None]:
    """Set the most tiles or tokens of an image (InternVL, Gemma 4), one by one where they are few."""
    # No more tiles than fit into the bound, by the size of one.
    processor = policy.image_processor
    size = _sizes(processor)
    most_tiles = max_pixels // (size.get("height", 1) * size.get("width", 1)) + 1
    for name in COUNTS:
        number = getattr(processor, name, None)
        if not isinstance(number, int):
            continue
        least = LEAST.get(name, "")
        number = min(number, most_tiles)
        while number >= 1:
            setattr(processor, name, number)
            if getattr(processor, least, 0) > number:
                setattr(processor, least, number)
            yield
            number = number - 1 if number <= 64 else number // 2


def _set_whole(policy: Policy, max_pixels: int) -> Iterator[None]:
    """Cut images into no tiles, and then feed fewer tokens of them (LFM2-VL, DeepSeek-OCR 2)."""
    processor = policy.image_processor
    for name in SPLITS:
        if getattr(processor, name, None):
            setattr(processor, name, False)
            yield
            yield from _set_count(policy, max_pixels)


def _set_grids(policy: Policy, max_pixels: int) -> Iterator[None]:
    """Leave out the larger of the resolutions that an image may get (LLaVA-NeXT, OneVision).

    The model cuts an image's features by its own list of them, which must be the processor's.
    """
    processor = policy.image_processor
    grids = sorted(getattr(processor, "image_grid_pinpoints", None) or [], key=lambda grid: grid[0] * grid[1])
    while len(grids) > 1:
        grids = grids[:-1]
        processor.image_grid_pinpoints = grids
        if hasattr(policy.config, "image_grid_pinpoints"):
            policy.config.image_grid_pinpoints = grids
        yield


WAYS = (_set_nothing, _set_area, _set_edge, _set_count, _set_grids, _set_whole)
"""How images are bounded, in the order in which they are tried."""


def _sizes(processor: Any) -> dict[str, int]:
    """Return the image processor's sizes that are set, by name."""
    size = dict(getattr(processor, "size", None) or {})
    return {name: value for name, value in size.items() if value is not None}
