"""Long context: does sampled text repeat itself more, vary less or end sooner than plain's."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import torch

from mspeckv_study.verification.asking import Asking, TimeUp
from mspeckv_study.verification.findings import Finding
from mspeckv_study.verification.trial import Trial

GRAM, SHUFFLES = 3, 20_000
LOOP = 4
"""Tokens that a planted loop repeats."""


def repeated(text: Sequence[int]) -> float:
    """Share of a text's three-token pieces that came in it before."""
    pieces = list(zip(*(text[at:] for at in range(GRAM)), strict=False))
    return 1 - len(set(pieces)) / len(pieces) if pieces else 0.0


def entropy(text: Sequence[int]) -> float:
    """Bits per token of a text's own token counts."""
    shares = [count / len(text) for count in Counter(text).values()]
    return -sum(share * math.log2(share) for share in shares)


def looped(text: Sequence[int]) -> tuple[int, ...]:
    """The planted fault: from its middle on, a text repeats its last few tokens."""
    head = list(text[: max(LOOP, len(text) // 2)])
    while len(head) < len(text):
        head.append(head[-LOOP])
    return tuple(head)


def shuffled_p(one: Sequence[float], other: Sequence[float], both_sides: bool) -> float:
    """Chance of means as far apart, were it chance who is in which group (a permutation test)."""
    values = torch.tensor([*one, *other], dtype=torch.float64)
    generator = torch.Generator().manual_seed(0)
    order = torch.rand(SHUFFLES, len(values), generator=generator).argsort(1)
    means = values[order[:, : len(one)]].mean(1) - values.mean()
    seen = values[: len(one)].mean() - values.mean()
    slack = 1e-12
    hits = (means.abs() >= seen.abs() - slack) if both_sides else (means >= seen - slack)
    return (1 + int(hits.sum())) / (1 + SHUFFLES)


def judge_long_texts(ask: Asking, prompt: list[int], trial: Trial) -> list[Finding]:
    """Texts of both, by three measures; planted: half of the engine's own go wrong."""
    ours, plain = list[tuple[int, ...]](), list[tuple[int, ...]]()
    rate, n = trial.alpha / 3, trial.new_tokens
    try:
        for number in range(trial.texts):
            drawn = replace(trial.sampling, seed=3 * 10**8 + number, stop_at_eos=True)
            other = replace(drawn, seed=drawn.seed + 10**6)
            plain.append(ask(ask.against, prompt, other, n).tokens)
            ours.append(ask(ask.engine, prompt, drawn, n).tokens)
    except TimeUp:
        # a p-value is for a number of texts that was settled before
        told = f"time was up after {len(ours)} of {trial.texts} texts"
        return [Finding("long texts", "not enough samples", told)]
    looping = [looped(text) if at % 2 else text for at, text in enumerate(ours)]
    halves = [len(text) / 2 if at % 2 else len(text) for at, text in enumerate(ours)]
    loops = f"half of {len(ours)} texts repeat their last {LOOP} tokens"
    found = []
    for name, measure, planted, control in (
        ("repetition", repeated, [repeated(text) for text in looping], loops),
        ("entropy", entropy, [entropy(text) for text in looping], loops),
        ("length", len, halves, "half of the texts end at their middle"),
    ):
        values, usual = ([measure(text) for text in side] for side in (ours, plain))
        sides = name != "repetition"
        p, p_planted = (shuffled_p(side, usual, sides) for side in (values, planted))
        mean, right = (sum(side) / len(side) for side in (values, usual))
        told = f"{mean:.3f}, plain decoding's {right:.3f} ({len(ours)} texts after "
        told += f"{len(prompt)} tokens; "
        if name == "length":
            told = f"{mean:.1f} of {n} tokens, plain decoding's {right:.1f} ("
        told += f"p = {p:.2g}, a fault below {rate:.2g})"
        check = f"long texts: {name}"
        found.append(Finding.of(check, p < rate, told, p_planted < rate, control, p=p))
    return found
