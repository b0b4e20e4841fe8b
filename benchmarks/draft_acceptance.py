"""Where the shipped draft's guesses are lost: how sure the target is, what it repeats, how likely.

    python -m benchmarks.draft_acceptance

Acceptance is that of the draft's model card: ``sum_v min(p(v), q(v))`` at T = 1, over windows of
Python's language reference, which training never read. What is lost is the rest to 1, which is
``sum_v max(p(v) - q(v), 0)``. A position repeats where the target's likeliest token came after the
same token before, within the window.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from benchmarks.report import machine, table
from mspeckv import Pair, load_pair
from tools.distil.corpus import held_out_tokens
from tools.distil.settings import Distillation

WINDOWS = Distillation(measure_windows=64, window=512)
BITS = (0.5, 1.0, 2.0, 4.0)
"""Edges of the target's entropy."""
RANKS = (1, 10, 100)
"""Last ranks of tokens, the target's likeliest being 1."""


@dataclass(frozen=True)
class Judged:
    """By position of some windows.

    Attributes:
        kept: ``[n]``: the chance that the draft's guess is kept.
        entropy: ``[n]``: the target's, in bits.
        repeats: ``[n]``: whether the target's likeliest token repeats.
        lost: ``[n, len(RANKS) + 1]``: what is lost, by rank of the token.
    """

    kept: torch.Tensor
    entropy: torch.Tensor
    repeats: torch.Tensor
    lost: torch.Tensor


def main(given: Sequence[str] | None = None) -> None:
    """Measure, and print both tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--windows", type=int, default=WINDOWS.measure_windows)
    parser.add_argument("--weights", default="int4", help="of the target")
    options = parser.parse_args(given)
    pair = load_pair(weights=options.weights)
    assert pair.tokenizer is not None
    chosen = replace(WINDOWS, measure_windows=options.windows)
    found = judge(pair, held_out_tokens(pair.tokenizer, chosen))
    print(f"{machine(torch.device('cpu'))}, target in {options.weights}\n")
    print(f"{chosen.measure_windows} windows of {chosen.window} tokens, T = 1 (measured)")
    print(table(("positions", "share", "acceptance", "lost"), by_position(found)), end="\n\n")
    print("What is lost, by the token's rank in the target's distribution (measured)")
    print(table(("tokens", "lost"), by_rank(found)))


@torch.inference_mode()
def judge(pair: Pair, windows: torch.Tensor) -> Judged:
    """The draft's guesses at every position of every window ``[n, S]``."""
    draft = pair.draft
    assert draft is not None
    parts: list[tuple[torch.Tensor, ...]] = []
    for window in windows:
        p, q = (
            model(input_ids=window[None]).logits[0].float().softmax(-1)
            for model in (pair.target, draft)
        )
        ordered, order = p.sort(descending=True)
        missing = (ordered - q.gather(1, order)).clamp_min(0)
        ends = torch.tensor((*RANKS, p.shape[-1]))
        lost = missing.cumsum(-1)[:, ends - 1].diff(dim=-1, prepend=torch.zeros(len(p), 1))
        entropy = -(p * p.clamp_min(1e-30).log2()).sum(-1)
        parts.append((torch.minimum(p, q).sum(-1), entropy, repeated(window, order[:, 0]), lost))
    return Judged(*(torch.cat(part) for part in zip(*parts, strict=True)))


def repeated(window: torch.Tensor, likeliest: torch.Tensor) -> torch.Tensor:
    """Whether ``likeliest[i]`` came right after a token like ``window[i]`` before place i."""
    followed: set[tuple[int, int]] = set()
    found, tokens = [], window.tolist()
    for place, both in enumerate(zip(tokens, likeliest.tolist(), strict=True)):
        if place:
            followed.add((tokens[place - 1], tokens[place]))
        found.append(both in followed)
    return torch.tensor(found)


def by_position(found: Judged) -> list[tuple[str, str, float, str]]:
    """All positions; those that repeat or do not; those of each entropy."""
    bins = torch.bucketize(found.entropy, torch.tensor(BITS))
    masks = {
        "all": torch.ones_like(found.repeats),
        "the target repeats": found.repeats,
        "it does not": ~found.repeats,
    }
    for at, low in enumerate((0.0, *BITS)):
        end = f"to {BITS[at]:g}" if at < len(BITS) else "and more"
        masks[f"entropy {low:g} {end} bits"] = bins == at
    lost = 1 - found.kept
    return [
        (name, f"{mask.float().mean():.0%}", float(found.kept[mask].mean()),
         f"{lost[mask].sum() / lost.sum():.0%}")
        for name, mask in masks.items()
    ]  # fmt: skip


def by_rank(found: Judged) -> list[tuple[str, str]]:
    """Shares of what is lost."""
    first = (1, *(rank + 1 for rank in RANKS))
    names = [f"{low} to {high}" for low, high in zip(first, RANKS, strict=False)]
    lost = found.lost.sum(0)
    return [
        (name, f"{share:.0%}")
        for name, share in zip((*names, "further"), lost / lost.sum(), strict=True)
    ]


if __name__ == "__main__":
    main()
