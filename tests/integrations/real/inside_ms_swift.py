"""ms-swift's own reward path, in its environment: the plug-in file loaded by its loader, scored by its trainer's code.

Then two GRPO steps of `swift rlhf` on a random text-only model (the image processors of ms-swift need torchvision),
which show the data set's column arriving and the parts in ms-swift's log.
"""

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import swift
import torch
from swift.rl_core.data import GRPOSample
from swift.rl_core.grpo_algorithm import score_completions
from swift.rlhf_trainers.utils import resolve_reward_funcs
from swift.utils import import_external_file

from cases import PARTS, check, load_cases

MODEL, WORK, PLUGIN = sys.argv[1], Path(sys.argv[2]), sys.argv[3]
NAMES = [f"visionr1_{part}" for part in PARTS]


def score(stage, step):
    cases = load_cases(stage)
    functions, names = resolve_reward_funcs(NAMES, args=None)
    samples = [
        GRPOSample.from_row(
            {
                "messages": [
                    {"role": "user", "content": "<image>Locate"},
                    {"role": "assistant", "content": case["completion"]},
                ],
                "ground_truth": case["ground_truth"],
            }
        )
        for case in cases
    ]
    state = SimpleNamespace(global_step=step, max_steps=10)
    rewards = score_completions(samples, functions, [None] * 3, False, torch.device("cpu"), trainer_state=state)
    check(cases, rewards.sum(dim=1).tolist(), dict(zip(PARTS, rewards.T.tolist(), strict=True)))
    print(f"ms-swift {swift.__version__}: score_completions, {stage} stage, {names}: {rewards.tolist()}")


def train():
    from swift import rlhf_main
    from transformers import AutoTokenizer, Qwen2Config, Qwen2ForCausalLM

    tokenizer = AutoTokenizer.from_pretrained(MODEL, trust_remote_code=False)
    shape = {"hidden_size": 32, "num_hidden_layers": 2, "intermediate_size": 64, "num_attention_heads": 2}
    config = Qwen2Config(vocab_size=len(tokenizer), num_key_value_heads=2, tie_word_embeddings=True, **shape)
    torch.manual_seed(0)
    Qwen2ForCausalLM(config).save_pretrained(WORK / "text_model")
    tokenizer.save_pretrained(WORK / "text_model")
    rows = [
        {"messages": [{"role": "user", "content": "Locate"}], "ground_truth": case["ground_truth"]}
        for case in load_cases("beginner")
    ]
    (WORK / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    settings = {
        "rlhf_type": "grpo",
        "model": WORK / "text_model",
        "model_type": "qwen2",
        "template": "chatml",
        "dataset": WORK / "rows.jsonl",
        "external_plugins": PLUGIN,
        "tuner_type": "full",
        "num_generations": 2,
        "per_device_train_batch_size": 2,
        "max_completion_length": 16,
        "max_steps": 2,
        "logging_steps": 1,
        "output_dir": WORK / "output",
        "torch_dtype": "float32",
        "report_to": "none",
        "save_strategy": "no",
        "load_from_cache_file": "false",
        "add_version": "false",
    }
    flags = [text for name, value in settings.items() for text in (f"--{name}", str(value))]
    rlhf_main([*flags, "--reward_funcs", *NAMES])
    rows = [json.loads(line) for line in (WORK / "output/logging.jsonl").read_text(encoding="utf-8").splitlines()]
    logged = {key: [row[key] for row in rows if key in row] for key in rows[0] if "VisionR1" in key and "mean" in key}
    assert len(logged) == 3 and all(len(values) == 2 for values in logged.values()), rows
    print(f"ms-swift {swift.__version__}: swift rlhf, 2 GRPO steps, logged {logged}")


def main():
    import_external_file(PLUGIN)
    score("beginner", 0)
    from visionr1.integrations.ms_swift import register

    register(step=0.5)
    score("beginner", 4)
    score("advanced", 5)
    train()


if __name__ == "__main__":
    main()
