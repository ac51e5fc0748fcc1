#!/usr/bin/env bash
# GRPO with the reward of Vision-R1 in verl 0.9; rows/ is what examples/prepare.py writes. Not run here: it needs GPUs.
# An image of prepare.py's default takes 512 tokens at most; with a larger --max-pixels, raise max_prompt_length with it.
set -euo pipefail
python -m verl.trainer.main_ppo \
    algorithm.adv_estimator=grpo \
    data.train_files="${ROWS:-rows/train.jsonl}" \
    data.val_files="${VALID:-rows/valid.jsonl}" \
    data.train_batch_size=16 \
    data.max_prompt_length=2048 \
    data.max_response_length=512 \
    actor_rollout_ref.model.path="${MODEL:-Qwen/Qwen2.5-VL-7B-Instruct}" \
    actor_rollout_ref.rollout.name=vllm \
    actor_rollout_ref.rollout.n=4 \
    actor_rollout_ref.actor.optim.lr=1e-6 \
    actor_rollout_ref.actor.use_kl_loss=True \
    actor_rollout_ref.actor.kl_loss_coef=0.2 \
    actor_rollout_ref.actor.ppo_mini_batch_size=16 \
    actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu=1 \
    actor_rollout_ref.rollout.log_prob_micro_batch_size_per_gpu=1 \
    actor_rollout_ref.ref.log_prob_micro_batch_size_per_gpu=1 \
    reward.custom_reward_function.path=pkg://visionr1.integrations.verl \
    reward.custom_reward_function.name=compute_score \
    trainer.n_gpus_per_node="${GPUS:-8}" \
    trainer.total_epochs=1
