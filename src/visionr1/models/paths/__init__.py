"""The ways of prompts and completions through a model; either shares image and prompt between completions."""
