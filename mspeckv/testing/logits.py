"""The logits of a run, bit for bit: what tier 2 said before each token that it let stand."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from mspeckv.api import engine_of
from mspeckv.decoding.fits import check_run
from mspeckv.models.pair import Pair
from mspeckv.settings import RunConfig
from mspeckv.testing.exactness import prefilled


@dataclass(frozen=True)
class Decoded:
    """A text, and why.

    Attributes:
        tokens: token ids.
        logits: ``[tokens, V]`` in the model's dtype, on the host: tier 2's, before each of them.
        rounds: tokens of each round.
    """

    tokens: tuple[int, ...]
    logits: torch.Tensor
    rounds: tuple[int, ...]

    def differs_at(self, other: Decoded) -> int | None:
        """Place of the first token whose logits are other bits; None where there is none."""
        count = min(len(self.tokens), len(other.tokens))
        # as bytes: a zero has two signs, and what is no number equals nothing
        one, two = (each.logits[:count].view(torch.uint8) for each in (self, other))
        found = (one != two).any(1).nonzero()
        return int(found[0]) if len(found) else None


def decoded(pair: Pair, prompt: list[int], config: RunConfig) -> Decoded:
    """Decode as `mspeckv.generate` does, over a link that is not slowed, and keep tier 2's logits.

    Args:
        prompt: at least two token ids.
        config: the run's settings; nothing ends the text early.

    Raises:
        ValueError: a setting that is not allowed.
    """
    check_run(engine_of(pair), pair, config, len(prompt))
    text, end = list(prompt), len(prompt) + config.new_tokens
    rows, rounds = list[torch.Tensor](), list[int]()
    with prefilled(pair, prompt, config) as tiers:
        top, link = tiers.prefilled[-1], tiers.full.pipeline.link
        read, seen = top.read, list[torch.Tensor]()

        def noted(tokens: list[int], rows: int) -> torch.Tensor:
            logits = read(tokens, rows)
            seen.append(logits.cpu())
            return logits

        top.read = noted  # type: ignore[method-assign]  # of this reader alone
        while len(text) < end:
            tiers.full.begin_pass()
            made = tiers.root.round(text, end - len(text)).tokens
            rows.append(seen.pop()[: len(made)].clone())
            text += made
            rounds.append(len(made))
            link.collect()
            top.recorder.take()
        link.drain()
    return Decoded(tuple(text[len(prompt) :]), torch.cat(rows), tuple(rounds))
