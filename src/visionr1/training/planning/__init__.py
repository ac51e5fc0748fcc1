"""Plan a run before it starts: memory by part and process, tokens and seconds by phase, and what to change if it does
not fit.

The plan runs the trainer's own step, on tensors that have a size and no content (`sized`), and counts what lives
(`meter`). So it needs no formula for a model family, no weights and no GPU.
"""
