"""What passes take, learned while decoding."""

from __future__ import annotations

from collections import defaultdict

_FADE = 0.93
"""What a pass weighs in the line one pass later: half after ten."""
SLOPE = 0.05
"""Cost of one more token in a pass over the cost of the first, before it was measured."""
_HICCUP = 1.5
"""A pass that takes more than this many times what was expected of it was held up by something."""
_OWN_FADE = 0.96
"""What a length's own passes weigh one pass later, of whatever length: one bad measurement of a
length that is avoided since is forgotten."""
_LINE_WEIGHT = 1.0
"""Passes of the same length that the line counts for."""


class PassCost:
    """Time of a tier's pass over n tokens: a line through what was seen, bent to each length.

    Kernels have steps (a matrix product of 5 rows may cost twice one of 3), so a length's own
    passes count beside the line as soon as there are any. Older passes fade. Of one that was held
    up only a part counts: a length is not avoided for long after one bad pass.
    """

    def __init__(self) -> None:
        self._sums = [0.0] * 5
        self._own: dict[int, tuple[float, float]] = {}
        self._fitted: tuple[float, float] | None = None

    @property
    def known(self) -> bool:
        """Whether any pass was seen."""
        return self._sums[0] > 0

    def see(self, tokens: int, ms: float) -> None:
        """Add one pass."""
        if self.known:
            ms = min(ms, _HICCUP * self(tokens))
        new = 1.0, tokens, tokens * tokens, ms, tokens * ms
        self._sums = [_FADE * old + part for old, part in zip(self._sums, new, strict=True)]
        for length, (weight, total) in self._own.items():
            self._own[length] = _OWN_FADE * weight, _OWN_FADE * total
        weight, total = self._own.get(tokens, (0.0, 0.0))
        self._own[tokens] = weight + 1, total + ms
        self._fitted = None

    def __call__(self, tokens: int) -> float:
        """Milliseconds expected of a pass over ``tokens``."""
        weight, total = self._own.get(tokens, (0.0, 0.0))
        return (total + _LINE_WEIGHT * self._line(tokens)) / (weight + _LINE_WEIGHT)

    def _line(self, tokens: int) -> float:
        if self._fitted is None:
            self._fitted = self._fit()
        first, slope = self._fitted
        return first + slope * tokens

    def _fit(self) -> tuple[float, float]:
        """Where the line begins, and its slope."""
        weight, n, nn, t, nt = self._sums
        # Two points of the prior line, scaled to the level seen, keep the fit from tilting.
        level = t / (weight + SLOPE * n)
        for at in (1.0, 9.0):
            prior = level * (1 + SLOPE * at)
            weight, n, nn, t, nt = weight + 1, n + at, nn + at * at, t + prior, nt + at * prior
        slope = max(0.0, (weight * nt - n * t) / (weight * nn - n * n))
        return (t - slope * n) / weight, slope


Costs = defaultdict[int, PassCost]
"""What passes take, by tier."""
