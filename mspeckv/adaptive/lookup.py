"""Tier 0 without a model: what followed the last tokens when they stood in the text before.

Prompt lookup: a guess costs nothing and is right wherever text repeats itself, as when code is
edited or a source is quoted (Saxena, "Prompt Lookup Decoding", 2023). The proposal is
deterministic, so its distribution is one-hot and verification stays exact.

How likely a guess is to be right is counted, as a language model of n-grams does. Of the places
where the last L tokens stood before, L as many as possible, let c be those where the text then went
on as guessed so far, and a those where it goes on with the next guess too. That one holds with
chance

    (a - D(L)) / c

where D is what is held back for continuations never seen ("absolute discounting": Ney, Essen and
Kneser, "On structuring probabilistic dependences in stochastic language modelling", 1994). The more
has matched, the less is new: a guess at place k counts as one after k more matched tokens.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from math import exp

import torch

from mspeckv.decoding.speculate import Emission
from mspeckv.kv.doors import guessers
from mspeckv.record import to_device
from mspeckv.settings import Speculation

LONGEST, SHORTEST = 6, 2
"""Tokens that must match: as many as possible, no fewer than two."""
SHORTEST_CHOSEN = 1
"""The same where each length is chosen: one is worth a short guess, and no long one."""
FAR = 16
"""Matched tokens are counted up to here: text that has been the same for so long is a copy."""
_PLACES = 16
"""Most recent places of a match that are looked at."""
_DISCOUNT = tuple(0.6 * exp(-length / 8) for length in range(FAR + 1))
"""D(L), fitted to prose, code and copies that the default target continued greedily."""


class Lookup:
    """Proposes the continuation of the longest match of the last tokens, the most recent such.

    Args:
        vocab: width of a distribution.
        like: a tensor with the device and dtype that distributions have.
        shortest: tokens that must match at least.
    """

    tier = 0

    def __init__(self, vocab: int, like: torch.Tensor, shortest: int = SHORTEST) -> None:
        self.vocab, self.like, self.shortest = vocab, like, shortest
        self._tokens: list[int] = []
        # Where the text goes on after an n-gram that has been followed by something, in order.
        self._after: dict[tuple[int, ...], list[int]] = defaultdict(list)

    def guess(self, prefix: list[int], limit: int) -> tuple[list[int], list[float]]:
        """Up to ``limit`` tokens after ``prefix``, and for each the chance that it holds.

        Each chance is one given that all before it hold. Both are empty where nothing matches.
        """
        self._index(prefix)
        length, places = self._match(prefix)
        if not places:
            return [], []
        start, end = places[-1], len(prefix)
        tokens: list[int] = []
        held: list[float] = []

        def at(place: int) -> int:
            # A match may run into its own end: then the text repeats with that period.
            return prefix[place] if place < end else tokens[place - end]

        for offset in range(limit):
            token = at(start + offset)
            alike = [place for place in places if at(place + offset) == token]
            discount = _DISCOUNT[min(FAR, length + offset)]
            held.append((len(alike) - discount) / len(places))
            tokens.append(token)
            places = alike
        return tokens, held

    def round(self, prefix: list[int], limit: int) -> Emission:
        """Emit up to ``limit`` tokens, none where nothing matches."""
        tokens, held = self.guess(prefix, limit)
        if not tokens:
            return Emission(last=True)
        index = to_device(tokens, self.like.device)[:, None]
        rows = self.like.new_zeros(limit, self.vocab).scatter_(1, index, 1.0)
        return Emission(tokens, list(rows.unbind(0)), [self.tier] * limit, held=held)

    def settle(self, length: int) -> None:
        """Forget tokens from ``length`` on."""
        while len(self._tokens) > length:
            self._tokens.pop()
            for key in self._keys(len(self._tokens)):
                places = self._after[key]
                places.pop()
                if not places:
                    del self._after[key]

    def _match(self, prefix: list[int]) -> tuple[int, list[int]]:
        """Most tokens that match at the end of ``prefix``, and where such matches go on."""
        for length in range(min(LONGEST, len(prefix)), self.shortest - 1, -1):
            places = self._after.get(tuple(prefix[-length:]), [])[-_PLACES:]
            if places:
                lengths = [self._extent(prefix, place, length) for place in places]
                most = max(lengths)
                return most, [p for p, n in zip(places, lengths, strict=True) if n == most]
        return 0, []

    def _extent(self, prefix: list[int], place: int, length: int) -> int:
        """How many tokens match before ``place``, ``length`` of them known to."""
        most = min(FAR, place)
        while length < most and prefix[place - length - 1] == prefix[-length - 1]:
            length += 1
        return length

    def _index(self, prefix: list[int]) -> None:
        """Learn what is new: each token is the continuation of the n-grams before it."""
        for place in range(len(self._tokens), len(prefix)):
            for key in self._keys(place):
                self._after[key].append(place)
            self._tokens.append(prefix[place])

    def _keys(self, place: int) -> Iterator[tuple[int, ...]]:
        """The n-grams before ``place``."""
        for length in range(self.shortest, min(LONGEST, place) + 1):
            yield tuple(self._tokens[place - length : place])


@guessers.register("lookup")
def make_lookup(speculation: Speculation, vocab: int, device: torch.device) -> Lookup:
    """Tier 0 of a run; see `mspeckv.kv.doors.guessers`."""
    shortest = SHORTEST_CHOSEN if speculation.gamma == "auto" else SHORTEST
    return Lookup(vocab, torch.empty(0, dtype=torch.float32, device=device), shortest)
