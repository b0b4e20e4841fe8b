"""Greedy text: is it plain decoding's, token for token, and is a difference a near-tie."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from mspeckv.decoding.sampling import Sampler
from mspeckv.settings import Sampling
from mspeckv_study.verification.asking import Asking
from mspeckv_study.verification.findings import Finding

GREEDY = Sampling(0.0, 1.0, stop_at_eos=False)
ROUNDING = 8.0
"""A logit is known to so many steps of the dtype, at the size of the largest one."""


@dataclass(frozen=True)
class Compared:
    """A greedy text beside plain decoding's.

    Attributes:
        equal: tokens before the first difference.
        faulty: whether that is more than a near-tie; None where nobody can say.
    """

    equal: int
    faulty: bool | None
    told: str


def rounding(logits: torch.Tensor, ask: Asking) -> float:
    """To how much the logits of both engines agree: that of the coarser dtype."""
    coarsest = max(torch.finfo(one.dtype).eps for one in (ask.engine, ask.against))
    return ROUNDING * coarsest * float(logits.abs().max())


def compared(
    ask: Asking, prompt: list[int], found: Sequence[int], right: Sequence[int],
    setting: Sampling = GREEDY,
) -> Compared:  # fmt: skip
    """Where ``found`` differs from plain decoding's ``right``, and whether that is a fault."""
    both = zip(found, right, strict=False)
    shorter = min(len(found), len(right))
    at = next((place for place, (one, other) in enumerate(both) if one != other), shorter)
    if len(found) == len(right) == at:
        return Compared(at, False, f"{at} tokens are plain decoding's")
    if at == shorter:
        return Compared(at, True, f"{len(found)} tokens, plain decoding's are {len(right)}")
    told = f"token {at} is {found[at]}, plain decoding's is {right[at]}"
    apart = _apart(ask, prompt, right[:at], right[at], found[at], setting)
    if apart is None:
        return Compared(at, None, f"{told}; no logits to say whether that is a near-tie")
    gap, allowed = apart
    told += f": logits {gap:.3g} apart, rounding {allowed:.2g}"
    if abs(gap) > allowed:
        return Compared(at, True, f"{told}, no near-tie")
    return Compared(at, False, f"{told}, a near-tie; what comes after is not compared")


def _apart(
    ask: Asking, prompt: list[int], text: Sequence[int], one: int, other: int,
    setting: Sampling = GREEDY,
) -> tuple[float, float] | None:  # fmt: skip
    """How far plain decoding's logit of ``one`` is above that of ``other``, and the rounding."""
    logits = ask.against.logits(prompt, text)
    if logits is None or max(one, other) >= len(logits):
        return None
    # of penalties too; what is the same for both falls out of the difference
    seen = Sampler(replace(setting, temperature=1.0))
    held = seen.distribution(logits[None].double(), [*prompt, *text])[0].log()
    return float(held[one] - held[other]), rounding(logits, ask)


def judge_greedy(ask: Asking, name: str, prompt: list[int], n: int) -> Finding:
    """Whether ``n`` tokens after a document are plain decoding's."""
    right = ask(ask.against, prompt, GREEDY, n).tokens
    seen = compared(ask, prompt, ask(ask.engine, prompt, GREEDY, n).tokens, right)
    # the planted fault is one token amid what was compared, replaced by the runner-up
    middle, caught = seen.equal // 2, seen.equal > 0
    logits = ask.against.logits(prompt, right[:middle]) if caught else None
    control = f"another token {middle}"
    if logits is not None:
        runner_up = int(logits.topk(2).indices[1])
        apart = _apart(ask, prompt, right[:middle], right[middle], runner_up)
        caught, control = apart is not None and apart[0] > apart[1], f"the runner-up as {control}"
    check = f"greedy: {name}, {len(prompt)} tokens"
    return Finding.of(check, seen.faulty, seen.told, caught, control, equal=seen.equal)
