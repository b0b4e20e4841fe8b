"""Catch the liar: a bet against an engine, how many samples it takes, and who is wrong, and how."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from mspeckv_study.verification.degeneration import repeated
from mspeckv_study.verification.engine import Engine
from mspeckv_widgets.course.answers import call, same_function, short
from mspeckv_widgets.course.exercise import Exercise, Verdict
from mspeckv_widgets.course.liars import Tables

PROMPT = [0, 1, 2, 3, 4, 5, 2, 0]
LINEUP = {"Ash": "honest", "Birch": "plain", "Cedar": "scale", "Elm": "honest", "Fir": "loops"}
HOW = (
    "draws from another distribution", "repeats itself in long texts",
    "is wrong after a rejection", "is wrong after a kept guess",
)  # fmt: skip
WRONG = {"Cedar": HOW[2], "Fir": HOW[1]}
_BETS = [
    ([0.5, 0.3, 0.2], [0.2, 0.3, 0.5], [2, 2, 0, 1, 2]),
    ([0.25, 0.75], [0.5, 0.5], [0, 0, 1]),
    ([0.4, 0.6], [0.4, 0.6], [1, 0, 1]),
]


def lineup() -> dict[str, Engine]:
    """The five engines by name; what they tell beside tokens is alike."""
    found: dict[str, Engine] = {}
    for name, way in LINEUP.items():
        found[name] = Tables(way)
        found[name].name = name
    return found


def wealth(p: Sequence[float], f: Sequence[float], tokens: Sequence[int]) -> float:
    """What one coin has become that was staked as ``f`` on each token, at odds by ``p``."""
    return math.prod(f[token] / p[token] for token in tokens)


def tokens_needed(p: Sequence[float], f: Sequence[float], alpha: float) -> float:
    """Tokens drawn from ``f`` until the wealth is 1 / alpha, at its mean growth."""
    growth = sum(b * math.log(b / a) for a, b in zip(p, f, strict=True))
    return math.log(1 / alpha) / growth


def check_wealth(found: Any) -> Verdict:
    """A function of p, f and tokens: the wealth after them."""
    why = "fair odds: where p is the truth, no stake grows on average, whatever f is."
    return same_function(found, wealth, _BETS, why)


def check_fault(found: Any) -> Verdict:
    """A function of p and q: what an engine says that redraws from p after a rejection."""
    if not callable(found):
        return Verdict(False, f"a function is asked for, this is {short(found)}")
    for p, q in (([0.5, 0.3, 0.2], [0.2, 0.3, 0.5]), ([0.1, 0.9], [0.5, 0.5])):
        one, other = np.asarray(p), np.asarray(q)
        kept = np.minimum(one, other)
        right = kept + (1 - kept.sum()) * one
        gave = np.asarray(call(found, one, other), dtype=np.float64)
        if gave.shape != right.shape:
            return Verdict(False, f"it returned {short(gave)}; {len(p)} chances are asked for")
        if np.allclose(gave, one):
            return Verdict(False, "that is p: what the residual gives, not what p gives again")
        if not np.allclose(gave, right):
            return Verdict(False, f"of p {p} and q {q} it made {np.round(gave, 3).tolist()}")
    return Verdict(True, "tokens that the draft likes come too rarely no more: p is counted twice.")


def check_needed(found: Any) -> Verdict:
    """A function of p, f and alpha: how many tokens the bet takes."""
    cases = [(p, f, alpha) for p, f, _ in _BETS[:2] for alpha in (0.05, 0.001)]
    why = "half the difference takes four times the tokens; a smaller alpha, only its logarithm."
    return same_function(found, tokens_needed, cases, why)


def check_repeated(found: Any) -> Verdict:
    """A function of a text: the share of its three-token pieces that came before."""
    cases = [([1, 2, 3, 1, 2, 3, 1, 2, 3],), ([1, 2, 3, 4, 5],), ([7] * 10,), ([1, 2, 1, 2, 1, 5],)]
    return same_function(found, repeated, cases, "a loop is seen, whatever its tokens are.")


def check_liars(answer: Any) -> Verdict:
    """``{name: how}`` of the engines that are wrong."""
    if not isinstance(answer, dict):
        return Verdict(False, f"give {{name: how}}, this is {short(answer)}")
    for name, how in answer.items():
        if name not in LINEUP:
            return Verdict(False, f"{short(name)} is none of {', '.join(LINEUP)}")
        if how not in HOW:
            return Verdict(False, f"{short(how)} is none of: {'; '.join(HOW)}")
    if set(answer) != set(WRONG):
        wrong = set(answer) - set(WRONG)
        if wrong:
            return Verdict(False, f"{min(wrong)} is honest: look at what its controls caught")
        return Verdict(False, f"{len(answer)} found; one more is wrong")
    if answer != WRONG:
        return Verdict(False, "the right engines; one of them is wrong in another way")
    return Verdict(True, "both pass every greedy test; each took a question of its own.")


EXERCISES: dict[str, Exercise] = {
    "e1": Exercise(
        "a bet against an engine",
        check_wealth,
        "You have one coin, and stake all of it anew on every token, divided as f says. What does "
        "the share on the token that came pay, where the odds are 1 / p?",
        "Each token multiplies the wealth by f[token] / p[token]; math.prod multiplies.",
    ),
    "e2": Exercise(
        "a fault to plant",
        check_fault,
        "Two ways lead to a token: a guess that is kept, and a rejection. How likely is each, and "
        "what comes of the second in this engine?",
        "kept = np.minimum(p, q); what is missing of 1 is the chance of a rejection.",
    ),
    "e3": Exercise(
        "how many tokens",
        check_needed,
        "By which factor does wealth grow per token, on average of its logarithm, if tokens come "
        "from f? How often does that fit into log(1 / alpha)?",
        "The mean growth is the sum of f * log(f / p) over the tokens.",
    ),
    "e4": Exercise(
        "what a loop looks like",
        check_repeated,
        "Cut the text into overlapping pieces of three tokens. In a text without loops nearly all "
        "of them are different.",
        "list(zip(text, text[1:], text[2:])) are the pieces; a set holds each once.",
    ),
    "e5": Exercise(
        "the two liars",
        check_liars,
        "Greedy text and promises say nothing. Which line of which report says fault, and what "
        "was conditioned on there?",
        "mspeckv.verify with checks sampled and long, for each engine: two say fault.",
    ),
}
