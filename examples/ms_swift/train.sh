#!/usr/bin/env bash
# GRPO with the reward of Vision-R1 in ms-swift 4.6; rows/ is what examples/prepare.py writes. Not run here: it needs GPUs.
# No MAX_PIXELS: the images have the size that the model is fed, and a second bound would feed another than is scored.
set -euo pipefail
NPROC_PER_NODE=${NPROC_PER_NODE:-8} swift rlhf \
    --rlhf_type grpo \
    --model "${MODEL:-Qwen/Qwen2.5-VL-7B-Instruct}" \
    --dataset "${ROWS:-rows/train.jsonl}" \
    --external_plugins examples/ms_swift/plugin.py \
    --reward_funcs visionr1_format visionr1_recall visionr1_precision \
    --tuner_type full \
    --num_generations 4 \
    --per_device_train_batch_size 4 \
    --max_completion_length 512 \
    --temperature 1.0 \
    --learning_rate 1e-6 \
    --beta 0.2 \
    --num_train_epochs 1 \
    --torch_dtype bfloat16 \
    --deepspeed zero3 \
    --logging_steps 1 \
    --output_dir "${OUTPUT:-run}"
