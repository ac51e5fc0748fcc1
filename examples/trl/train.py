"""Train a Qwen-VL with TRL's GRPOTrainer and the reward of Vision-R1.

    python examples/prepare.py trl --data my_boxes/ --model MODEL --out rows/
    accelerate launch examples/trl/train.py --model MODEL --rows rows/train.jsonl --output run/

Settings are the paper's where it names them (learning rate 1e-6, beta 0.2, one epoch) and the public code's where it
does not (4 completions, 512 new tokens, temperature 1). TRL's own defaults differ: its loss is `dapo`, its beta 0.
"""

import argparse
import json
from pathlib import Path

from datasets import Dataset, Image
from processor import load_processor
from transformers import AutoModelForImageTextToText
from trl import GRPOConfig, GRPOTrainer

from visionr1.integrations.trl import reward_functions
from visionr1.models.loading import model_folder


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help='a transformers folder, a hub name or "tiny"')
    parser.add_argument("--rows", required=True, help="train.jsonl, as examples/prepare.py writes it")
    parser.add_argument("--output", required=True, help="folder for checkpoints and logs")
    parser.add_argument(
        "--step", type=float, default=1.0, help="the paper's STEP: 0.5 for a strong base, 1 for Qwen2.5-VL"
    )
    parser.add_argument("--max-steps", type=int, default=-1, help="stop after so many steps (default: one epoch)")
    parser.add_argument("--completions", type=int, default=4, help="completions of one sample (G)")
    parser.add_argument("--new-tokens", type=int, default=512, help="the longest completion")
    parser.add_argument("--dtype", default="bfloat16", choices=["bfloat16", "float32"])
    return parser.parse_args()


def load_rows(path):
    """Rows of `prompt` (messages), `image` and `ground_truth`."""
    with Path(path).open(encoding="utf-8") as lines:  # a newline alone ends one; str.splitlines breaks at more
        rows = [json.loads(line) for line in lines]
    return Dataset.from_list(rows).cast_column("image", Image())


def main():
    arguments = parse_arguments()
    model = str(model_folder(arguments.model))
    config = GRPOConfig(
        output_dir=arguments.output,
        loss_type="grpo",
        beta=0.2,
        learning_rate=1e-6,
        num_train_epochs=1,
        max_steps=arguments.max_steps,
        num_generations=arguments.completions,
        per_device_train_batch_size=arguments.completions,
        max_completion_length=arguments.new_tokens,
        temperature=1.0,
        bf16=arguments.dtype == "bfloat16",
        logging_steps=1,
        report_to="none",
    )
    trainer = GRPOTrainer(
        model=AutoModelForImageTextToText.from_pretrained(model, dtype=arguments.dtype, trust_remote_code=False),
        processing_class=load_processor(model),
        reward_funcs=reward_functions(step=arguments.step),
        train_dataset=load_rows(arguments.rows),
        args=config,
    )
    trainer.train()
    trainer.save_model()
    trainer.save_state()


if __name__ == "__main__":
    main()
