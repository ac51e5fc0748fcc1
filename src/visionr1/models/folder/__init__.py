"""Reading a model folder, which may come from anyone: its files, chat template, tokenizer and processor."""
