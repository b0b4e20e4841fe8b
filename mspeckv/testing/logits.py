"""The logits of a run, bit for bit: what tier 2 said before each token that it let stand."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial

import torch

from mspeckv.api import engine_of
from mspeckv.decoding.fits import check_run
from mspeckv.decoding.sampling import Sampler
from mspeckv.decoding.tiers import build_tiers
from mspeckv.kv.link import open_link
from mspeckv.models.pair import Pair
from mspeckv.record import Ledger, Recorder, clock_of
from mspeckv.settings import RunConfig


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
        # as whole numbers: a zero has two signs, and what is no number equals nothing
        one, two = (each.logits[:count].view(_BITS[each.logits.itemsize]) for each in (self, other))
        found = (one != two).any(1).nonzero()
        return int(found[0]) if len(found) else None


_BITS = {2: torch.int16, 4: torch.int32, 8: torch.int64}


def decoded(pair: Pair, prompt: list[int], config: RunConfig) -> Decoded:
    """Decode as `mspeckv.generate` does, over a link that is not slowed, and keep tier 2's logits.

    Args:
        pair: models, from `mspeckv.load_pair`.
        prompt: at least two token ids.
        config: the run's settings; nothing ends the text early.

    Raises:
        ValueError: a setting that is not allowed.
    """
    engine, sampler = engine_of(pair), Sampler(config.sampling)
    check_run(engine, pair, config, len(prompt))
    recorder, text = Recorder(Ledger(clock_of(pair.device))), list(prompt)
    end, rows, rounds = len(prompt) + config.new_tokens, list[torch.Tensor](), list[int]()
    link_of = partial(open_link, recorder.ledger, None, pair.device)
    with link_of() as link, ExitStack() as lent, torch.inference_mode():
        tiers = build_tiers(engine, config, pair, prompt, link, recorder, sampler, lent=lent)
        for reader in tiers.prefilled:
            reader.prefill(prompt[:-1])
        link.drain()
        top = tiers.prefilled[-1]
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
            recorder.take()
        link.drain()
    return Decoded(tuple(text[len(prompt) :]), torch.cat(rows), tuple(rounds))
