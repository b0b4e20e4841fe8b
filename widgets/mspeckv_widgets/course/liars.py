"""Small engines that are honest, or wrong in one way each, over tables instead of models."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from random import Random

import torch

from mspeckv.settings import Sampling
from mspeckv_study.verification import Engine, NotOffered, Said

VOCAB, GAMMA = 6, 2
TOKENS = range(VOCAB)


def _shares(weights: Sequence[float]) -> list[float]:
    return [weight / sum(weights) for weight in weights]


def _table(seed: int) -> list[list[float]]:
    rng = Random(seed)
    return [_shares([rng.expovariate(1) + 0.02 for _ in TOKENS]) for _ in TOKENS]


P, Q = _table(46156), _table(2)


@cache
def target(last: int, *, greedy: bool, coarse: bool, penalty: float) -> list[float]:
    """What comes after a token, by the target."""
    p = P[last]
    if coarse:
        p = _shares([math.exp(round(math.log(share))) for share in p])
    if penalty != 1:
        # as if the likeliest had come before
        p = _shares([share ** (4 * penalty if share == max(p) else 1) for share in p])
    return _greedy(p) if greedy else p


def _greedy(p: list[float]) -> list[float]:
    return [float(share == max(p)) for share in p]


class Tables(Engine):
    """Speculative decoding of a target whose next token depends on the last one alone.

    Args:
        way: "plain", "honest", or a planted fault's name; of promises: "deaf" ignores ends and
            penalties, "late" says one token more, "one seed" ignores seeds, "off"
            tells the logprobs of the place before and mixes rows up, "loops" repeats itself in
            every other text that is sampled, "slip" says one wrong token.
        tells: whether it says which guesses were kept.
        chances: whether it can be asked for logits.
    """

    def __init__(self, way: str = "honest", *, tells: bool = True, chances: bool = True) -> None:
        self.name, self.way, self.tells, self.chances = way, way, tells, chances
        self.asked = 0

    def logits(self, prompt: list[int], text: Sequence[int]) -> torch.Tensor | None:
        """As of `Engine`."""
        return torch.tensor(P[[*prompt, *text][-1]]).log() if self.chances else None

    def draft_logits(self, prompt: list[int], text: Sequence[int]) -> torch.Tensor | None:
        """As of `Engine`."""
        return torch.tensor(Q[[*prompt, *text][-1]]).log() if self.chances else None

    def say(self, prompt: list[int], sampling: Sampling, n: int, logprobs: bool = False) -> Said:
        """As of `Engine`."""
        self.asked += 1
        rng = Random(1 if self.way == "one seed" else sampling.seed)
        loops = not sampling.greedy and sampling.seed % 2 == 1
        text, rounds, came = list[int](), list[int](), 2
        while len(text) < n:
            made, came = self._round([*prompt, *text][-1], sampling, rng, n - len(text), came)
            text += made
            rounds.append(len(made))
            if self.way == "loops" and len(text) > 8 and loops:
                text += text[-3:]
            over = [at for at, token in enumerate(text) if token in sampling.stop_tokens]
            if over and self.way != "deaf":
                text = [*text[: over[0] + 1], *([0] if self.way == "late" else [])]
                break
        text = text[:n]
        if self.way == "slip" and len(text) > 9:
            text[9] = (text[9] + 1) % VOCAB
        held: tuple[float, ...] = ()
        if logprobs:
            before = [prompt[-1], *text]
            held = tuple(math.log(P[a][b]) for a, b in zip(before, text, strict=False))
            held = (*held[1:], held[0]) if self.way == "off" else held
        told = self.tells and self.way != "plain"
        return Said(tuple(text), tuple(rounds) if told else (), held)

    def rows(self, prompt: list[int], sampling: Sampling, n: int, count: int) -> list[Said]:
        """As of `Engine`."""
        if self.way == "plain":
            raise NotOffered
        return [self.say([1] if self.way == "off" else prompt, sampling, n)] * count

    def _round(
        self, last: int, sampling: Sampling, rng: Random, most: int, came: int
    ) -> tuple[list[int], int]:
        """A round's tokens, and what came last: 0 a kept guess, 1 a rejection."""
        greedy, made = sampling.greedy, list[int]()
        penalty = 1.0 if self.way == "deaf" else sampling.repetition_penalty
        after = {"scale": 1, "kept": 0}.get(self.way)
        for _ in range(0 if self.way == "plain" else min(GAMMA, most - 1)):
            p = target(last, greedy=greedy, coarse=after == came, penalty=penalty)
            q = _greedy(Q[last]) if greedy else Q[last]
            (guess,) = rng.choices(TOKENS, q)
            ratio = p[guess] / q[guess]
            if self.way == "unscaled":
                ratio = p[guess]
            if self.way == "mixture":
                ratio = 0.5 + 0.5 * ratio
            if rng.random() >= ratio:
                left = [max(one - other, 0) for one, other in zip(p, q, strict=True)]
                left = p if self.way == "resample" or not any(left) else left
                return [*made, *rng.choices(TOKENS, left)], 1
            made.append(guess)
            last, came = guess, 0
        p = target(last, greedy=greedy, coarse=after == came, penalty=penalty)
        return [*made, *rng.choices(TOKENS, p)], 1


HONEST, PLAIN, SLIP = Tables(), Tables("plain"), Tables("slip")
"""Three of them, to be named on a command line."""
