"""Write a data set as the rows that a host trains on: images, instructions and JSON ground truths.

    python examples/prepare.py trl --data my_boxes/ --model Qwen/Qwen2.5-VL-7B-Instruct --out rows/

writes `rows/train.jsonl` and `rows/images/`. Every image is stored at the size that the model's processor makes of it,
so that no host's own resizing moves the coordinates: a processor leaves an image of that size as it is.
"""

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image

from visionr1.data import read_source
from visionr1.dialects import dialect_names, get_dialect, instruction
from visionr1.errors import DataError, VisionR1Error
from visionr1.files import write_text_atomic
from visionr1.integrations import to_json
from visionr1.models.loading import model_folder
from visionr1.rewards import PRESETS
from visionr1.samples import Size

Row = dict[str, Any]

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


def input_size(processor: Any, image: Image.Image) -> Size:
    """Width and height of what the processor feeds to the model, such that an image of this size is fed as it is.

    For a very long image, whose rounded size leaves the processor's bounds, that takes a second look.
    """
    size = _grid_size(processor, image)
    for _ in range(4):
        again = _grid_size(processor, Image.new("RGB", size))
        if again == size:
            return size
        size = again
    raise DataError(f"an image of {image.width} x {image.height} pixels: the processor finds no size for it; crop it")


def _grid_size(processor: Any, image: Image.Image) -> Size:
    """Grid x patch size."""
    _, rows, columns = processor(images=[image], return_tensors="np")["image_grid_thw"][0].tolist()
    return columns * processor.patch_size, rows * processor.patch_size


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("host", choices=sorted(SHAPES))
    parser.add_argument("--data", required=True, help='a data set, as of visionr1 train: COCO, VOC, rows or "bccd"')
    parser.add_argument("--split", default="train", help="which part of a data folder (default: train)")
    parser.add_argument("--model", required=True, help='a transformers folder, a hub name or "tiny"')
    parser.add_argument("--out", required=True, type=Path, help="folder for SPLIT.jsonl and images/")
    parser.add_argument("--dialect", default="qwen25", choices=dialect_names(), help="how the model writes boxes")
    parser.add_argument("--preset", default="paper", choices=list(PRESETS), help="which reward (default: paper)")
    parser.add_argument("--max-pixels", type=int, help="feed no larger image (default: the processor's own bound)")
    parser.add_argument("--limit", type=int, help="only the first so many images")
    return parser.parse_args()


def main() -> None:
    from transformers import AutoImageProcessor

    arguments = parse_arguments()
    try:
        processor = AutoImageProcessor.from_pretrained(str(model_folder(arguments.model)), backend="pil")
    except OSError as error:
        raise DataError(f"--model {arguments.model}: no image processor: {str(error).splitlines()[0]}") from error
    if arguments.max_pixels:
        processor.size["longest_edge"] = arguments.max_pixels
    dialect = get_dialect(arguments.dialect)
    rows = []
    for index, sample in enumerate(read_source(arguments.data, split=arguments.split)[: arguments.limit]):
        image = sample.load_image()
        size = input_size(processor, image)
        path = (arguments.out / "images" / f"{arguments.split}_{index:06d}.png").resolve()
        path.parent.mkdir(parents=True, exist_ok=True)
        image.resize(size, Image.Resampling.BICUBIC).save(path)
        truth = to_json(sample.ground_truth(size), dialect=arguments.dialect, preset=arguments.preset)
        rows.append(SHAPES[arguments.host](instruction(sample.query, dialect), str(path), truth, index))
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    write_text_atomic(arguments.out / f"{arguments.split}.jsonl", text)
    print(f"{len(rows)} rows in {arguments.out / arguments.split}.jsonl")


if __name__ == "__main__":
    try:
        main()
    except VisionR1Error as error:
        raise SystemExit(f"error: {error}") from error
