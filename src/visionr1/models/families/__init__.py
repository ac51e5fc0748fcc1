"""The model families that share a prefix: one file each."""
