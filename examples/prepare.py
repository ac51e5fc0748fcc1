"""Write a data set as the rows that a host trains on: images, instructions and JSON ground truths.

    python examples/prepare.py trl --data my_boxes/ --model Qwen/Qwen2.5-VL-7B-Instruct --out rows/

writes `rows/train.jsonl` and `rows/images/`. Every image is stored at the size that the model's processor makes of it,
with at most --max-pixels pixels, so that no host's own resizing moves the coordinates: a processor leaves an image of
that size as it is. The dialect is that of the model's folder or type, as in `visionr1 train`.
"""

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image

from visionr1.data import read_source
from visionr1.dialects import dialect_names, instruction
from visionr1.errors import DataError, RecipeError, VisionR1Error, naming
from visionr1.files import write_text_atomic
from visionr1.integrations import to_json
from visionr1.models.image_bounds import limit_pixels
from visionr1.models.loading import load_encoder, model_folder
from visionr1.models.policy import Policy
from visionr1.rewards import PRESETS
from visionr1.samples import Query, Size

Row = dict[str, Any]

MAX_PIXELS = 512 * 28 * 28
"""The paper's bound: 512 image tokens of Qwen2.5-VL. The train.sh of every host has room for prompts of that length."""

# host -> the row it wants of an instruction, an image path, a ground truth and the row's number
SHAPES: dict[str, Callable[[str, str, str, int], Row]] = {
    "trl": lambda text, image, truth, index: {
        "prompt": [{"role": "user", "content": text}],
        "image": image,
        "ground_truth": truth,
    },
    "verl": lambda text, image, truth, index: {
        "data_source": "visionr1",
        "prompt": [{"role": "user", "content": f"<image>{text}"}],
        "images": [image],
        "reward_model": {"style": "rule", "ground_truth": truth},
        "extra_info": {"index": index},
    },
    "ms_swift": lambda text, image, truth, index: {
        "messages": [{"role": "user", "content": f"<image>{text}"}],
        "images": [image],
        "ground_truth": truth,
    },
    "easyr1": lambda text, image, truth, index: {
        "problem": f"<image>{text}",
        "images": [image],
        "answer": truth,
    },
    "openrlhf": lambda text, image, truth, index: {
        "prompt": [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": text}]}],
        "images": [image],
        "label": truth,
    },
}


def input_size(bounded: Policy, policy: Policy, image: Image.Image, query: Query) -> Size:
    """Width and height to store an image at, so that no framework's own resizing moves a box.

    Where the model sees a grid of patches (Qwen), that is a size within the bound of `bounded` that `policy`, with the
    folder's own bounds, leaves as it is; for a very long image, whose rounded size leaves the bounds, that takes more
    than one look. For other models, whose dialects are relative to the image, it is the image's, shrunk to the bound.
    """
    prompt = bounded.encode(image, query)
    if "image_grid_thw" not in prompt.inputs and not policy.dialect.in_model_px:
        scale = min(1.0, (bounded.max_pixels / (image.width * image.height)) ** 0.5) if bounded.max_pixels else 1.0
        return max(1, int(image.width * scale)), max(1, int(image.height * scale))

    size = prompt.input_size_wh
    for _ in range(4):
        again = policy.encode(Image.new("RGB", size), query).input_size_wh
        if again == size:
            return size
        size = again
    raise DataError(f"an image of {image.width}x{image.height} pixels: the processor finds no size for it; crop it")


def bound_images(policy: Policy, max_pixels: int | None) -> None:
    """Bound what the policy's processor makes of images, and print the bound; one that was typed must be kept to."""
    bound = max_pixels or MAX_PIXELS
    try:
        limit_pixels(policy, bound)
    except RecipeError:
        if max_pixels:
            raise
        print(f"{policy.config.model_type} feeds images of its own size, whatever theirs: they are stored as they are")
        return
    print(f"no image is stored with more than {bound:,} pixels (--max-pixels)")


def find_folder(model: str) -> Path:
    """The model's folder; of a name on the hub its files without the weights, which are not needed."""
    folder = model_folder(model)
    if folder.exists():
        return folder
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(model, allow_patterns=["*.json", "*.jinja", "*.txt", "*.model"]))
    except (OSError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        raise DataError(f"--model {model}: no such folder, and no such model on the hub: {reason}") from error


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("host", choices=sorted(SHAPES))
    parser.add_argument("--data", required=True, help='a data set, as of visionr1 train: COCO, VOC, rows or "bccd"')
    parser.add_argument("--split", default="train", help="which part of a data folder (default: train)")
    parser.add_argument("--model", required=True, help='a transformers folder, a hub name or "tiny"')
    parser.add_argument("--out", required=True, type=Path, help="folder for SPLIT.jsonl and images/")
    parser.add_argument("--dialect", choices=dialect_names(), help="how the model writes boxes (default: as it says)")
    parser.add_argument("--preset", default="paper", choices=list(PRESETS), help="which reward (default: paper)")
    parser.add_argument("--max-pixels", type=int, help=f"store no larger image (default: {MAX_PIXELS:,})")
    parser.add_argument("--limit", type=int, help="only the first so many images")
    return parser.parse_args()


def main() -> None:
    arguments = parse_arguments()
    folder = find_folder(arguments.model)
    policy, bounded = (load_encoder(folder, dialect=arguments.dialect) for _ in range(2))
    bound_images(bounded, arguments.max_pixels)
    dialect = policy.dialect
    print(f"boxes are written in dialect {dialect.name}")
    rows = []
    for index, sample in enumerate(read_source(arguments.data, split=arguments.split)[: arguments.limit]):
        image = sample.load_image()
        where = f" ({sample.image})" if isinstance(sample.image, Path) else ""
        with naming(f"sample {sample.id}{where}"):
            size = input_size(bounded, policy, image, sample.query)
        path = (arguments.out / "images" / f"{arguments.split}_{index:06d}.png").resolve()
        path.parent.mkdir(parents=True, exist_ok=True)
        image.resize(size, Image.Resampling.BICUBIC).save(path)
        truth = to_json(sample.ground_truth(size), dialect=dialect.name, preset=arguments.preset)
        rows.append(SHAPES[arguments.host](instruction(sample.query, dialect), str(path), truth, index))
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    write_text_atomic(arguments.out / f"{arguments.split}.jsonl", text)
    print(f"{len(rows)} rows in {arguments.out / arguments.split}.jsonl")


if __name__ == "__main__":
    try:
        main()
    except VisionR1Error as error:
        raise SystemExit(f"error: {error}") from error
