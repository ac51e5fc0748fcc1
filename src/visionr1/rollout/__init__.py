"""Sampling completions: `engine` is the protocol, `engines` the registry of those that a recipe names."""
