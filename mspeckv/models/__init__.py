"""Yields a checked target, draft and tokenizer, and knows nothing of decoding."""
