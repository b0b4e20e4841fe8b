"""How often guesses are kept, learned while decoding.

Guesses hold in runs, so acceptance is told apart by place: a_k is the probability that the k-th
guess is kept if all before it were. A lookup says how likely each of its guesses is; what that word
is worth is learned in `mspeckv.adaptive.confidence`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from mspeckv.events import Guess

_FADE = 0.9
"""What a round's tests weigh one round later: half after seven."""
_WEIGHT = 1.5
"""Tests that a prior acceptance counts for; observations fade, so untried ways come back."""
_DRAFT_WEIGHT = 3.0
"""The same for a draft, which costs little where it is unsure."""
_FURTHER_WEIGHT = 3.5
"""The same for further places of a guess, of which one break says little."""
_PRIOR_DRAFT, _PRIOR_MIDDLE = 0.5, 0.85
_PLACES = 4
"""Places of a guess whose acceptance is told apart; the last one stands for all further ones."""
_Test = tuple[int, int, int]
"""Proposing tier, verifying tier, place of the guess."""


class Verdicts:
    """What became of guesses, fading round by round.

    Args:
        has_middle: whether there is a tier 1.
    """

    def __init__(self, has_middle: bool) -> None:
        self.has_middle = has_middle
        self._kept: dict[_Test, float] = defaultdict(float)
        self._tested: dict[_Test, float] = defaultdict(float)

    def see(self, guesses: Iterable[Guess]) -> None:
        """Take in one round's guesses."""
        for counts in (self._kept, self._tested):
            for test in counts:
                counts[test] *= _FADE
        for guess in guesses:
            for place in range(min(guess.accepted + 1, len(guess.tokens))):
                test = _test(guess.tier, guess.verifier, place)
                self._tested[test] += 1
                self._kept[test] += place < guess.accepted

    def rates(self, tier: int, verifier: int) -> list[float]:
        """For each place of a guess, the probability that it is kept if all before it were.

        A place of which little is known is taken to be like the one before it, and for a draft
        the more hopeful the less is known of that: texts differ, and a guess that is kept says
        that this one is easy (Polya's urn: of n tests with a kept share r, one more kept makes it
        (n r + 1) / (n + 1)). What tier 2 keeps of a draft is at first taken to be what gets through
        tier 1 and it.
        """
        known = _DRAFT_WEIGHT if tier == 0 else _WEIGHT
        weight, rate, out = known, _PRIOR_MIDDLE if tier == 1 else _PRIOR_DRAFT, []
        through = [0.0] * _PLACES
        if self.has_middle and (tier, verifier) == (0, 2):
            top = self.rates(1, 2)[0]
            through = [middle * top for middle in self.rates(0, 1)]
            rate = through[0]
        for place in range(_PLACES):
            if place > 0:
                rate, known = (known * rate + 1) / (known + 1), known + 1
                rate = max(rate, through[place])
            if place == 0 or tier == 0:
                test = _test(tier, verifier, place)
                rate = (weight * rate + self._kept[test]) / (weight + self._tested[test])
                known += self._tested[test]
            weight = _FURTHER_WEIGHT
            out.append(rate)
        return out


def _test(tier: int, verifier: int, place: int) -> _Test:
    """What acceptance is counted by: tier 1 is the target over less of the text, it errs anywhere
    alike.
    """
    return tier, verifier, min(place, _PLACES - 1) if tier == 0 else 0
