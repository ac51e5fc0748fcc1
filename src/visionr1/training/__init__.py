"""Training: recipe, loop, GRPO and SFT, processes, checkpoints."""
