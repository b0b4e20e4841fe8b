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
        self._shown = 0

    def push(self, tokens: Sequence[int]) -> str:
        """Add tokens; returns what they add to the text."""
        self._pending += tokens
        whole = self._decode_pending()
        stable = whole.rstrip(_UNFINISHED)
        new = stable[self._shown :]
        self._shown += len(new)
        if stable == whole:
            self._context, self._pending, self._shown = self._pending, [], 0
        self.text += new
        return new

    def finish(self) -> str:
        """No more tokens will come: what was held back, as the tokenizer shows it."""
        new = self._decode_pending()[self._shown :]
        self._context, self._pending, self._shown = [], [], 0
        self.text += new
        return new

    def _decode_pending(self) -> str:
        if self.tokenizer is None or not self._pending:
            return ""
        before = self._decode(self._context)
        return self._decode(self._context + self._pending)[len(before) :]

    def _decode(self, tokens: list[int]) -> str:
        assert self.tokenizer is not None
        return str(self.tokenizer.decode(tokens, clean_up_tokenization_spaces=False))
