"""How often guesses are kept, learned while decoding.

Guesses hold in runs, so acceptance is told apart by place: a_k is the probability that the k-th
guess is kept if all before it were. A lookup's guesses differ most by how much of the text matched:
where it has been the same for long, text is being copied.
"""

from __future__ import annotations

from bisect import bisect
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
_MATCHED = (1, 2, 3, 4, 8, 16)
"""Matched tokens from which a lookup is told apart ..."""
_FIRST = (0.4, 0.45, 0.5, 0.75, 0.8, 0.98)
"""... and how often its first guess is kept then, prose and code taken together, ..."""
_FURTHER = (0.7, 0.7, 0.8, 0.85, 0.85, 0.98)
"""... and one further on."""
_KIND = (0, 0, 0, 1, 1, 2)
"""Rows whose further guesses are counted together: met by chance, like text, a copy."""
_Test = tuple[int, int, int, int]
"""Proposing tier, verifying tier, row of `_MATCHED` (-1: no lookup), place of the guess."""


class Verdicts:
    """What became of guesses, fading round by round.

    Args:
        has_middle: whether there is a tier 1.
    """

    def __init__(self, has_middle: bool) -> None:
        self.has_middle = has_middle
        self._kept: dict[_Test, float] = defaultdict(float)
        self._tested: dict[_Test, float] = defaultdict(float)

    def see(self, guesses: Iterable[Guess], match: int) -> None:
        """Take in one round's guesses; ``match``: tokens that matched, for a lookup."""
        for counts in (self._kept, self._tested):
            for test in counts:
                counts[test] *= _FADE
        for guess in guesses:
            for place in range(min(guess.accepted + 1, len(guess.tokens))):
                test = _test(guess.tier, guess.verifier, match, place)
                self._tested[test] += 1
                self._kept[test] += place < guess.accepted

    def rates(self, tier: int, verifier: int, match: int = 0) -> list[float]:
        """For each place of a guess, the probability that it is kept if all before it were.

        A place of which little is known is taken to be like the one before it, and for a draft
        the more hopeful the less is known of that: texts differ, and a guess that is kept says
        that this one is easy (Polya's urn: of n tests with a kept share r, one more kept makes it
        (n r + 1) / (n + 1)). What tier 2 keeps of a draft is at first taken to be what gets through
        tier 1 and it.
        """
        copies = tier == 0 and match > 0
        known = _DRAFT_WEIGHT if tier == 0 and not copies else _WEIGHT
        weight, rate, out = known, self._prior(tier, verifier, match), []
        through = [0.0] * _PLACES
        if self.has_middle and (tier, verifier, match) == (0, 2, 0):
            top = self.rates(1, 2)[0]
            through = [middle * top for middle in self.rates(0, 1)]
            rate = through[0]
        for place in range(_PLACES):
            if place == 1 and copies:
                # whatever the first guess says of a copy's beginning, once begun it goes on
                rate = _FURTHER[_row(match)]
            elif place > 0 and not copies:
                rate, known = (known * rate + 1) / (known + 1), known + 1
                rate = max(rate, through[place])
            if place == 0 or tier == 0:
                test = _test(tier, verifier, match, place)
                rate = (weight * rate + self._kept[test]) / (weight + self._tested[test])
                known += self._tested[test]
            weight = _FURTHER_WEIGHT
            out.append(rate)
        return out

    def _prior(self, tier: int, verifier: int, match: int) -> float:
        if tier == 1:
            return _PRIOR_MIDDLE
        if match:
            return _FIRST[_row(match)]
        return _PRIOR_DRAFT


def _row(match: int) -> int:
    return bisect(_MATCHED, match) - 1


def _test(tier: int, verifier: int, match: int, place: int) -> _Test:
    """What acceptance is counted by.

    For further guesses it matters only whether the match was by chance, of like text or a copy.
    Tier 1 is the target over less of the text: it errs anywhere alike.
    """
    place = min(place, _PLACES - 1)
    if tier > 0:
        return tier, verifier, 0, 0
    row = _row(match)
    return tier, verifier, row if place == 0 or row < 0 else _KIND[row], place
