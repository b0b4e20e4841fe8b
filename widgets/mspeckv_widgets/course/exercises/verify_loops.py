"""Judging verify loops: token by token at temperature 0, by the chi-square test above it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from functools import cache
from typing import Any

import numpy as np

from mspeckv import KVPolicy, Pair, Sampling, documents, generate
from mspeckv.models.text import encode_prompt
from mspeckv.testing.exactness import chi_square
from mspeckv_widgets.course.answers import call, short
from mspeckv_widgets.course.exercise import Score, StillOpen, Verdict
from mspeckv_widgets.course.loops import SUSPECTS, loop_of
from mspeckv_widgets.course.two_tiers import (
    Decode,
    Text,
    TwoTiers,
    texts_expected,
    texts_seen,
)

TOKENS, GAMMA = 16, 4
DRAFT_STEP = 0.2
"""What a look by the draft is counted as, in looks by the target, for the score."""
SURE = 1e-4
"""A chi-square test's p under this is no accident: a right loop gets there once in 10,000 times."""
SAMPLES = 3000
_SUMS = "".join(f"{i} + 1 = {i + 1}\n" for i in range(1, 8))
_P, _Q = (0.5, 0.3, 0.15, 0.05), (0.2, 0.5, 0.05, 0.25)
_MOST_TEXTS = 4000


def check_decode(answer: Any) -> Verdict:
    """``(decode, pair)``: plain decoding's tokens at temperature 0, its distribution above."""
    if not isinstance(answer, tuple) or len(answer) != 2 or not callable(answer[0]):
        return Verdict(False, "give (decode, pair)")
    decode, pair = answer
    if not isinstance(pair, Pair) or pair.draft is None:
        return Verdict(False, f"a pair with a draft is asked for, this is {short(pair)}")
    complaint = _greedy_complaint(decode, TwoTiers.memoryless((0, 0, 1), (0, 0, 1)), [], (2, 2, 2))
    if complaint:
        return Verdict(False, complaint)
    drawn = TwoTiers.memoryless(_P, _Q)
    told = _distribution_told(decode, drawn, 3) or _distribution_told(decode, _words_of(pair), 2)
    if told:
        return Verdict(False, told)
    if drawn.longest > 3:
        return Verdict(
            False, f"at gamma 2 it asked the target about {drawn.longest} places at once"
        )
    cost = 0.0
    for prompt in _prompts(pair):
        real = TwoTiers.of_pair(pair)
        plain = _plain(pair, tuple(prompt))
        complaint = _greedy_complaint(decode, real, prompt, plain)
        if complaint:
            return Verdict(False, complaint)
        if real.looks >= TOKENS:
            return Verdict(
                False, f"{real.looks} looks by the target for {TOKENS} tokens: plain decoding does "
                "as well; let one look test all guesses",
            )  # fmt: skip
        cost += (real.looks + DRAFT_STEP * real.drafts) / TOKENS / 2
    return Verdict(
        True,
        f"{2 * TOKENS} greedy tokens on the real pair are plain decoding's, and {2 * SAMPLES} "
        f"drawn texts are distributed as the target's own. A token costs {cost:.2f} looks by the "
        f"target, one by the draft counted as {DRAFT_STEP}; plain decoding's costs 1.",
        Score(cost, "looks per token", "counted", less_is_better=True),
    )


def check_suspect(answer: Any) -> Verdict:
    """``(name, {"p", "q", "n", "gamma"})``: a loop, and where its texts are not the target's."""
    if not isinstance(answer, tuple) or len(answer) != 2 or not isinstance(answer[1], Mapping):
        return Verdict(False, 'give (name, {"p": [...], "q": [...], "n": ..., "gamma": ...})')
    name, shown = answer
    if name not in SUSPECTS:
        return Verdict(False, f"{short(name)} is none of {', '.join(SUSPECTS)}")
    if set(shown) != {"p", "q", "n", "gamma"}:
        return Verdict(False, "the evidence has four parts: p, q, n and gamma")
    try:
        two = _evidence(shown)
    except (TypeError, ValueError) as error:
        return Verdict(False, f"this evidence cannot be tried: {error}")
    n, gamma = shown["n"], shown["gamma"]
    expected = texts_expected(two, n)
    chances, seen = {}, {}
    for suspect, settle in SUSPECTS.items():
        seen[suspect] = texts_seen(loop_of(settle), two, n, gamma, SAMPLES)
        chances[suspect] = chi_square(seen[suspect], expected)
    told = f"of {SAMPLES} texts of {n} tokens at gamma {gamma}"
    if chances[name] > SURE:
        return Verdict(
            False, f"{told}, {name}'s are distributed as the target's (chi-square: p = "
            f"{chances[name]:.2g}): it is another loop, or other evidence is needed",
        )  # fmt: skip
    apart = _apart(seen[name], expected)
    return Verdict(
        True,
        f"{told}, {name}'s are not the target's: {_worst(seen[name], expected)} (chi-square: p = "
        f"{chances[name]:.1g}). They are {apart:.3f} apart in total variation.",
        Score(apart, "total variation shown", "measured"),
    )


def _evidence(shown: Mapping[str, Any]) -> TwoTiers:
    """Two models as a learner describes them.

    Raises:
        ValueError: they are no distributions, or too much is asked for.
    """
    p, q = (np.asarray(shown[name], dtype=np.float64) for name in "pq")
    for name, part in (("p", p), ("q", q)):
        if part.ndim != 1 or len(part) < 2 or (part <= 0).any() or abs(part.sum() - 1) > 1e-6:
            raise ValueError(f"{name} should be two or more chances above 0 that add up to 1")
    if len(p) != len(q):
        raise ValueError(f"p has {len(p)} tokens and q has {len(q)}")
    for name in ("n", "gamma"):
        if not isinstance(shown[name], int) or not 1 <= shown[name] <= 8:
            raise ValueError(f"{name} should be a whole number from 1 to 8")
    if len(p) ** shown["n"] > _MOST_TEXTS:
        raise ValueError(f"there are {len(p)} ** {shown['n']} texts; use at most {_MOST_TEXTS}")
    return TwoTiers.memoryless(p.tolist(), q.tolist())


def _greedy_complaint(
    decode: Decode, two: TwoTiers, prompt: list[int], plain: tuple[int, ...]
) -> str:
    """What is wrong with a loop's tokens at temperature 0; empty where nothing is."""
    rng = np.random.default_rng(0)
    gave = call(decode, two.draft, two.target, list(prompt), len(plain), GAMMA, rng)
    if gave is None:
        raise StillOpen
    try:
        found = tuple(int(token) for token in gave)
    except (TypeError, ValueError):
        return f"it returned {short(gave)}; the new tokens are asked for"
    if len(found) != len(plain):
        return f"asked for {len(plain)} tokens after the prompt, it returned {len(found)}"
    if not two.drafts:
        return "it never asks the draft"
    for place, (one, right) in enumerate(zip(found, plain, strict=True)):
        if one != right:
            return (
                f"at temperature 0, gamma {GAMMA}, token {place} is {one}; plain decoding's is "
                f"{right}"
            )
    return ""


def _distribution_told(decode: Decode, two: TwoTiers, n: int) -> str:
    """How a loop's drawn texts differ from the target's; empty where they do not."""
    expected = texts_expected(two, n)
    seen = texts_seen(decode, two, n, 2, SAMPLES)
    if any(len(text) != n for text in seen):
        return f"asked for {n} tokens, it sometimes returned another number"
    chance = chi_square(seen, expected)
    if chance > SURE:
        return ""
    return (
        f"drawn texts are not distributed as the target's: {_worst(seen, expected)} (gamma 2, "
        f"chi-square: p = {chance:.1g})"
    )


def _worst(seen: Counter[Text], expected: Mapping[Text, float]) -> str:
    """The text that came most out of line, with both counts."""
    total = sum(seen.values())
    text = max(expected, key=lambda one: abs(seen[one] - total * expected[one]))
    return f"{list(text)} came {seen[text]} times, where {total * expected[text]:.0f} are due"


def _apart(seen: Counter[Text], expected: Mapping[Text, float]) -> float:
    """Total variation between counts and chances."""
    total = sum(seen.values())
    return sum(abs(seen[one] / total - share) for one, share in expected.items()) / 2


def _prompts(pair: Pair) -> list[list[int]]:
    """A text that is easy to guess, and one that is not."""
    assert pair.tokenizer is not None
    document = documents.load_document("python-reference", pair.tokenizer, 48)
    return [encode_prompt(pair, _SUMS), document]


@cache
def _words_of(pair: Pair) -> TwoTiers:
    """The pair itself at temperature 1, over the likeliest words after a document."""
    return TwoTiers.of_words(pair, _prompts(pair)[1], words=5)


@cache
def _plain(pair: Pair, prompt: tuple[int, ...]) -> tuple[int, ...]:
    """What the engine's plain decoding says, greedily."""
    run = generate(
        pair, list(prompt), method="autoregressive", new_tokens=TOKENS,
        policy=KVPolicy(bits="full", on_chip=pair.layers), link="off",
        sampling=Sampling(temperature=0, stop_at_eos=False),
    )  # fmt: skip
    return run.tokens
