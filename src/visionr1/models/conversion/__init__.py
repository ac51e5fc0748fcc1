"""Converting released checkpoints that transformers has no class for into folders that `load_policy` reads."""
