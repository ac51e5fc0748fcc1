"""Grounding and referring, measured: one expression, its boxes."""
