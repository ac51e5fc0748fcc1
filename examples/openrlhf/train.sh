#!/usr/bin/env bash
# GRPO with the reward of Vision-R1 in OpenRLHF 0.11; rows/ is what examples/prepare.py writes. Not run here: it needs GPUs.
set -euo pipefail
python -m openrlhf.cli.train_ppo_ray \
    --actor.model_name_or_path "${MODEL:?a VLM that OpenRLHF supports}" \
    --reward.remote_url "$(realpath examples/openrlhf/plugin.py)" \
    --data.prompt_dataset "${ROWS:-rows/train.jsonl}" \
    --data.input_key prompt \
    --data.label_key label \
    --data.image_key images \
    --data.max_images_per_prompt 1 \
    --data.apply_chat_template \
    --data.max_len 4096 \
    --rollout.max_new_tokens 512 \
    --rollout.n_samples_per_prompt 4 \
    --rollout.batch_size 16 \
    --train.batch_size 64 \
    --train.colocate_all \
    --train.num_episodes 1 \
    --algo.advantage.estimator group_norm \
    --algo.kl.use_loss \
    --algo.kl.init_coef 0.2 \
    --algo.kl.estimator k3 \
    --actor.adam.lr 1e-6 \
    --actor.num_nodes 1 --actor.num_gpus_per_node "${GPUS:-8}" \
    --ref.num_nodes 1 --ref.num_gpus_per_node "${GPUS:-8}" \
    --vllm.num_engines "${GPUS:-8}" --vllm.tensor_parallel_size 1 \
    --vllm.sync_backend nccl --vllm.enable_sleep --ds.enable_sleep \
    --ds.zero_stage 3 --ds.param_dtype bf16 \
    --ckpt.output_dir "${OUTPUT:-run}" --ckpt.save_hf
