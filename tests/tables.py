"""Tables as models: next-token logits that depend on the last two tokens."""

from __future__ import annotations

import torch

from mspeckv.decoding.levels import Autoregress, Level, Speculate
from mspeckv.decoding.recorder import Recorder
from mspeckv.decoding.sampling import Sampler
from mspeckv.kv.ledger import Ledger

VOCAB = 4


class TableReader:
    """A 'model' with random logits for every pair of last tokens; stands in for `ModelReader`."""

    def __init__(self, tier: int, seed: int) -> None:
        self.tier = tier
        generator = torch.Generator().manual_seed(seed)
        shape = VOCAB, VOCAB, VOCAB
        self.logits = torch.randn(shape, generator=generator, dtype=torch.float64) * 1.5

    def read(self, tokens: list[int], rows: int) -> torch.Tensor:
        """Logits after each of the last ``rows`` tokens."""
        before = [0, *tokens]
        places = range(len(tokens) - rows, len(tokens))
        return torch.stack([self.logits[before[at], tokens[at]] for at in places])

    def room(self, length: int) -> int:
        """A table has no blocks."""
        return 1000

    def settle(self, length: int) -> None:
        """A table remembers nothing."""


def nest(
    depth: int, sampler: Sampler, gammas: tuple[int, ...] = (2, 3), seed: int = 0
) -> tuple[Level, TableReader]:
    """``depth`` tables over one another, and the topmost of them."""
    readers = [TableReader(tier, seed=10 * seed + tier) for tier in range(depth)]
    recorder = Recorder(Ledger())
    level: Level = Autoregress(readers[0], sampler)
    for reader, gamma in zip(readers[1:], gammas, strict=False):
        level = Speculate(level, reader, gamma, sampler, recorder)
    return level, readers[-1]


def emit(level: Level, count: int) -> tuple[int, ...]:
    """``count`` tokens after the prompt ``[0]``, by as many rounds as it takes."""
    tokens = [0]
    while len(tokens) <= count:
        tokens += level.round(tokens, count + 1 - len(tokens)).tokens
    return tuple(tokens[1:])
