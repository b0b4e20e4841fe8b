"""Sizes of every buffer, from shapes alone: known, and refused, before anything is allocated."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from mspeckv.kv.quantize import BlockCodec
from mspeckv.kv.shape import KVShape
from mspeckv.settings import KVPolicy, Speculation


def packed_blocks(policy: KVPolicy, tokens: int) -> int:
    """Blocks in packed form once ``tokens`` tokens are settled."""
    return max(0, tokens - policy.tail) // policy.block


def tail_tokens(policy: KVPolicy) -> int:
    """Slots of a packed layer's float tail.

    One block and the policy's tail when quantizing, since rounds end at flush boundaries; a block
    more when lossless, so that rounds may run across them.
    """
    return policy.tail + policy.block * (2 if policy.lossless else 1)


@dataclass(frozen=True)
class CacheSizes:
    """Predicted bytes of a run's caches."""

    on_chip: int
    resident: int
    offloaded: int
    tail: int
    slots: int
    scratch: int
    retrieval: int = 0
    streaming: int = 0

    @property
    def device(self) -> int:
        """Bytes in device memory: all that are not offloaded."""
        total: int = sum(vars(self).values())
        return total - self.offloaded


def streamed_bytes(shape: KVShape, policy: KVPolicy) -> int:
    """Bytes of one block of one offloaded layer that cross the link in a pass."""
    # of nibbles, the lower four bits of each key's and value's codes
    lower = shape.heads * policy.block * shape.dim
    return lower if policy.nibble else BlockCodec.of(shape, policy).record_bytes


def needs_scratch(policy: KVPolicy, layers: int) -> bool:
    """Whether any layer has to be unpacked for its pass."""
    return any(place != "on-chip" for place in policy.placement(layers))


@dataclass(frozen=True)
class LayerBytes:
    """Bytes that a policy's places are made of; every field a number, or an array of them.

    Attributes:
        token: unquantized K and V of one token in one layer.
        record: one block of one packed layer.
        streamed: what of an offloaded layer's block crosses the link in a pass; the rest, if any,
            stays on the device.
        block: tokens per block.
        tail: settled tokens that stay unquantized (`KVPolicy.tail`).
        tail_slots: slots of a packed layer's float tail.
        ahead: offloaded layers that may be on their way at once.
    """

    token: Any
    record: Any
    streamed: Any
    block: Any
    tail: Any
    tail_slots: Any
    ahead: Any

    @classmethod
    def of(cls, shape: KVShape, policy: KVPolicy) -> LayerBytes:
        """The numbers of one policy."""
        return cls(
            token=shape.token_bytes,
            record=BlockCodec.of(shape, policy).record_bytes,
            streamed=streamed_bytes(shape, policy),
            block=policy.block,
            tail=policy.tail,
            tail_slots=tail_tokens(policy),
            ahead=policy.ahead,
        )

    def blocks(self, tokens: Any) -> Any:
        """Blocks in packed form once ``tokens`` tokens are settled; see `packed_blocks`."""
        return np.maximum(0, tokens - self.tail) // self.block


def placed_sizes(
    packing: LayerBytes, on_chip: Any, resident: Any, offloaded: Any, cached: Any, capacity: Any
) -> dict[str, Any]:
    """Bytes of tier 2's cache by place, for one setting or arrays of them.

    Args:
        on_chip: layers unquantized on the device.
        resident: layers quantized on the device, in places of their own.
        offloaded: layers on the host.
        cached: how many of those an LRU cache on the device holds as well.
        capacity: most tokens.
    """
    blocks, floats = packing.blocks(capacity), capacity * packing.token
    staying = packing.record - packing.streamed
    return {
        "on_chip": on_chip * floats,
        "resident": blocks * (resident * packing.record + offloaded * staying),
        "offloaded": offloaded * blocks * packing.streamed,
        "tail": (offloaded + resident) * packing.tail_slots * packing.token,
        "slots": np.minimum(packing.ahead + cached, offloaded) * blocks * packing.streamed,
        # where any layer has to be unpacked for its pass
        "scratch": np.where(resident + offloaded > 0, floats, 0),
    }


def full_sizes(shape: KVShape, policy: KVPolicy, capacity: int) -> CacheSizes:
    """Bytes of tier 2's cache alone; see `mspeckv.kv.full.FullCache`."""
    places = policy.placement(shape.layers)
    on_chip, resident = places.count("on-chip"), places.count("resident")
    offloaded, cached = shape.layers - on_chip - resident, policy.cached_layers
    packing = LayerBytes.of(shape, policy)
    sizes = placed_sizes(packing, on_chip, resident, offloaded, cached, capacity)
    return CacheSizes(**{place: int(size) for place, size in sizes.items()})


@dataclass(frozen=True)
class ChunkPlan:
    """Which prompt tokens can be chosen, and how many are.

    Attributes:
        prompt: prompt tokens read by tier 2.
        chunk: tokens per chunk.
        chunks: whole chunks before the recent window; chunk c covers ``[c * chunk, ...)``.
        chosen: chunks kept per head.
        rest: tokens after the last whole chunk, always kept.
    """

    prompt: int
    chunk: int
    chunks: int
    chosen: int
    rest: int

    @classmethod
    def of(cls, speculation: Speculation, prompt: int) -> ChunkPlan:
        """Fill the budget: the recent window first, chunks with what is left."""
        counts = chunk_counts(speculation.budget, speculation.chunk, speculation.recent, prompt)
        return cls(prompt, speculation.chunk, *(int(count) for count in counts))

    @property
    def kept(self) -> int:
        """Prompt tokens in the cache."""
        return self.chosen * self.chunk + self.rest


def chunk_counts(budget: Any, chunk: Any, recent: Any, prompt: Any) -> tuple[Any, Any, Any]:
    """Whole chunks, chosen ones and tokens after the last of a `ChunkPlan`; numbers or arrays."""
    chunks = np.maximum(0, prompt - recent) // chunk
    rest = prompt - chunks * chunk
    return chunks, np.minimum(chunks, np.maximum(0, budget - rest) // chunk), rest


def retrieval_bytes(shape: KVShape, speculation: Speculation, prompt: int, grown: int) -> int:
    """Bytes of tier 1's cache and its landmarks; see `mspeckv.kv.retrieval.RetrievalCache`."""
    plan = ChunkPlan.of(speculation, prompt)
    # a landmark is a mean key: half of a token's keys and values
    return shape.layers * (2 * (plan.kept + grown) + plan.chunks) * shape.token_bytes // 2


def streaming_bytes(shape: KVShape, slots: int) -> int:
    """Bytes of tier 0's cache; see `mspeckv.kv.streaming.StreamingCache`."""
    return shape.layers * slots * shape.token_bytes
