"""Tables as models: next-token logits that depend on the last two tokens."""

from __future__ import annotations

from functools import partial

import torch

from mspeckv.adaptive.estimates import Confidence
from mspeckv.adaptive.lookup import SHORTEST_CHOSEN, Lookup
from mspeckv.decoding.sampling import Sampler
from mspeckv.decoding.speculate import Autoregress, Chain, Level, Speculate
from mspeckv.record import Ledger, Recorder

VOCAB = 4
PROMPT = (3, 1, 2, 0, 3, 1)
"""Its end stood in it before, so that lookup has something to say."""


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
    depth: int, sampler: Sampler, gammas: tuple[int, ...] = (2, 3), leaf: str = "table"
) -> tuple[Level, TableReader]:
    """``depth`` tables over one another, and the topmost of them.

    Args:
        leaf: what guesses first: a ``table``, one that is ``unsure`` half of the time, one whose
            ``chain`` ends where all of it is hardly kept, or ``lookup``.
    """
    readers = [TableReader(tier, seed=tier) for tier in range(depth)]
    recorder = Recorder(Ledger())
    draft = Autoregress(readers[0], sampler, threshold=0.5 if leaf == "unsure" else 0.0)
    if leaf == "chain":
        draft.chain = Chain(partial(Confidence().kept, 1), 0.3)
    level: Level = draft
    if leaf == "lookup":
        level = Lookup(VOCAB, readers[0].logits, shortest=SHORTEST_CHOSEN)
    for reader, gamma in zip(readers[1:], gammas, strict=False):
        level = Speculate(level, reader, gamma, sampler, recorder)
    return level, readers[-1]


def emit(level: Level, count: int) -> tuple[int, ...]:
    """``count`` tokens after the prompt, by as many rounds as it takes."""
    tokens = list(PROMPT)
    level.settle(0)
    while (left := len(PROMPT) + count - len(tokens)) > 0:
        tokens += level.round(tokens, left).tokens
    return tuple(tokens[len(PROMPT) :])
