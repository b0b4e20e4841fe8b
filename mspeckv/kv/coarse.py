"""Tier 1 over the whole context, from the upper int4 planes (see `mspeckv.kv.nibble`)."""

from __future__ import annotations

from typing import Any

import torch
from transformers.cache_utils import Cache

from mspeckv.kv.cache import FullCache
from mspeckv.kv.layers import KV, BlockLayer, FloatLayer, PlacedLayer


class CoarseLayer(PlacedLayer):
    """A coarser look at one layer of tier 2's cache.

    Guessed tokens are written where tier 2 will write them too, behind everything settled, so a
    verification replaces them by its own and nothing is stored twice.
    """

    def __init__(self, base: FloatLayer | BlockLayer) -> None:
        super().__init__()
        self.base = base

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> KV:
        """Append and return everything, packed blocks from their upper nibbles alone."""
        start = max(self.length, self.base.length)
        self.base.put(start, key_states, value_states)
        self.length = start + key_states.shape[2]
        return self.base.show(self.length, coarse=True)


class CoarseCache(Cache):  # type: ignore[misc]  # transformers is not typed here
    """Tier 1's cache in nibble mode: no KV of its own, nothing over the link.

    Args:
        full: tier 2's cache, with a nibble policy.
    """

    def __init__(self, full: FullCache) -> None:
        self.full = full
        super().__init__(layers=[CoarseLayer(layer) for layer in full.layers])

    @property
    def length(self) -> int:
        """Tokens seen: tier 2's, and guesses beyond them."""
        return max(int(self.layers[0].length), self.full.length)

    def settle(self, length: int) -> None:
        """Forget guesses from ``length`` on; tokens that tier 2 has read count as read."""
        length = min(length, self.length)
        for layer in self.layers:
            layer.settle(length)

    def read_bytes(self) -> int:
        """Bytes of stored KV that one pass reads."""
        token, length = self.full.shape.token_bytes, self.length
        total = 0
        for layer in self.full.layers:
            if isinstance(layer, BlockLayer):
                total += layer.coarse_bytes + (length - layer.packed_tokens) * token
            else:
                total += length * token
        return total

    @property
    def bytes(self) -> int:
        """Bytes allocated beyond tier 2's own."""
        return 0
