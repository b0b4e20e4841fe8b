"""Three ways to settle a round's guesses. All read well; one of them changes the text.

Each is given the guessed tokens, the target's distributions ``ps`` at each of them and after the
last, and the draft's ``qs`` that they were drawn from; and returns what the round settles.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from mspeckv_widgets.course.two_tiers import Decode, Draft, Floats, Target

Settle = Callable[[list[int], Sequence[Floats], Sequence[Floats], np.random.Generator], list[int]]


def amber(
    guesses: list[int], ps: Sequence[Floats], qs: Sequence[Floats], rng: np.random.Generator
) -> list[int]:
    """Settle a round."""
    kept: list[int] = []
    for x, p, q in zip(guesses, ps, qs, strict=False):
        if rng.random() < p[x] / q[x]:
            kept.append(x)
            continue
        while True:
            y = int(rng.choice(len(p), p=p))
            if rng.random() * p[y] < p[y] - q[y]:
                return [*kept, y]
    return [*kept, int(rng.choice(len(ps[-1]), p=ps[-1]))]


def blue(
    guesses: list[int], ps: Sequence[Floats], qs: Sequence[Floats], rng: np.random.Generator
) -> list[int]:
    """Settle a round."""
    u = rng.random()
    for place, x in enumerate(guesses):
        p, q = ps[place], qs[place]
        if u * q[x] >= p[x]:
            left = (p - q).clip(min=0)
            return [*guesses[:place], int(rng.choice(len(p), p=left / left.sum()))]
    return [*guesses, int(rng.choice(len(ps[-1]), p=ps[-1]))]


def coral(
    guesses: list[int], ps: Sequence[Floats], qs: Sequence[Floats], rng: np.random.Generator
) -> list[int]:
    """Settle a round."""
    chances = [min(1.0, p[x] / q[x]) for x, p, q in zip(guesses, ps, qs, strict=False)]
    right = [rng.random() < chance for chance in chances]
    place = right.index(False) if False in right else len(right)
    left = ps[place]
    if place < len(qs):
        left = (left - np.minimum(left, qs[place])) / (1 - np.minimum(left, qs[place]).sum())
    return [*guesses[:place], int(rng.choice(len(left), p=left))]


SUSPECTS: dict[str, Settle] = {"amber": amber, "blue": blue, "coral": coral}


def loop_of(settle: Settle) -> Decode:
    """A whole loop around a way to settle a round."""

    def decode(
        draft: Draft, target: Target, prompt: list[int], n: int, gamma: int,
        rng: np.random.Generator,
    ) -> list[int]:  # fmt: skip
        tokens = list(prompt)
        while len(tokens) < len(prompt) + n:
            guesses: list[int] = []
            qs: list[Floats] = []
            for _ in range(gamma):
                qs.append(draft(tokens + guesses))
                guesses.append(int(rng.choice(len(qs[-1]), p=qs[-1])))
            ps = target(tokens + guesses, gamma + 1)
            tokens += settle(guesses, list(ps), qs, rng)
        return tokens[len(prompt) :][:n]

    return decode
