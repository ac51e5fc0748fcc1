"""Attention over shared prefixes: in training, in blocks on a GPU, and while decoding."""
