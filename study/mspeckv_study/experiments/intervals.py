"""A figure of several repeats: its middle, an interval, and what that shows.

Every interval here is one of ranks. The median lies below the second least of n repeats only where
n - 1 of them or more came out above it, as coins fall: so how often the interval holds the median
is a sum of binomial coefficients, exact whatever the distribution (Conover, "Practical
Nonparametric Statistics", 1999, section 3.2). Of ten repeats, second least to second largest hold
it in 97.9 %. Of fewer than six not even the whole range does so in `CONFIDENCE`: it is called a
range then, and shows nothing.

Variants are compared within a repeat, since its runs were neighbours in time. A speed-up is the
geometric mean of the repeats' ratios, for which it does not matter which of the two is put on top
(Fleming and Wallace, "How not to lie with statistics", 1986); its interval is of their median.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import comb, exp, log
from statistics import fmean, median
from typing import ClassVar, Literal

CONFIDENCE = 0.95

Verdict = Literal["shown", "not shown", "contradicted"]


def coverage(count: int, rank: int) -> float:
    """How often the ``rank``-th least to the ``rank``-th largest of ``count`` hold the median."""
    return 1 - 2 * sum(comb(count, below) for below in range(rank)) / float(2**count)


def best_rank(count: int, confidence: float = CONFIDENCE) -> int:
    """The rank of the narrowest interval that holds the median so often; 1 where none does."""
    enough = [one for one in range(1, count // 2 + 1) if coverage(count, one) >= confidence]
    return max(enough, default=1)


@dataclass(frozen=True)
class Sample:
    """One figure of every repeat, by seed; at least one."""

    by_seed: Mapping[int, float]
    unit: ClassVar[str] = ""

    @property
    def values(self) -> list[float]:
        """In rising order."""
        return sorted(self.by_seed.values())

    @property
    def centre(self) -> float:
        """The median."""
        return median(self.by_seed.values())

    @property
    def interval(self) -> tuple[float, float]:
        """Of the median: the narrowest that holds it in `CONFIDENCE`, or the range."""
        rank = best_rank(len(self.by_seed))
        return self.values[rank - 1], self.values[-rank]

    @property
    def coverage(self) -> float:
        """How often such an interval holds the median."""
        return coverage(len(self.by_seed), best_rank(len(self.by_seed)))

    @property
    def sure(self) -> bool:
        """Whether that is `CONFIDENCE` at least."""
        return self.coverage >= CONFIDENCE

    def scaled(self, factor: float) -> Sample:
        """The same in another unit."""
        return type(self)({seed: one * factor for seed, one in self.by_seed.items()})

    def over(self, other: Sample) -> Ratio | None:
        """Repeat by repeat; None where no repeat has both."""
        both = [seed for seed in self.by_seed if seed in other.by_seed]
        ratios = {seed: self.by_seed[seed] / other.by_seed[seed] for seed in both}
        return Ratio(ratios) if ratios else None

    def text(self, digits: int = 2) -> str:
        """``4.75 [4.60, 4.90]``, ``4.75 (range of 3: 4.60 to 4.90)`` or ``4.75 (one run)``."""
        count, (low, high) = len(self.by_seed), self.interval
        ends = f"{low:.{digits}f}", f"{high:.{digits}f}"
        if self.sure:
            between = f"[{', '.join(ends)}]"
        else:
            between = "(one run)" if count == 1 else f"(range of {count}: {' to '.join(ends)})"
        return f"{self.centre:.{digits}f}{self.unit} {between}"


class Ratio(Sample):
    """How many times as much, by seed; its text is such as ``4.75x [4.60, 4.90]``."""

    unit = "x"

    @property
    def centre(self) -> float:
        """The geometric mean."""
        return exp(fmean(map(log, self.by_seed.values())))

    def verdict(self, claimed: float = 1.0, noise: float = 1.0) -> Verdict:
        """Whether it is shown to be more than ``claimed``.

        Args:
            claimed: the least that is claimed.
            noise: the factor by which cells differ that are one configuration: what lies within
                it of the claim shows nothing.
        """
        low, high = self.interval
        if self.sure and low > claimed * noise:
            return "shown"
        return "contradicted" if self.sure and high < claimed / noise else "not shown"


def together(verdicts: Iterable[Verdict]) -> Verdict:
    """Of a claim about several places: shown at all of them, or contradicted at one."""
    found = set(verdicts)
    if "contradicted" in found:
        return "contradicted"
    return "shown" if found == {"shown"} else "not shown"
