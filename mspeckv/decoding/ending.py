"""Where a run ends, and the text up to there, in whole characters."""

from __future__ import annotations

from collections.abc import Collection, Sequence

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


class Ending:
    """Takes settled tokens one by one and cuts them after the one that ends the run.

    Args:
        most: tokens to produce at most.
        stop_tokens: ids that end the run.
        stop_strings: strings that end the run once the text holds one.
        text: where the text comes together.
    """

    def __init__(
        self,
        most: int,
        stop_tokens: Collection[int],
        stop_strings: Sequence[str],
        text: TextStream,
    ) -> None:
        self.most, self.stop_tokens, self.stop_strings = most, stop_tokens, stop_strings
        self.stream = text
        self.tokens: list[int] = []
        self.over = False

    @property
    def left(self) -> int:
        """Tokens that may still be produced."""
        return self.most - len(self.tokens)

    @property
    def text(self) -> str:
        """The text so far."""
        return self.stream.text

    def take(self, tokens: Sequence[int]) -> tuple[list[int], str]:
        """What of ``tokens`` belongs to the run, and what it adds to the text."""
        before, start = len(self.tokens), len(self.stream.text)
        for token in tokens:
            self.tokens.append(token)
            self.stream.push([token])
            found = self._string_end(start)
            if found is not None:
                self.stream.text = self.stream.text[:found]
            elif not self._enough(token):
                continue
            else:
                self.stream.finish()
            self.over = True
            break
        return self.tokens[before:], self.stream.text[start:]

    def keep(self, count: int) -> None:
        """End the run after its first ``count`` tokens."""
        if count < len(self.tokens):
            del self.tokens[count:]
            self.stream = TextStream(self.stream.tokenizer)
            self.stream.push(self.tokens)
            self.over = False
        if not self.over:
            self.stream.finish()
        self.over = True

    def _enough(self, token: int) -> bool:
        return len(self.tokens) >= self.most or token in self.stop_tokens

    def _string_end(self, start: int) -> int | None:
        """Where the first stop string ends; it may have begun before ``start``."""
        if not self.stop_strings:
            return None
        text = self.stream.text
        longest = max(map(len, self.stop_strings))
        first = max(0, start - longest + 1)
        ends = [
            place + len(word)
            for word in self.stop_strings
            if (place := text.find(word, first)) >= 0
        ]
        return min(ends, default=None)
