"""Text as it settles, in whole characters."""

from __future__ import annotations

from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase

_UNFINISHED = "\N{REPLACEMENT CHARACTER}"


class TextStream:
    """Turns settled tokens into text, holding back a character whose bytes are not all there.

    Tokens are decoded together with those of the last finished piece, because a tokenizer may
    join them (leading spaces, byte-level characters).
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase | None) -> None:
        self.tokenizer = tokenizer
        self.text = ""
        self._context: list[int] = []
        self._pending: list[int] = []

    def push(self, tokens: Sequence[int]) -> str:
        """Add tokens; returns what they add to the text."""
        self._pending += tokens
        if self.tokenizer is None or not self._pending:
            return ""
        before = self._decode(self._context)
        after = self._decode(self._context + self._pending)
        if after.endswith(_UNFINISHED):
            return ""
        self._context, self._pending = self._pending, []
        self.text += after[len(before) :]
        return after[len(before) :]

    def _decode(self, tokens: list[int]) -> str:
        assert self.tokenizer is not None
        return str(self.tokenizer.decode(tokens, clean_up_tokenization_spaces=False))
