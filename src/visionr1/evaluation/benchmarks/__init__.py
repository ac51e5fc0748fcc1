"""Benchmarks by name, from their authors' files."""
