"""Helpers that several test files share: random models, benchmark folders, detection problems, training runs."""
