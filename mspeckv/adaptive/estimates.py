"""What passes take, and how often guesses are kept, learned while decoding.

All of it is means that fade (`Fading`): texts and machines change, so what was seen long ago counts
little, and before anything was seen a prior belief stands in for it.
"""

from __future__ import annotations

from bisect import bisect
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Generic, TypeVar

from mspeckv.events import Guess

# Half-lives: an observation counts half after so many passes, or rounds.
_COST_PASSES = 17
_VERDICT_ROUNDS = 14
_CONFIDENCE_ROUNDS = 23
# Priors: what is believed at first, and how many observations that belief counts for.
SLOPE = 0.05
"""Cost of one more token in a pass over the cost of the first, where compute is what takes time."""
GPU_SLOPE = 0.004
"""The same on a GPU, which reads weights and keys once for all tokens, or waits for the link."""
FAR = 9
"""Tokens of the longer of two passes by which the line is held before it is known."""
_LINE_WEIGHT = 1.0
"""The line through all passes, beside those of the very length."""
_DRAFT, _DRAFT_WEIGHT = 0.6, 5.0
"""Acceptance of a draft's first guess."""
_MIDDLE, _MIDDLE_WEIGHT = 0.92, 10.0
"""Acceptance of tier 1's guesses: one that fails in a run's first round says little."""
_FURTHER_WEIGHT = 3.5
"""Acceptance of the place before, for a further place: one break says little."""
_DRAFT_WORD_WEIGHT, _LOOKUP_WORD_WEIGHT = 4.0, 24.0
"""The likelihood that a guesser gives its own token: a lookup has counted it."""
# What is told apart.
_HICCUP = 1.5
"""A pass counts as taking at most so many times what was expected: the rest is an accident."""
_PLACES = 4
"""Places of a guess; the last one stands for all further ones."""
_EDGES = (0.15, 0.3, 0.45, 0.6, 0.75, 0.9, 0.97)
"""Likelihoods between these count as one."""

K = TypeVar("K")


class Fading(Generic[K]):
    """Means by key, in which an observation counts half ``half_life`` steps later."""

    def __init__(self, half_life: float) -> None:
        self._remaining = 0.5 ** (1 / half_life)
        self.sums: dict[K, tuple[float, float]] = {}

    def fade(self) -> None:
        """One step has passed."""
        for key, (count, total) in self.sums.items():
            self.sums[key] = self._remaining * count, self._remaining * total

    def add(self, key: K, value: float) -> None:
        """Add one observation."""
        count, total = self.sums.get(key, (0.0, 0.0))
        self.sums[key] = count + 1, total + value

    def count(self, key: K) -> float:
        """What is left of the observations."""
        return self.sums.get(key, (0.0, 0.0))[0]

    def mean(self, key: K, prior: float, weight: float) -> float:
        """The mean value, as if ``prior`` had been observed ``weight`` times too."""
        count, total = self.sums.get(key, (0.0, 0.0))
        return (weight * prior + total) / (weight + count)


def steeper(slope: float, growth: float) -> float:
    """A slope of passes whose bytes grow too: by so much from one token to `FAR`.

    Of a mixture of experts more tokens read more weights. Costs are ``1 + slope * tokens``, so
    their ratio between these two lengths is the growth that is asked for, but for less than as many
    passes take.
    """
    ratio = min(growth * (1 + FAR * slope) / (1 + slope), FAR - 1)
    return (ratio - 1) / (FAR - ratio)


class PassCost:
    """Time of a tier's pass over n tokens: a line through what was seen, bent to each length.

    Kernels have steps (a matrix product of 5 rows may cost twice one of 3), so a length's own
    passes count beside the line as soon as there are any.

    Args:
        slope: of the line, over its level, before anything was seen.
    """

    def __init__(self, slope: float = SLOPE) -> None:
        self.slope = slope
        self._seen: Fading[int] = Fading(_COST_PASSES)
        self._line: tuple[float, float] | None = None

    @property
    def known(self) -> bool:
        """Whether any pass was seen."""
        return bool(self._seen.sums)

    def see(self, tokens: int, ms: float) -> None:
        """Add one pass."""
        if self.known:
            ms = min(ms, _HICCUP * self(tokens))
        self._seen.fade()
        self._seen.add(tokens, ms)
        self._line = None

    def fade(self) -> None:
        """A round has gone by without such a pass: what is known of it has grown older."""
        self._seen.fade()
        self._line = None

    def __call__(self, tokens: int) -> float:
        """Milliseconds expected of a pass over ``tokens``."""
        if self._line is None:
            self._line = self._fit()
        start, slope = self._line
        return self._seen.mean(tokens, start + slope * tokens, _LINE_WEIGHT)

    def _fit(self) -> tuple[float, float]:
        """The line of least squares: where it begins, and its slope, which is not negative."""
        count = n = n_n = ms = n_ms = 0.0
        for tokens, (seen, total) in self._seen.sums.items():
            count, n, n_n = count + seen, n + seen * tokens, n_n + seen * tokens * tokens
            ms, n_ms = ms + total, n_ms + total * tokens
        level = ms / (count + self.slope * n)
        # two points of the prior line, at the level seen, keep it from tilting
        for at in (1, FAR):
            prior = level * (1 + self.slope * at)
            count, n, n_n = count + 1, n + at, n_n + at * at
            ms, n_ms = ms + prior, n_ms + at * prior
        slope = max(0.0, (count * n_ms - n * ms) / (count * n_n - n * n))
        return (ms - slope * n) / count, slope


Costs = defaultdict[int, PassCost]
"""What passes take, by tier."""


class Verdicts:
    """How often guesses are kept, by place.

    Guesses hold in runs, so acceptance is told apart by place: a_k is the probability that the k-th
    guess is kept if all before it were. Tier 1 is the target over less of the text: it errs
    anywhere alike.
    """

    def __init__(self, has_middle: bool) -> None:
        self.has_middle = has_middle
        # by proposing tier, verifying tier, place
        self._tests: Fading[tuple[int, int, int]] = Fading(_VERDICT_ROUNDS)

    def see(self, guesses: Iterable[Guess]) -> None:
        """Take in one round's guesses."""
        self._tests.fade()
        for guess in guesses:
            for place in range(min(guess.accepted + 1, len(guess.tokens))):
                counted = min(place, _PLACES - 1) if guess.tier == 0 else 0
                self._tests.add((guess.tier, guess.verifier, counted), place < guess.accepted)

    def rates(self, tier: int, verifier: int) -> list[float]:
        """For each place of a guess, the probability that it is kept if all before it were.

        A place of which little is known is taken to be like the one before it, and the more
        hopeful the less is known of that: texts differ, and a guess that is kept says that this
        one is easy (Polya's urn: of n tests with a kept share r, one more kept makes it
        (n r + 1) / (n + 1)). What tier 2 keeps of a draft is at first taken to be what gets through
        tier 1 and it.
        """
        rate, weight = (_DRAFT, _DRAFT_WEIGHT) if tier == 0 else (_MIDDLE, _MIDDLE_WEIGHT)
        known, through, rates = weight, [0.0] * _PLACES, list[float]()
        if self.has_middle and (tier, verifier) == (0, 2):
            top = self.rates(1, 2)[0]
            through = [middle * top for middle in self.rates(0, 1)]
            rate = through[0]
        for place in range(_PLACES):
            if place > 0:
                rate, known = (known * rate + 1) / (known + 1), known + 1
                rate, weight = max(rate, through[place]), _FURTHER_WEIGHT
            if place == 0 or tier == 0:
                test = tier, verifier, place
                rate = self._tests.mean(test, rate, weight)
                known += self._tests.count(test)
            rates.append(rate)
        return rates


class Confidence:
    """How often tokens are kept that a draft or lookup held so likely, by verifying tier.

    What a likelihood is worth drifts with temperature, text and verifier.
    """

    def __init__(self, lookup: bool = False) -> None:
        self._weight = _LOOKUP_WORD_WEIGHT if lookup else _DRAFT_WORD_WEIGHT
        self._tests: Fading[tuple[int, int]] = Fading(_CONFIDENCE_ROUNDS)
        self.fade = self._tests.fade

    def see(self, verifier: int, held: Sequence[float], accepted: int) -> None:
        """Add one guess, its first ``accepted`` tokens kept."""
        for place, likelihood in enumerate(held[: accepted + 1]):
            self._tests.add((verifier, bisect(_EDGES, likelihood)), place < accepted)

    def kept(self, verifier: int, likelihood: float) -> float:
        """Chance that a token held so likely is kept, if all before it are."""
        key = verifier, bisect(_EDGES, likelihood)
        return self._tests.mean(key, likelihood, self._weight)
