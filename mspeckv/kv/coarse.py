"""Tier 1 over the whole context, from the upper int4 planes (see `mspeckv.kv.nibble`)."""

from __future__ import annotations

from typing import Any

import torch
from transformers.cache_utils import Cache

from mspeckv.kv.blocks import BlockLayer
from mspeckv.kv.cache import FullCache
from mspeckv.kv.layers import KV, Buffer, FloatLayer, PlacedLayer


class CoarseLayer(PlacedLayer):
    """A coarser look at one layer of tier 2's cache.

    Guessed tokens are written where tier 2 will write them too, behind everything settled, so a
    verification replaces them by its own and nothing is stored twice.
    """

    def __init__(self, base: FloatLayer | BlockLayer) -> None:
        super().__init__()
        self.base = base

    @property
    def filled(self) -> int:
        """Tokens seen: tier 2's, and guesses beyond them."""
        return max(self.length, self.base.length)

    @property
    def brings(self) -> bool:  # type: ignore[override]  # a fixed answer for other layers
        """Whether packed blocks must be decoded first."""
        return self.base.brings

    @property
    def view(self) -> Buffer:
        """Tier 2's own."""
        return self.base.view

    @property
    def tail_start(self) -> int:
        """Tier 2's own."""
        return self.base.tail_start

    def bring(self, length: int, coarse: bool = True) -> None:
        """Have `view` hold the first ``length`` tokens, from upper nibbles alone."""
        self.base.bring(length, coarse=True)

    def write_at(
        self, slots: torch.Tensor, tail: torch.Tensor, key: torch.Tensor, value: torch.Tensor
    ) -> None:
        """Put guesses where tier 2 will write them too."""
        self.base.write_at(slots, tail, key, value)

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> KV:
        """Append and return everything, packed blocks from their upper nibbles alone."""
        start = self.filled
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

    def restart(self) -> None:
        """Forget every guess."""
        for layer in self.layers:
            layer.restart()

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
