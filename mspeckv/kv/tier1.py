"""What tier 1 may read: a cache of its own, made by the name of `Speculation.tier1`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from mspeckv.context import Shown
from mspeckv.kv.door import Door
from mspeckv.kv.layers import UNBOUNDED, Tier
from mspeckv.kv.shape import KVShape
from mspeckv.settings import Speculation


@dataclass(frozen=True)
class Tier1Room:
    """What a tier-1 cache is to hold.

    Attributes:
        shape: the target's.
        prompt: prompt tokens that tier 2 will have read.
        grown: most generated tokens, guesses included.
    """

    shape: KVShape
    speculation: Speculation
    prompt: int
    grown: int


class Tier1Cache(Tier):
    """A cache that tier 1 reads, and that stands for the same tokens as tier 2's.

    Attributes:
        looks_on: whether tier 2's passes are shown to it (`watch`), layer by layer.
        query_window: of a prompt's queries, how many of the last `watch` looks at. It must not ask
            for more: a prompt that was kept is shown with these alone.
        asks_host: whether it then looks at values on the host: such passes cannot be recorded.
    """

    looks_on = asks_host = False
    query_window = UNBOUNDED

    @classmethod
    def sizes(cls, room: Tier1Room) -> tuple[int, int]:
        """Bytes that it allocates on the device and on the host, known before it does."""
        raise NotImplementedError

    @property
    def bytes(self) -> int:
        """Bytes allocated on the device."""
        raise NotImplementedError

    def watch(self, layer: int, query: torch.Tensor, shown: Shown) -> None:
        """See one layer of a tier-2 pass.

        Args:
            query: ``[1, Hq, Q, D]`` of the pass's tokens; see ``query_window``.
            shown: every token so far.
        """


tier1_caches: Door[Any] = Door("tier1")
"""Classes of `Tier1Cache`, called for a run as ``tier1(room, full, device)``."""
