"""Tier 2's cache: the target's full KV, each layer where its placement says."""

from __future__ import annotations

import torch

from mspeckv.kv.blocks import BlockLayer, Room, ShowWith
from mspeckv.kv.codec import Restore, codec_of
from mspeckv.kv.floats import Buffer
from mspeckv.kv.kinds import ALL, Sight
from mspeckv.kv.layers import PlacedLayer, Tier
from mspeckv.kv.link import KVLink
from mspeckv.kv.offloaded import OffloadedLayer, Pipeline
from mspeckv.kv.placement import place_of
from mspeckv.kv.recurrent import layers_of
from mspeckv.kv.shape import KVShape
from mspeckv.kv.sizes import packed_blocks, tail_tokens
from mspeckv.kv.windows import WINDOW_SLACK, WindowLayer
from mspeckv.settings import KVPolicy


class FullCache(Tier):
    """Full KV cache over on-chip, resident and offloaded layers.

    Args:
        capacity: most tokens the run can hold, guesses included.
        show, restore: what accelerations do instead; see `mspeckv.decoding.hooks.Hooks`.
        slack: tokens that rejected guesses may take back at most.

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
        show: ShowWith | None = None,
        restore: Restore | None = None,
        slack: int = WINDOW_SLACK,
    ) -> None:
        self.shape, self.policy, self.capacity = shape, policy, capacity
        blocks, unpacks = packed_blocks(policy, capacity), policy.on_chip < shape.layers
        self.scratch = Buffer(shape, capacity if unpacks else 0, device)
        self.codec = codec_of(shape, policy, restore)
        # rows that are read again have no new keys, which kernels of packed blocks count on; and
        # latents are expanded before attention
        shows = None
        if show is not None and unpacks and not (shape.states or shape.latent):
            shows = show(self.codec, device)
        self.pipeline = Pipeline(link, shape, policy, blocks, device)
        room = Room(
            shape, policy, self.codec, capacity, blocks, device, self.scratch, self.pipeline, shows
        )
        places = iter([place_of(policy, place) for place in policy.placement(shape.layers)])

        def attending(index: int, sight: Sight) -> PlacedLayer:
            if sight == ALL:
                return next(places)(room, index)
            return WindowLayer.of(shape, sight, slack, capacity, device)

        # what it has settled is never taken back: of states one copy will do
        super().__init__(layers=layers_of(shape, attending, reach=0))
        self.packed = [layer for layer in self.layers if isinstance(layer, BlockLayer)]

    def room(self, length: int) -> int:
        """Most tokens that may follow the first ``length`` without straddling a flush boundary.

        A query after the boundary must see the block before it in packed form, which exists only
        once that block is settled; so a round ends there (path independence). Lossless blocks
        look the same packed or not: only the tail's size bounds their rounds.
        """
        room = self.capacity - length
        if self.packed:
            done = packed_blocks(self.policy, min(length, self.length)) * self.policy.block
            done = max(self.packed[0].packed_tokens, done)
            room = min(room, tail_tokens(self.policy) - (length - done))
        return room

    def due(self, length: int) -> bool:
        """Whether settling ``length`` tokens packs a block."""
        return bool(self.packed) and packed_blocks(self.policy, length) > self.packed[0].blocks

    def settle(self, length: int) -> None:
        """Forget tokens from ``length`` on; pack what is complete.

        Recurrent layers that went back further want kept tokens read again, by rows that see what
        they saw: blocks are packed when that is done (`Tier.to_read`).
        """
        for state in self.states:
            state.settle(length)
        behind = any(state.length < length for state in self.states)
        for layer in self.attending:
            if behind and isinstance(layer, BlockLayer):
                layer.length = length
            else:
                layer.settle(length)

    def restart(self) -> None:
        """Forget everything, and keep the memory for another run."""
        self.pipeline.restart()
        super().restart()

    def begin_pass(self) -> None:
        """Start streaming the first offloaded layers of the coming pass."""
        self.pipeline.begin()

    def lookups(self) -> tuple[int, int]:
        """Packed layers found on the device, and fetched, since the last call (one pass's)."""
        pipeline = self.pipeline
        # of offloaded ones, the pipeline counts
        here = [layer for layer in self.packed if not isinstance(layer, OffloadedLayer)]
        found = pipeline.hits + sum(layer.blocks > 0 for layer in here), pipeline.misses
        pipeline.hits = pipeline.misses = 0
        return found

    def allocated(self) -> dict[str, int]:
        """Bytes really allocated, by place: the measured side of `mspeckv.kv.sizes`."""
        sizes = {"on_chip": 0, "resident": 0, "offloaded": 0, "tail": 0, "windows": 0}
        for layer in self.layers:
            for where, count in layer.bytes_by_place().items():
                sizes[where] += count
        return {**sizes, "slots": self.pipeline.bytes, "scratch": self.scratch.bytes}
