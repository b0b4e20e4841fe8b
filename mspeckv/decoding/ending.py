"""Where a run ends."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from mspeckv.models.text import TextStream


@dataclass
class Ending:
    """Takes settled tokens one by one and cuts them after the one that ends the run.

    Attributes:
        most: tokens to produce at most.
        stop_tokens: ids that end the run.
        stop_strings: strings that end the run once the text holds one.
        stream: where the text comes together.
    """

    most: int
    stop_tokens: Collection[int]
    stop_strings: Sequence[str]
    stream: TextStream
    tokens: list[int] = field(default_factory=list)
    over: bool = False

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
        before, start = len(self.tokens), len(self.text)
        for token in tokens:
            self.tokens.append(token)
            self.stream.push([token])
            found = self._string_end(start)
            if found is not None:
                self.stream.text = self.text[:found]
            elif self.left <= 0 or token in self.stop_tokens:
                self.stream.finish()
            else:
                continue
            self.over = True
            break
        return self.tokens[before:], self.text[start:]

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

    def _string_end(self, start: int) -> int | None:
        """Where the first stop string ends; it may have begun before ``start``."""
        longest = max(map(len, self.stop_strings), default=0)
        first = max(0, start - longest + 1)
        places = [(self.text.find(word, first), len(word)) for word in self.stop_strings]
        return min((place + length for place, length in places if place >= 0), default=None)
