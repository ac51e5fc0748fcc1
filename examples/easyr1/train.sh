#!/usr/bin/env bash
# GRPO with the reward of Vision-R1 in EasyR1; rows/ is what examples/prepare.py writes. Not run here: it needs GPUs.
# The images have the size that the model is fed, so EasyR1's own pixel bounds must not change them.
set -euo pipefail
HERE=$(cd "$(dirname "$0")" && pwd)
ROWS=$(realpath -m "${ROWS:-rows/train.jsonl}")
VALID=$(realpath -m "${VALID:-rows/valid.jsonl}")
cd "${EASYR1:?the folder of EasyR1}"
python -m verl.trainer.main \
    config=examples/config.yaml \
    data.train_files="$ROWS" \
    data.val_files="$VALID" \
    data.prompt_key=problem \
    data.answer_key=answer \
    data.image_key=images \
    data.format_prompt=null \
    data.min_pixels=null \
    data.max_pixels=null \
    data.max_response_length=512 \
    data.rollout_batch_size=16 \
    worker.actor.global_batch_size=16 \
    worker.actor.model.model_path="${MODEL:-Qwen/Qwen2.5-VL-7B-Instruct}" \
    worker.actor.optim.lr=1e-6 \
    worker.rollout.n=4 \
    worker.reward.reward_function="$HERE/plugin.py:compute_score" \
    algorithm.kl_coef=0.2 \
    trainer.total_epochs=1 \
    trainer.n_gpus_per_node="${GPUS:-8}"
