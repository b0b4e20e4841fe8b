"""Speculative decoding: the test, its proof by trial, the length of a guess, and a whole loop.

The loops of exercises 5 and 6 are judged in `mspeckv_widgets.course.exercises.verify_loops`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mspeckv_widgets.course.answers import as_number, call, same_function, short
from mspeckv_widgets.course.exercise import Exercise, Verdict
from mspeckv_widgets.course.exercises.verify_loops import check_decode, check_suspect

P, Q = (0.5, 0.3, 0.15, 0.05), (0.2, 0.5, 0.05, 0.25)
"""The lab's four-token vocabulary."""

_TRIALS = 8000
_FAR = 0.03
"""Total variation that so many trials of the right rule stay well below (about 0.01)."""

Floats = NDArray[np.float64]
MOST_GAMMA = 16


def left_over(p: Floats, q: Floats) -> Floats:
    """The residual ``norm(max(0, p - q))``."""
    left = np.maximum(0, p - q)
    return np.asarray(left / left.sum())


def check_residual(answer: Any) -> Verdict:
    """Four probabilities: what a rejected guess is replaced from."""
    try:
        found = np.asarray(answer, dtype=np.float64)
    except (TypeError, ValueError):
        return Verdict(False, f"four numbers are asked for, this is {short(answer)}")
    if found.shape != (4,):
        return Verdict(False, f"four numbers are asked for, this is {short(answer)}")
    right = left_over(np.asarray(P), np.asarray(Q))
    if np.allclose(found, right, atol=0.005):
        return Verdict(True, "only tokens that the draft offers too rarely are left.")
    if np.allclose(found, np.maximum(0, np.subtract(P, Q)), atol=0.005):
        return Verdict(False, "the shape is right, but these are no probabilities: they add to 0.4")
    if np.allclose(found, P, atol=0.005):
        return Verdict(False, "that is p; B was offered often enough already")
    wrong = int(np.argmax(np.abs(found - right)))
    return Verdict(False, f"look at token {'ABCD'[wrong]} again")


def check_emit(found: Any) -> Verdict:
    """A function ``(p, q, rng)`` that emits tokens distributed as p, guessing from q."""
    if not callable(found):
        return Verdict(False, f"a function is asked for, this is {short(found)}")
    cases = [(P, Q), ((0.1, 0.2, 0.7), (0.6, 0.3, 0.1)), ((0.25, 0.75), (0.25, 0.75))]
    for p, q in (tuple(np.asarray(part) for part in case) for case in cases):
        counts = np.zeros(len(p))
        rng = _Watched(0, p)
        for _ in range(_TRIALS):
            token = call(found, p, q, rng)
            place = as_number(token)
            if place is None or place not in range(len(p)):
                return Verdict(False, f"it returned {short(token)}, which is no token's number")
            counts[int(place)] += 1
        told = _emission_told(p, q, counts / _TRIALS)
        if told:
            return Verdict(False, told)
        if rng.of_target and not np.allclose(p, q):
            return Verdict(False, "it draws from p itself; only guesses from q are cheap")
    return Verdict(True, f"{3 * _TRIALS:,} emitted tokens are distributed as p.")


def _emission_told(p: Floats, q: Floats, share: Floats) -> str:
    """What is wrong with the shares of the emitted tokens; empty where nothing is."""
    if np.abs(share - p).sum() / 2 < _FAR:
        return ""
    both = np.minimum(p, q)
    known = {
        "that is q's distribution: is anything ever rejected?": q,
        "after a rejection it draws from p; what p shares with q had its chance before": both
        + (1 - both.sum()) * p,
        "it draws from the residual too often or too rarely": left_over(p, q) if any(p > q) else q,
    }
    for words, other in known.items():
        if np.abs(share - other).sum() / 2 < _FAR:
            return words
    return f"emitted {np.round(share, 2).tolist()}, where p is {np.round(p, 2).tolist()}"


class _Watched:
    """A numpy generator that notes whether the target's distribution was ever drawn from."""

    def __init__(self, seed: int, target: Floats) -> None:
        self._rng = np.random.default_rng(seed)
        self._target = target
        self.of_target = False

    def choice(self, a: Any, *rest: Any, **options: Any) -> Any:
        """`numpy.random.Generator.choice`."""
        of = options.get("p")
        if of is not None and np.shape(of) == self._target.shape:
            self.of_target = self.of_target or np.allclose(of, self._target)
        return self._rng.choice(a, *rest, **options)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._rng, name)


def tokens_per_round(a: float, gamma: int) -> float:
    """Kept guesses and the one token of the target's own (arXiv 2211.17192, equation 1)."""
    return sum(a**place for place in range(gamma + 1))


def best_gamma(a: float, c: float) -> int:
    """The gamma of ``1 .. MOST_GAMMA`` with the most tokens per time (the same, theorem 3.8)."""
    return max(
        range(1, MOST_GAMMA + 1), key=lambda gamma: tokens_per_round(a, gamma) / (gamma * c + 1)
    )


def check_tokens(found: Any) -> Verdict:
    """A function of acceptance and gamma: tokens a round settles."""
    cases = [(0.5, 1), (0.5, 4), (0.8, 8), (0.0, 5), (1.0, 5)]
    return same_function(
        found, tokens_per_round, cases, "the kept guesses, and one that the target adds."
    )


def check_best(found: Any) -> Verdict:
    """A function of acceptance and relative cost: the best gamma."""
    cases = [(0.5, 0.22), (0.5, 0.02), (0.8, 0.05), (0.9, 0.3), (0.2, 0.5)]
    return same_function(
        found, best_gamma, cases, "dear guesses want to be few, cheap and good ones many."
    )


EXERCISES: dict[str, Exercise] = {
    "e1": Exercise(
        "the residual by hand",
        check_residual,
        "Which tokens does the draft offer less often than the target wants them? Only those are "
        "still owed something.",
        "Take q from p token by token and set what is negative to 0. Then make the rest add up "
        "to 1.",
    ),
    "e2": Exercise(
        "accept or reject",
        check_emit,
        "Three steps, as in section 1: guess, test, and where the test fails draw from what is "
        "left. Take the residual of the arrays that are given, not exercise 1's numbers.",
        "Begin with x = rng.choice(len(q), p=q). It is accepted if rng.random() * q[x] < p[x].",
    ),
    "e3": Exercise(
        "tokens per round",
        check_tokens,
        "With what chance does guess number k count? Add up. And what does the target add, however "
        "many guesses were right?",
        "Guess k is kept with chance a**k. After the kept ones the target always adds one token: "
        "its correction, or a bonus where all were right.",
    ),
    "e4": Exercise(
        "the best gamma",
        check_best,
        "How long does a round take, counted in target steps? Tokens per round over that is what "
        "should be largest.",
        "A round takes gamma * c + 1 target steps. max(range(1, 17), key=...) returns the gamma "
        "with the largest value of a function.",
    ),
    "e5": Exercise(
        "the loop on the real pair",
        check_decode,
        "Round by round: let the draft guess gamma tokens, keeping the distribution of each; ask "
        "the target once, about all of them; then exercise 2's rule, guess by guess, until one is "
        "rejected. If none is, what does the target's last row give?",
        "A round begins so: for each of gamma guesses qs.append(draft(tokens + guesses)), then "
        "guesses.append(rng.choice(len(qs[-1]), p=qs[-1])). Then ps = target(tokens + guesses, "
        "gamma + 1): row i is what the target holds likely where guess i stands.",
    ),
    "e6": Exercise(
        "the wrong loop, shown",
        check_suspect,
        "Each of the three treats a single guess rightly. So look at texts of two tokens, and at "
        "what the second guess's test knows of the first one's.",
        "With p and q as in section 1, count 4000 texts of two tokens at gamma 2 by each loop, and "
        "compare with the products of p.",
    ),
}
