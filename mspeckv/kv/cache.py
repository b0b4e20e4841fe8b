"""Tier 2's cache: the target's full KV, each layer where its placement says."""

from __future__ import annotations

import torch
from transformers.cache_utils import Cache

from mspeckv.config import KVPolicy
from mspeckv.kv.blocks import BlockLayer, Store
from mspeckv.kv.layers import Buffer, FloatLayer
from mspeckv.kv.link import KVLink
from mspeckv.kv.nibble import NibblePlanes
from mspeckv.kv.offload import NibbleLayer, OffloadedLayer, Pipeline
from mspeckv.kv.packed import usable
from mspeckv.kv.plan import needs_scratch, packed_blocks, streamed_bytes, tail_tokens
from mspeckv.kv.quantize import BlockCodec
from mspeckv.kv.resident import FloatResidentLayer, ResidentLayer
from mspeckv.kv.shape import KVShape


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
        link: KVLink,
        device: torch.device,
    ) -> None:
        self.shape, self.policy, self.capacity = shape, policy, capacity
        self.placement = policy.placement(shape.layers)
        planes = NibblePlanes(shape, policy) if policy.nibble else None
        blocks = packed_blocks(policy, capacity)
        self.scratch = self._buffer(capacity if needs_scratch(policy, shape.layers) else 0, device)
        codec = BlockCodec.of(shape, policy)
        straight = needs_scratch(policy, shape.layers) and usable(codec, device)
        self.store = Store(codec, planes, policy, blocks, self.scratch, straight)
        self.pipeline = Pipeline(
            link,
            streamed_bytes(shape, policy),
            blocks,
            device,
            self.placement.count("offloaded"),
            policy.ahead,
            policy.cached_layers,
        )
        layers = [self._layer(index, device) for index in range(shape.layers)]
        super().__init__(layers=layers)

    def _layer(self, index: int, device: torch.device) -> FloatLayer | BlockLayer:
        """The layer that the placement of ``index`` asks for."""
        place, policy = self.placement[index], self.policy
        if place == "on-chip":
            return FloatLayer(self._buffer(self.capacity, device))
        if place == "resident" and policy.resident_format == "float":
            return FloatResidentLayer(self.store, self._buffer(self.capacity, device), index)
        tail = self._buffer(tail_tokens(policy), device)
        if place == "resident":
            return ResidentLayer(self.store, tail, index)
        kind = NibbleLayer if policy.nibble else OffloadedLayer
        return kind(self.store, tail, index, self.pipeline)

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

    def restart(self, link: KVLink) -> None:
        """Forget everything, and keep the memory for another run over ``link``."""
        self.pipeline.restart(link)
        for layer in self.layers:
            layer.restart()

    def begin_pass(self) -> None:
        """Start streaming the first offloaded layers of the coming pass."""
        self.pipeline.begin()

    def lookups(self) -> tuple[int, int]:
        """Packed layers found on the device, and fetched, since the last call (one pass's)."""
        pipeline = self.pipeline
        fixed = [layer for layer in self.layers if isinstance(layer, BlockLayer)]
        hits = sum(not isinstance(layer, OffloadedLayer) and layer.blocks > 0 for layer in fixed)
        found = hits + pipeline.hits, pipeline.misses
        pipeline.hits = pipeline.misses = 0
        return found

    def read_bytes(self) -> int:
        """Bytes of stored KV that one pass reads: floats on-chip and in tails, packed blocks."""
        token = self.shape.token_bytes
        total = 0
        for layer in self.layers:
            if isinstance(layer, BlockLayer):
                total += layer.packed_bytes + (layer.length - layer.packed_tokens) * token
            else:
                total += layer.length * token
        return total

    def allocated(self) -> dict[str, int]:
        """Bytes really allocated, by place: the measured side of `mspeckv.kv.plan`."""
        sizes = {"on_chip": 0, "resident": 0, "offloaded": 0, "tail": 0}
        for layer in self.layers:
            for place, count in layer.bytes_by_place().items():
                sizes[place] += count
        return {**sizes, "slots": self.pipeline.bytes, "scratch": self.scratch.bytes}
