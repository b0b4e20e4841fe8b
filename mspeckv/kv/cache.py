"""Tier 2's cache: the target's full KV, each layer where its placement says."""

from __future__ import annotations

import torch
from transformers.cache_utils import Cache

from mspeckv.config import KVPolicy
from mspeckv.kv.layers import (
    BlockLayer,
    Buffer,
    FloatLayer,
    OffloadedLayer,
    Pipeline,
    PlacedLayer,
    ResidentLayer,
    Store,
)
from mspeckv.kv.link import CopyEngine
from mspeckv.kv.plan import KVShape, packed_blocks, tail_tokens
from mspeckv.kv.quantize import BlockCodec


class FullCache(Cache):  # type: ignore[misc]  # transformers is not typed here
    """Full KV cache over on-chip, resident and offloaded layers.

    Args:
        shape: the target's KV shape.
        policy: widths and placement.
        capacity: most tokens the run can hold, guesses included.
        link: carries offloaded layers.
        device: where compute runs.

    Raises:
        ValueError: the policy does not fit the target.
    """

    def __init__(
        self,
        shape: KVShape,
        policy: KVPolicy,
        capacity: int,
        link: CopyEngine,
        device: torch.device,
    ) -> None:
        self.shape, self.policy, self.capacity = shape, policy, capacity
        self.placement = policy.placement(shape.layers)
        codec = BlockCodec(
            shape.heads, shape.dim, policy.block, policy.bits, policy.group, shape.dtype
        )
        blocks, tail = packed_blocks(policy, capacity), tail_tokens(policy)
        offloaded = self.placement.count("offloaded")
        self.pipeline = Pipeline(link, codec.record_bytes, blocks, device, offloaded)
        packed = any(place != "on-chip" for place in self.placement)
        self.scratch = self._buffer(capacity if packed else 0, device)
        store = Store(codec, policy, blocks, self.scratch)
        layers: list[PlacedLayer] = []
        for index, place in enumerate(self.placement):
            if place == "on-chip":
                layers.append(FloatLayer(self._buffer(capacity, device)))
            elif place == "resident":
                layers.append(ResidentLayer(store, self._buffer(tail, device)))
            else:
                buffer = self._buffer(tail, device)
                layers.append(OffloadedLayer(store, buffer, index, self.pipeline))
        super().__init__(layers=layers)

    def _buffer(self, tokens: int, device: torch.device) -> Buffer:
        return Buffer(self.shape.heads, tokens, self.shape.dim, self.shape.dtype, device)

    @property
    def length(self) -> int:
        """Tokens held."""
        return int(self.layers[0].length)

    def room(self) -> int:
        """Tokens the next pass may read without straddling a flush boundary.

        A query after the boundary must see the block before it in packed form, which exists only
        once that block is settled; so a round ends there (path independence). Lossless blocks
        look the same packed or not: only the tail's size bounds their rounds.
        """
        packed = [layer for layer in self.layers if isinstance(layer, BlockLayer)]
        if not packed:
            return self.capacity - self.length
        layer = packed[0]
        tail = tail_tokens(self.policy) - (layer.length - layer.packed_tokens)
        return min(tail, self.capacity - self.length)

    def settle(self, length: int) -> None:
        """Forget tokens from ``length`` on; pack, and send to the host, what is now whole."""
        for layer in self.layers:
            layer.settle(length)

    def begin_pass(self) -> None:
        """Start streaming the first offloaded layers of the coming pass."""
        self.pipeline.begin()

    def read_bytes(self) -> int:
        """Bytes of stored KV that one pass reads: floats on-chip and in tails, packed blocks."""
        per_token = self.shape.token_bytes
        total = 0
        for layer in self.layers:
            if isinstance(layer, BlockLayer):
                total += layer.blocks * layer.codec.record_bytes
                total += (layer.length - layer.packed_tokens) * per_token
            else:
                total += layer.length * per_token
        return total

    def allocated(self) -> dict[str, int]:
        """Bytes really allocated, by place: the measured side of `mspeckv.kv.plan`."""
        sizes = {"on_chip": 0, "resident": 0, "offloaded": 0, "tail": 0}
        for layer in self.layers:
            if isinstance(layer, FloatLayer):
                sizes["on_chip"] += layer.buffer.bytes
                continue
            sizes["tail"] += layer.tail.bytes
            place = "offloaded" if isinstance(layer, OffloadedLayer) else "resident"
            sizes[place] += layer.records.numel()
        return {**sizes, "slots": self.pipeline.bytes, "scratch": self.scratch.bytes}
