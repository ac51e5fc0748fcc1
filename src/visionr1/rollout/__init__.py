"""Sampling completions: one file for each engine."""
