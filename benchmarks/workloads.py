"""What speculation is judged on: three kinds of prompt, and fixed lengths."""

from __future__ import annotations

import argparse

from transformers import PreTrainedTokenizerBase

from mspeckv_study.documents import load_document, text_tokens

KINDS = ("prose", "code", "copy")
GRID = (2, 4, 8, 16)
"""Fixed lengths that chosen ones are held to."""
VOCAB = 8192
"""Tokens that the draft's head scores."""
_COPY_LEAD = 48
"""Tokens of the repetition that a copy prompt already holds, so that what follows is known."""


def prompt_of(kind: str, tokenizer: PreTrainedTokenizerBase, tokens: int) -> list[int]:
    """A prompt of exactly ``tokens`` ids.

    Args:
        kind: ``prose`` (the language reference), ``code`` (a module of the standard library) or
            ``copy`` (prose, then a request to repeat it, then the beginning of the repetition).
        tokenizer: the target's tokenizer.
        tokens: length of the prompt.
    """
    if kind == "prose":
        return load_document("python-reference", tokenizer, tokens)
    if kind == "code":
        return load_document(argparse.__file__, tokenizer, tokens)
    request = text_tokens("\n\nThe text above, once more, word for word:\n\n", tokenizer)
    text = load_document("python-reference", tokenizer, tokens - len(request) - _COPY_LEAD)
    return text + request + text[:_COPY_LEAD]
