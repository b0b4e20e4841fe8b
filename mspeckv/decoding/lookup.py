"""Tier 0 without a model: what followed the last tokens when they stood in the text before.

Prompt lookup: a guess costs nothing and is right wherever text repeats itself, as when code is
edited or a source is quoted (Saxena, "Prompt Lookup Decoding", 2023). The proposal is
deterministic, so its distribution is one-hot and verification stays exact.
"""

from __future__ import annotations

import torch

from mspeckv.decoding.levels import Emission
from mspeckv.host import to_device

LONGEST, SHORTEST = 6, 2
"""Tokens that must match: as many as possible, no fewer than two."""
SHORTEST_CHOSEN = 1
"""The same where each length is chosen: one is worth a short guess, and no long one."""
FAR = 16
"""Matched tokens are counted up to here: text that has been the same for so long is a copy."""


class Lookup:
    """Proposes the continuation of the longest, most recent match of the last tokens.

    Args:
        vocab: width of a distribution.
        like: a tensor with the device and dtype that distributions have.
        shortest: tokens that must match at least.
    """

    tier = 0

    def __init__(self, vocab: int, like: torch.Tensor, shortest: int = SHORTEST) -> None:
        self.vocab, self.like, self.shortest = vocab, like, shortest
        self._tokens: list[int] = []
        # Where the text goes on after an n-gram that has been followed by something.
        self._next: dict[tuple[int, ...], int] = {}
        self._replaced: list[list[tuple[tuple[int, ...], int | None]]] = []

    def match(self, prefix: list[int]) -> tuple[int, int]:
        """Tokens that match at the end of ``prefix``, and where their match goes on; (0, 0)."""
        self._index(prefix)
        for length in range(min(LONGEST, len(prefix)), self.shortest - 1, -1):
            place = self._next.get(tuple(prefix[-length:]))
            if place is not None:
                return self._extent(prefix, place, length), place
        return 0, 0

    def round(self, prefix: list[int], limit: int) -> Emission:
        """Emit up to ``limit`` tokens, none where nothing matches."""
        length, place = self.match(prefix)
        if not length:
            return Emission(last=True)
        # A match may run into its own end: then the text repeats with that period.
        tokens = prefix[place : place + limit]
        period = len(tokens)
        while len(tokens) < limit:
            tokens.append(tokens[len(tokens) - period])
        index = to_device(tokens, self.like.device)[:, None]
        rows = self.like.new_zeros(limit, self.vocab).scatter_(1, index, 1.0)
        return Emission(tokens, list(rows.unbind(0)), [self.tier] * limit)

    def settle(self, length: int) -> None:
        """Forget tokens from ``length`` on."""
        while len(self._tokens) > length:
            self._tokens.pop()
            for key, before in reversed(self._replaced.pop()):
                if before is None:
                    del self._next[key]
                else:
                    self._next[key] = before

    def _extent(self, prefix: list[int], place: int, length: int) -> int:
        """How many tokens match before ``place``, ``length`` of them known to."""
        most = min(FAR, place)
        while length < most and prefix[place - length - 1] == prefix[-length - 1]:
            length += 1
        return length

    def _index(self, prefix: list[int]) -> None:
        """Learn what is new: each token is the continuation of the n-grams before it."""
        for place in range(len(self._tokens), len(prefix)):
            replaced: list[tuple[tuple[int, ...], int | None]] = []
            for length in range(self.shortest, min(LONGEST, place) + 1):
                key = tuple(prefix[place - length : place])
                replaced.append((key, self._next.get(key)))
                self._next[key] = place
            self._tokens.append(prefix[place])
            self._replaced.append(replaced)
