"""Accepting and rejecting for a page: the engine's own test, traced, and rules that break it.

A rule says how much of each token is guessed *and* kept, and from what a rejected guess is drawn
anew; what comes out follows. The page draws its dice by these numbers alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from mspeckv.decoding.sampling import residual
from mspeckv_widgets.site.tracing import Tape, Trace, pack


@dataclass(frozen=True)
class Rule:
    """One way to test a guess.

    Attributes:
        name: as in a page's address.
        short: what it does, in a few words.
        words: what it does.
        why: what to see in it.
        kept: of p and q, the mass of each token that is guessed and kept.
        redrawn: of p and q, what a rejected guess is drawn from anew, up to normalisation.
    """

    name: str
    short: str
    words: str
    why: str
    kept: Callable[[Any, Any], Any]
    redrawn: Callable[[Any, Any], Any]


def _target(p: Any, q: Any) -> Any:
    return p


def _draft(p: Any, q: Any) -> Any:
    return q


RULES = (
    Rule(
        "fair", "the fair rule",
        "keep with chance min(1, p / q), else draw from what the draft gives too little of",
        "Whatever you draw, what comes out is p.",
        torch.minimum, residual,
    ),
    Rule(
        "from-p", "draw anew from p",
        "keep with the same chance, else draw from p itself",
        "Tokens that the draft likes come out too often: they had their chance to be kept "
        "already. The original project's inner test did this.",
        torch.minimum, _target,
    ),
    Rule(
        "from-q", "draw anew from q",
        "keep with the same chance, else draw from the draft again",
        "A rejected guess is replaced by the very one that may not stand there.",
        torch.minimum, _draft,
    ),
    Rule(
        "keep-all", "keep everything",
        "keep every guess",
        "Fast, and the draft alone writes the text.",
        _draft, residual,
    ),
    Rule(
        "as-likely", "keep with chance p",
        "keep with chance p, whatever q is, else draw from the same residual",
        "Looks careful, rejects far more, and is still wrong.",
        lambda p, q: p * q, residual,
    ),
)  # fmt: skip
PRESETS = {
    "four tokens": ([0.50, 0.30, 0.15, 0.05], [0.20, 0.40, 0.10, 0.30]),
    "a good draft": ([0.46, 0.27, 0.17, 0.10], [0.42, 0.30, 0.20, 0.08]),
    "sure of the wrong one": ([0.70, 0.10, 0.10, 0.10], [0.05, 0.85, 0.05, 0.05]),
    "alike": ([0.40, 0.30, 0.20, 0.10], [0.40, 0.30, 0.20, 0.10]),
}
"""Target and draft."""


def outcome(rule: Rule, p: Any, q: Any) -> dict[str, Any]:
    """What a rule comes to for distributions p and q ``[V]``.

    Returns:
        ``kept`` ``[V]``; ``redrawn`` ``[V]``, normalised; ``emitted`` ``[V]``, what comes out;
        ``chance`` that a guess is kept; ``distance`` of what comes out from p, in total variation.
    """
    kept, left = rule.kept(p, q), rule.redrawn(p, q)
    redrawn, chance = left / left.sum(), kept.sum()
    emitted = kept + (1 - chance) * redrawn
    return {
        "kept": kept, "redrawn": redrawn, "emitted": emitted, "chance": chance,
        "distance": distance(emitted, p),
    }  # fmt: skip


def distance(one: Any, other: Any) -> Any:
    """Total variation between two distributions."""
    return abs(one - other).sum() / 2


def page_data() -> dict[str, Any]:
    """Every rule, traced for any number of tokens; `distance` of counted shares too."""
    traces = {rule.name: _trace(partial(outcome, rule)) for rule in RULES}
    traces["distance"] = _trace(lambda p, q: {"distance": distance(p, q)})
    return {
        **pack(traces),
        "rules": [
            {"name": one.name, "short": one.short, "words": one.words, "why": one.why}
            for one in RULES
        ],
        "presets": PRESETS,
    }


def _trace(function: Callable[[Any, Any], dict[str, Any]]) -> Trace:
    tape = Tape()
    p, q = (tape.given(name, shape=(2,)) for name in ("p", "q"))
    return Trace.of(tape, function(p, q))
