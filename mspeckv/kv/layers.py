"""Cache layers by placement: on-chip, resident, offloaded.

All are `transformers` cache layers: a model calls `update` with the new tokens' K and V and gets
back everything attention should see, ``[1, H, S, D]``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from transformers.cache_utils import CacheLayerMixin

from mspeckv.config import KVPolicy
from mspeckv.events import Purpose
from mspeckv.kv.link import CopyEngine, Ticket
from mspeckv.kv.plan import packed_blocks
from mspeckv.kv.quantize import BlockCodec

KV = tuple[torch.Tensor, torch.Tensor]


class PlacedLayer(CacheLayerMixin):  # type: ignore[misc]  # transformers is not typed here
    """What the layers share: a length, and the questions transformers asks of a layer."""

    is_sliding = False
    is_croppable = True

    def __init__(self) -> None:
        super().__init__()
        self.length = 0
        self.is_initialized = True

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        """Nothing to do: sizes are known, and checked, before a run starts."""

    def get_seq_length(self) -> int:
        """Tokens held."""
        return self.length

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Length and offset of the keys that a pass of ``query_length`` tokens sees."""
        return self.length + query_length, 0

    def get_max_length(self) -> int:
        """No maximum beyond the sizes checked before the run."""
        return -1

    get_max_cache_shape = get_max_length

    def settle(self, length: int) -> None:
        """Forget tokens from ``length`` on; keep the rest for good."""
        self.length = length


class Buffer:
    """Preallocated K and V of one layer ``[1, H, capacity, D]``."""

    def __init__(
        self, heads: int, capacity: int, dim: int, dtype: torch.dtype, device: torch.device
    ) -> None:
        self.key = torch.empty(1, heads, capacity, dim, dtype=dtype, device=device)
        self.value = torch.empty_like(self.key)

    def write(self, start: int, key: torch.Tensor, value: torch.Tensor) -> None:
        """Put ``[1, H, n, D]`` at slots ``start .. start + n``."""
        end = start + key.shape[2]
        self.key[:, :, start:end] = key
        self.value[:, :, start:end] = value

    def read(self, end: int, start: int = 0) -> KV:
        """Slots ``start .. end`` as views."""
        return self.key[:, :, start:end], self.value[:, :, start:end]

    @property
    def bytes(self) -> int:
        """Bytes allocated."""
        return 2 * self.key.numel() * self.key.element_size()


class FloatLayer(PlacedLayer):
    """Unquantized KV on the device: on-chip layers, and the small caches of tiers 0 and 1."""

    def __init__(self, buffer: Buffer) -> None:
        super().__init__()
        self.buffer = buffer

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> KV:
        """Append and return views of everything held."""
        self.buffer.write(self.length, key_states, value_states)
        self.length += key_states.shape[2]
        return self.buffer.read(self.length)


@dataclass(frozen=True)
class Store:
    """What the packed layers of one cache share.

    Attributes:
        codec: how a block is packed.
        policy: block size and float tail.
        blocks: most blocks a layer can come to hold.
        scratch: where a layer's KV is unpacked for its pass.
    """

    codec: BlockCodec
    policy: KVPolicy
    blocks: int
    scratch: Buffer


class BlockLayer(PlacedLayer):
    """KV kept as packed blocks at fixed absolute positions, the unfinished block as floats.

    Tokens enter the tail as floats; a block is packed only when all its tokens, and the policy's
    tail after them, are settled, with scales from the whole block. So the stored bytes depend on
    the tokens alone, not on the rounds and rejections by which they came (path independence).
    """

    def __init__(self, store: Store, tail: Buffer) -> None:
        super().__init__()
        self.codec, self.policy, self.scratch = store.codec, store.policy, store.scratch
        self.tail = tail
        self.blocks = 0
        self.records = self.allocate(store.blocks)

    def allocate(self, blocks: int) -> torch.Tensor:
        """Room for ``blocks`` records on the device."""
        device = self.tail.key.device
        return torch.empty(blocks, self.codec.record_bytes, dtype=torch.uint8, device=device)

    @property
    def packed_tokens(self) -> int:
        """Tokens in finished blocks."""
        return self.blocks * self.codec.block

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> KV:
        """Append; returns the whole layer, unpacked into the shared scratch buffer.

        A prompt read into an empty layer is returned as it came: attention over it is exact, and
        its whole blocks are packed, and sent away, once.
        """
        fresh = self.length == 0
        self.length += key_states.shape[2]
        if fresh:
            whole = packed_blocks(self.policy, self.length) * self.codec.block
            self.pack(key_states[:, :, :whole], value_states[:, :, :whole], "prefill")
            self.tail.write(0, key_states[:, :, whole:], value_states[:, :, whole:])
            return key_states, value_states
        tail_length = self.length - self.packed_tokens
        self.tail.write(tail_length - key_states.shape[2], key_states, value_states)
        self.unpack(self.scratch.read(self.packed_tokens))
        self.scratch.write(self.packed_tokens, *self.tail.read(tail_length))
        return self.scratch.read(self.length)

    def settle(self, length: int) -> None:
        """Forget tokens from ``length`` on, then pack the blocks that are now complete."""
        if length < self.packed_tokens:
            raise RuntimeError(
                f"settled KV cannot be taken back: asked for {length} tokens, "
                f"{self.packed_tokens} are packed"
            )
        self.length = length
        block = self.codec.block
        while self.blocks < packed_blocks(self.policy, length):
            rest = self.length - self.packed_tokens
            self.pack(*self.tail.read(block), "flush")
            moved = tuple(part.clone() for part in self.tail.read(rest, block))
            self.tail.write(0, *moved)

    def pack(self, key: torch.Tensor, value: torch.Tensor, purpose: Purpose) -> None:
        """Append whole blocks ``[1, H, n * block, D]`` to the records."""
        records = self.codec.encode(key, value)
        self.records[self.blocks : self.blocks + len(records)] = records
        self.blocks += len(records)

    def unpack(self, out: KV) -> None:
        """Decode all finished blocks into ``out``."""
        self.codec.decode(self.records[: self.blocks], *out)


class ResidentLayer(BlockLayer):
    """Packed blocks in device memory: nothing crosses the link."""


class OffloadedLayer(BlockLayer):
    """Packed blocks in host memory, fetched through one of the pipeline's slots for each pass."""

    def __init__(self, store: Store, tail: Buffer, index: int, pipeline: Pipeline) -> None:
        super().__init__(store, tail)
        self.index, self.pipeline, self.order = index, pipeline, len(pipeline.layers)
        pipeline.layers.append(self)

    def allocate(self, blocks: int) -> torch.Tensor:
        """Room for ``blocks`` records in host memory."""
        return torch.empty(blocks, self.codec.record_bytes, dtype=torch.uint8)

    def pack(self, key: torch.Tensor, value: torch.Tensor, purpose: Purpose) -> None:
        """Pack on the device, then send the records to the host; each byte crosses once."""
        records = self.codec.encode(key, value)
        if len(records):
            place = self.records[self.blocks : self.blocks + len(records)]
            self.pipeline.link.copy(records, place, "to_host", purpose, self.index)
        self.blocks += len(records)

    def unpack(self, out: KV) -> None:
        """Wait for this layer's records, decode them, and let the next fetch start."""
        slot = self.pipeline.take(self)
        self.codec.decode(slot[: self.blocks], *out)
        self.pipeline.release(self)


class Pipeline:
    """Double buffering: while one offloaded layer is computed, the next one crosses the link.

    Slots are handed out in layer order; a slot freed by a layer's decoding takes the fetch of the
    layer two further on. The first two fetches start with `begin`, before the round's drafting.
    """

    SLOTS = 2

    def __init__(
        self, link: CopyEngine, record_bytes: int, blocks: int, device: torch.device, layers: int
    ) -> None:
        self.link = link
        self.layers: list[OffloadedLayer] = []
        count = min(self.SLOTS, layers)
        self.slots = [
            torch.empty(blocks, record_bytes, dtype=torch.uint8, device=device)
            for _ in range(count)
        ]
        self._tickets: dict[int, Ticket] = {}
        self._next = 0

    @property
    def bytes(self) -> int:
        """Bytes of the slots."""
        return sum(slot.numel() for slot in self.slots)

    def begin(self) -> None:
        """Start the first fetches of the next pass."""
        self._next = 0
        for _ in self.slots:
            self._fetch_next()

    def take(self, layer: OffloadedLayer) -> torch.Tensor:
        """The slot holding ``layer``'s records, once they have arrived."""
        if layer.order not in self._tickets:
            self.begin()
        self.link.wait(self._tickets[layer.order])
        return self.slots[layer.order % len(self.slots)]

    def release(self, layer: OffloadedLayer) -> None:
        """``layer``'s slot may be overwritten."""
        del self._tickets[layer.order]
        self._fetch_next()

    def _fetch_next(self) -> None:
        if self._next >= len(self.layers):
            return
        order, layer = self._next, self.layers[self._next]
        self._next += 1
        slot = self.slots[order % len(self.slots)]
        source, target = layer.records[: layer.blocks], slot[: layer.blocks]
        self._tickets[order] = self.link.copy(source, target, "to_device", "verify", layer.index)
