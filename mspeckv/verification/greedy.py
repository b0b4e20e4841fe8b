"""Greedy text: is it plain decoding's, token for token, and is a difference a near-tie."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from mspeckv.settings import Sampling
from mspeckv.verification.asking import Asking
from mspeckv.verification.engine import Engine
from mspeckv.verification.findings import Finding

GREEDY = Sampling(0.0, 1.0, stop_at_eos=False)
ROUNDING = 8.0
"""A logit is known to so many steps of the dtype, at the size of the largest one."""


def gap(
    engine: Engine, prompt: list[int], text: list[int], one: int, other: int
) -> tuple[float, float] | None:
    """How far plain decoding's logit of ``one`` is above that of ``other``, and the rounding."""
    logits = engine.logits(prompt, text)
    if logits is None or max(one, other) >= len(logits):
        return None
    rounding = ROUNDING * torch.finfo(engine.dtype).eps * float(logits.abs().max())
    return float(logits[one] - logits[other]), rounding


def judge_greedy(
    engine: Engine, against: Engine, ask: Asking, documents: Mapping[str, list[int]], n: int
) -> list[Finding]:
    """A finding for each document."""
    return [_judged(engine, against, ask, *one, n) for one in documents.items()]


def _judged(
    engine: Engine, against: Engine, ask: Asking, name: str, prompt: list[int], n: int
) -> Finding:
    check = f"greedy: {name}, {len(prompt)} tokens"
    right = list(ask(against, prompt, GREEDY, n).tokens)
    found = list(ask(engine, prompt, GREEDY, n).tokens)
    # the planted fault is one token of the text, replaced by the runner-up
    middle = len(right) // 2
    logits = against.logits(prompt, right[:middle])
    caught, control = True, "another token in the middle"
    if logits is not None and right:
        runner_up = int(logits.topk(2).indices[1])
        told = gap(against, prompt, right[:middle], right[middle], runner_up)
        caught = told is not None and told[0] > told[1]
        control = f"the runner-up as token {middle}"
    if found == right:
        words = f"{len(right)} tokens are plain decoding's"
        return Finding.of(check, False, words, caught and bool(right), control, equal=len(right))
    at = next(
        (i for i, both in enumerate(zip(found, right, strict=False)) if both[0] != both[1]),
        min(len(found), len(right)),
    )
    if at >= min(len(found), len(right)):
        words = f"{len(found)} tokens, plain decoding's are {len(right)}"
        return Finding.of(check, True, words, caught, control, equal=at)
    words = f"token {at} is {found[at]}, plain decoding's is {right[at]}"
    apart = gap(against, prompt, right[:at], right[at], found[at])
    if apart is None:
        words += "; no logits to say whether that is a near-tie"
        return Finding(check, "not enough samples", words, "", {"equal": at})
    words += f": logits {apart[0]:.3g} apart, rounding {apart[1]:.2g}"
    near = apart[0] <= apart[1]
    words += ", a near-tie; what comes after is not compared" if near else ", no near-tie"
    return Finding.of(check, not near, words, caught, control, equal=at, gap=apart[0])
