"""A bound on the pixels of an image that a model is fed, for any family: set, then checked by asking the processor.

Image processors have as many settings for it as there are families, and some are overruled by others: Qwen2.5-VL's
released `max_pixels` goes before a `size` beside it. So the bound is set on the loaded processor, in the way whose
effect can be measured.
"""

import copy
import json
from collections.abc import Iterator, Mapping
from math import isqrt
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from visionr1.errors import ImageRefused, RecipeError
from visionr1.files import write_json_atomic
from visionr1.models.policy import Policy

COUNTS = ("max_patches", "max_num_tiles", "max_tiles", "max_slice_nums", "max_soft_tokens", "max_image_tokens")
"""Settings that count what an image is cut into."""
SHAPES = ((1, 1), (4, 3), (3, 4), (3, 2), (2, 3), (2, 1), (1, 2), (3, 1), (1, 3), (5, 1), (1, 5))
"""Width to height of the images that a bound is tried on: each may be cut into another number of tiles."""
SMALL = ((30, 30), (60, 20))
"""Sizes of images that a processor may enlarge."""
PREPROCESSOR, PROCESSOR = "preprocessor_config.json", "processor_config.json"


def limit_pixels(policy: Policy, max_pixels: int) -> None:
    """Let no image be fed to the model with more than `max_pixels` pixels, tiles and thumbnail together.

    Raises RecipeError if the image processor has no setting that does this.
    """
    # A way sets the processor so that it may keep to the bound, and yields; asked again, to something smaller.
    processor = policy.image_processor
    before = copy.deepcopy(vars(processor))
    for way in (_set_area, _set_nothing, _set_edge, _set_count, _set_grids):
        for _ in way(processor, max_pixels):
            if _largest_fed(policy, max_pixels) <= max_pixels:
                policy.max_pixels = max_pixels
                return
        vars(processor).clear()
        vars(processor).update(copy.deepcopy(before))
    raise RecipeError(
        f"model.max_pixels: expected a number of pixels that {type(processor).__name__} can keep to, found "
        f"{max_pixels}: it feeds {_largest_fed(policy, max_pixels)} whatever its settings; take a larger number, or "
        "leave the key out"
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


def _largest_fed(policy: Policy, max_pixels: int) -> int:
    """Return the most pixels that the model is fed of small images and of ones much larger than `max_pixels`.

    The first number beyond `max_pixels` is enough.
    """
    sizes = list(SMALL)
    for wide, high in SHAPES:
        side = isqrt(4 * max_pixels // (wide * high)) + 1
        sizes.append((wide * side, high * side))

    largest = 0
    for size_wh in sizes:
        try:
            prompt = policy.path.encode(Image.new("RGB", size_wh), "x")
        except ImageRefused:
            return 1 << 62
        # Three channels, and for Qwen's patches each frame twice.
        number = sum(tensor.numel() for name, tensor in prompt.inputs.items() if _holds_pixels(name, tensor))
        frames = getattr(policy.image_processor, "temporal_patch_size", 1) if "image_grid_thw" in prompt.inputs else 1
        largest = max(largest, number // 3 // frames)
        if largest > max_pixels:
            break
    return largest


def _holds_pixels(name: str, tensor: torch.Tensor) -> bool:
    return name.startswith("pixel_values") and tensor.is_floating_point()


def _set_area(processor: Any, max_pixels: int) -> Iterator[None]:
    """Set edges that are numbers of pixels in all (Qwen, GLM)."""
    size = _sizes(processor)
    if {"shortest_edge", "longest_edge"} <= set(size):
        # A small image is enlarged to the shortest edge and rounded up, so that needs room below the bound.
        for divisor in (1, 2, 4, 8):
            smallest = min(size["shortest_edge"], max_pixels // divisor)
            processor.size = {"shortest_edge": smallest, "longest_edge": max_pixels}
            yield


def _set_nothing(processor: Any, max_pixels: int) -> Iterator[None]:
    """Leave the settings as they are: they may be small enough."""
    yield


def _set_edge(processor: Any, max_pixels: int) -> Iterator[None]:
    """Set the longest edge of an image that is cut into square tiles (SmolVLM, Idefics)."""
    size = _sizes(processor)
    if "longest_edge" in size:
        tile = (getattr(processor, "max_image_size", None) or {}).get("longest_edge") or 14
        for number in range(isqrt(max_pixels) // tile, 0, -1):
            processor.size = {**size, "longest_edge": number * tile}
            yield


def _set_count(processor: Any, max_pixels: int) -> Iterator[None]:
    """Set the most tiles or tokens of an image (InternVL, Gemma 4), one by one where they are few."""
    # No more tiles than fit into the bound, by the size of one.
    size = _sizes(processor)
    most_tiles = max_pixels // (size.get("height", 1) * size.get("width", 1)) + 1
    for name in COUNTS:
        number = getattr(processor, name, None)
        if isinstance(number, int):
            number = min(number, most_tiles)
        while isinstance(number, int) and number > 1:
            number = number - 1 if number <= 64 else number // 2
            setattr(processor, name, number)
            if getattr(processor, "min_patches", 0) > number:
                processor.min_patches = number
            yield


def _set_grids(processor: Any, max_pixels: int) -> Iterator[None]:
    """Leave out the larger of the resolutions that an image may get (LLaVA-NeXT, OneVision)."""
    grids = sorted(getattr(processor, "image_grid_pinpoints", None) or [], key=lambda grid: grid[0] * grid[1])
    while len(grids) > 1:
        grids = grids[:-1]
        processor.image_grid_pinpoints = grids
        yield


def _sizes(processor: Any) -> dict[str, int]:
    """Return the image processor's sizes that are set, by name."""
    size = dict(getattr(processor, "size", None) or {})
    return {name: value for name, value in size.items() if value is not None}
