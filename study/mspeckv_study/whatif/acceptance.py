"""How many tokens a round settles, and how many passes it takes to guess them.

Let a verifier keep a guess with probability a, if it kept all before it, whatever its place
(Leviathan et al., arXiv 2211.17192, section 3.1, where a is the mean of sum min(p, q)). Of gamma
guesses exactly k are kept with probability a^k (1 - a) for k < gamma and a^gamma for k = gamma, and
the verifier adds one token of its own, so a round settles

    E(a, gamma) = sum_{k=0}^{gamma} a^k = (1 - a^(gamma+1)) / (1 - a)          (equation 1 there)

tokens, 1 + gamma at a = 1. Nesting: what tier 1 hands up was verified by tier 1, so it is
distributed as tier 1 (`mspeckv.decoding.speculate`), and the outer round sees E(a_12, gamma)
whoever guessed first. Tier 0's a_01 only decides how many passes tier 1 needs for gamma tokens: an
inner round with g tokens still wanted guesses d = min(draft_gamma, g - 1) and settles k + 1, so

    P(g) = 1 + sum_k Pr(k of d) P(g - k - 1),  P(0) = 0          passes of tier 1
    D(g) = d + sum_k Pr(k of d) D(g - k - 1),  D(0) = 0          passes of tier 0
    R(g) = P(g) + D(g)                                           tokens read by tier 1

Everything here works on arrays.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mspeckv.settings import refuse
from mspeckv_study.whatif.published_tables import published

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Acceptance:
    """Per-token acceptance at each nesting, in [0, 1]; numbers or arrays.

    The defaults are what the default pair shows on the Python reference at temperature 0.6, tier 1
    with a budget of 256 at 4 to 8 k of context; see `likely_acceptance` for other models.

    Attributes:
        draft_middle: tier 0's guesses, by tier 1.
        middle_full: tier 1's guesses, by tier 2.
        draft_full: tier 0's guesses, by tier 2 (``vanilla``).
    """

    draft_middle: ArrayLike = 0.6
    middle_full: ArrayLike = 0.83
    draft_full: ArrayLike = 0.55

    def __post_init__(self) -> None:
        for name, rate in vars(self).items():
            try:
                given = np.asarray(rate, dtype=float)
            except (TypeError, ValueError):
                given = np.asarray(np.nan)
            if not np.all((given >= 0) & (given <= 1)):
                raise refuse(name, rate, "use numbers from 0 to 1")


def expected_tokens(rate: ArrayLike, gamma: ArrayLike) -> Floats:
    """E(a, gamma): tokens that a round settles on average, the verifier's own included.

    This is the closed form, over arrays. `mspeckv.adaptive.lengths` sums place by place instead,
    since its rates differ from place to place; with one rate the two agree.
    """
    a, n = np.broadcast_arrays(np.asarray(rate, dtype=float), np.asarray(gamma, dtype=float))
    near = a > 1 - 1e-9
    safe = np.where(near, 0.5, a)
    return np.where(near, n + 1, (1 - safe ** (n + 1)) / (1 - safe))


def rate_of(accepted: ArrayLike, gamma: ArrayLike) -> Floats:
    """The acceptance at which ``accepted`` of ``gamma`` guesses are kept per round on average.

    Inverse of `expected_tokens`, by bisection.

    Raises:
        ValueError: more are kept than guessed.
    """
    kept, n = np.broadcast_arrays(np.asarray(accepted, dtype=float), np.asarray(gamma, dtype=float))
    if bool(np.any((kept < 0) | (kept > n))):
        raise refuse("accepted", accepted, "use numbers from 0 to gamma")
    low, high = np.zeros(kept.shape), np.ones(kept.shape)
    for _ in range(50):
        middle = (low + high) / 2
        under = expected_tokens(middle, n) < kept + 1
        low, high = np.where(under, middle, low), np.where(under, high, middle)
    return (low + high) / 2


PUBLISHED_PAIR = ("llama-2-7b", "llama-68m")
"""Target and draft of the published tables."""
PUBLISHED_GAMMA = 8


def likely_acceptance(
    target: str, draft: str | None, method: str, prefill: ArrayLike
) -> Acceptance:
    """What to assume where nothing is known of a run: published, or the default pair's.

    For the published pair, what table A1 kept of 8 guesses at that context with a budget of 4096
    (the nearest published context beyond its ends), `vanilla`'s for tier 0; for others the
    defaults of `Acceptance`.
    """
    if (target, draft) != PUBLISHED_PAIR:
        return Acceptance()
    table, outer = published("A1"), "mspeckv" if method == "mspeckv" else "triforce"
    lowest = rate_of(table.kept("vanilla", prefill), PUBLISHED_GAMMA)
    return Acceptance(lowest, rate_of(table.kept(outer, prefill), PUBLISHED_GAMMA), lowest)


class InnerPasses(NamedTuple):
    """What tier 1 needs on average to guess the tokens of one outer round.

    Attributes:
        middle: passes of tier 1, P.
        draft: passes of tier 0, D.
        read: tokens read by tier 1 in all, R.
    """

    middle: Any
    draft: Any
    read: Any


def inner_passes(rate: ArrayLike, draft_gamma: ArrayLike, gamma: ArrayLike) -> InnerPasses:
    """P, D and R for ``gamma`` tokens by inner rounds of ``draft_gamma``; see the module.

    ``draft_gamma`` 0 is tier 1 decoding alone.
    """
    a, inner, outer = np.broadcast_arrays(
        np.asarray(rate, dtype=float), np.asarray(draft_gamma, int), np.asarray(gamma, int)
    )
    longest = int(outer.max(initial=0))
    middle = np.zeros((longest + 1, *a.shape))
    draft = np.zeros_like(middle)
    for wanted in range(1, longest + 1):
        depth = np.minimum(inner, wanted - 1)
        middle[wanted], draft[wanted] = 1, depth
        for kept in range(int(depth.max(initial=0)) + 1):
            chance = np.where(kept < depth, a**kept * (1 - a), np.where(kept == depth, a**kept, 0))
            middle[wanted] += chance * middle[wanted - kept - 1]
            draft[wanted] += chance * draft[wanted - kept - 1]
    passes, guesses = (np.take_along_axis(x, outer[None], 0)[0] for x in (middle, draft))
    return InnerPasses(passes, guesses, passes + guesses)
