"""How long to guess, by how sure the draft is.

A draft that was distilled from its target knows when it does not know: how likely it holds its own
token says how likely that is kept. With s the product of those likelihoods along a chain of
guesses, the chance that all of it is kept, one more guess brings s tokens at most and costs d
milliseconds, its draft pass and its place in the verification. Where a token is otherwise had for
T milliseconds, it pays as long as

    s T > d,   so a chain ends once s < d / T

(Charnov, Optimal foraging: the marginal value theorem, 1976: leave when a patch yields less than
the average). What a likelihood is worth is learned in the run: confidence and acceptance drift
apart with temperature, text and verifier.

Whether a chain goes on depends on tokens already handed up, never on the verifier, so every guess
stays a draw from its own distribution, which is all that exactness needs.
"""

from __future__ import annotations

from bisect import bisect
from collections import defaultdict
from collections.abc import Sequence

_EDGES = (0.15, 0.3, 0.45, 0.6, 0.75, 0.9, 0.97)
"""Likelihoods between these are told apart."""
_WEIGHT, _LOOKUP_WEIGHT = 4.0, 24.0
"""Tests that a draft's own word counts for, and a lookup's, which has counted."""
_FADE = 0.97
"""What a round's tests weigh one round later."""


class Confidence:
    """How often guesses are kept that a draft or lookup held so likely, by verifying tier.

    Args:
        lookup: whether tier 0 is one.
    """

    def __init__(self, lookup: bool = False) -> None:
        self._weight = _LOOKUP_WEIGHT if lookup else _WEIGHT
        self._kept: dict[tuple[int, int], float] = defaultdict(float)
        self._tested: dict[tuple[int, int], float] = defaultdict(float)

    def fade(self) -> None:
        """One round has passed."""
        for counts in (self._kept, self._tested):
            for key in counts:
                counts[key] *= _FADE

    def see(self, verifier: int, held: Sequence[float], accepted: int) -> None:
        """Add one guess, its first ``accepted`` tokens kept."""
        for place, likelihood in enumerate(held[: accepted + 1]):
            key = verifier, bisect(_EDGES, likelihood)
            self._tested[key] += 1
            self._kept[key] += place < accepted

    def kept(self, verifier: int, likelihood: float) -> float:
        """Chance that a token held so likely is kept, if all before it are."""
        key = verifier, bisect(_EDGES, likelihood)
        weight = self._weight
        return (weight * likelihood + self._kept[key]) / (weight + self._tested[key])


class Chain:
    """A chain of guesses as it grows.

    Args:
        confidence: learned so far.
        verifier: tier that will test the chain.
        stop: chance of being kept whole under which the chain ends; 0 for never.
    """

    def __init__(self, confidence: Confidence, verifier: int, stop: float) -> None:
        self.confidence, self.verifier, self.stop = confidence, verifier, stop
        self._whole = 1.0

    def restart(self) -> None:
        """The next token is the first of another chain."""
        self._whole = 1.0

    def ends_with(self, likelihood: float) -> bool:
        """Take in a token that the draft held so likely; whether no more should follow it."""
        self._whole *= self.confidence.kept(self.verifier, likelihood)
        return self._whole < self.stop
