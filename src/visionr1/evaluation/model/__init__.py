"""A model that is asked: its engine, its prompts read ahead, and its answers to questions. Needs torch."""
