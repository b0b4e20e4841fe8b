"""Planted faults: what engines get wrong, as exact distributions over who settled which token.

A fault takes the target's p and the draft's q ``[V]`` and gives ``[2, V]``: the chance that each
token comes as a guess that was kept, and as one drawn after a rejection.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

Rule = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
WEIGHT = 0.5
"""The target's share in the lossy mixture, as of transformers' ``assistant_ensemble_weight``."""
STEP = 1.0
"""What is left of logits whose KV was stored with a scale that a rejected outlier stretched: whole
steps of this size. A stand-in (modelled): how coarse a real one is depends on the outlier."""


def _settled(p: torch.Tensor, q: torch.Tensor, ratio: torch.Tensor) -> torch.Tensor:
    """Guesses kept with chance ``ratio``, and what the residual gives for the others."""
    kept = q * ratio.clamp(max=1)
    left = (p - q).clamp(min=0)
    left = left / left.sum() if float(left.sum()) > 0 else p
    return torch.stack([kept, (1 - kept.sum()).clamp(min=0) * left])


def honest(p: torch.Tensor, q: torch.Tensor) -> torch.Tensor:
    """The rule itself (Leviathan et al., arXiv 2211.17192, algorithm 1)."""
    return _settled(p, q, p / q.clamp(min=1e-300))


def resample(p: torch.Tensor, q: torch.Tensor) -> torch.Tensor:
    """After a rejection the token is drawn from p instead of the residual."""
    kept = torch.minimum(p, q)
    return torch.stack([kept, (1 - kept.sum()).clamp(min=0) * p])


def unscaled(p: torch.Tensor, q: torch.Tensor) -> torch.Tensor:
    """A guess is kept with chance p, the draft's q left out."""
    return _settled(p, q, p)


def mixture(p: torch.Tensor, q: torch.Tensor) -> torch.Tensor:
    """Guesses are tested against a mixture of p and q (arXiv 2604.07622)."""
    return _settled(p, q, 1 - WEIGHT + WEIGHT * p / q.clamp(min=1e-300))


def coarse(p: torch.Tensor) -> torch.Tensor:
    """The distribution of logits that were rounded to whole steps."""
    return ((p.log() / STEP).round() * STEP).softmax(-1)


FAULTS: dict[str, tuple[str, Rule, int | None]] = {
    "resample": ("redraws from p after a rejection", resample, None),
    "unscaled": ("leaves the draft's q out of the test", unscaled, None),
    "mixture": (f"tests against {WEIGHT:g} p + {1 - WEIGHT:g} q", mixture, None),
    "scale": ("keeps a scale of a rejected token", honest, 1),
    "kept": ("stores the KV of a kept guess coarsely", honest, 0),
}
"""By name: what the engine does, its rule, and after what the target is coarse: 0 is a kept guess,
1 a rejection, None nothing."""


def stand_in(p: torch.Tensor) -> torch.Tensor:
    """A draft for who has none to ask: right half of the time, else one rank off."""
    order = p.argsort(descending=True)
    q = torch.empty_like(p)
    q[order] = (p[order] + p[order].roll(1)) / 2
    return q
