"""Sizes of every buffer, from shapes alone: known, and refused, before anything is allocated."""

from __future__ import annotations

from dataclasses import dataclass

from mspeckv.config import KVPolicy, Speculation
from mspeckv.kv.nibble import NibblePlanes
from mspeckv.kv.quantize import BlockCodec
from mspeckv.kv.shape import KVShape


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
    retrieval: int
    streaming: int

    @property
    def device(self) -> int:
        """Bytes in device memory."""
        return (
            self.on_chip
            + self.resident
            + self.tail
            + self.slots
            + self.scratch
            + self.retrieval
            + self.streaming
        )


def streamed_bytes(shape: KVShape, policy: KVPolicy) -> int:
    """Bytes of one block of one offloaded layer that cross the link in a pass."""
    if policy.nibble:
        return NibblePlanes(shape, policy).lower_bytes
    return BlockCodec.of(shape, policy).record_bytes


def needs_scratch(policy: KVPolicy, layers: int) -> bool:
    """Whether any layer has to be unpacked for its pass."""
    places = set(policy.placement(layers))
    packed_residents = "resident" in places and policy.resident_format == "packed"
    return packed_residents or "offloaded" in places


def full_sizes(shape: KVShape, policy: KVPolicy, capacity: int) -> CacheSizes:
    """Bytes of tier 2's cache alone; see `mspeckv.kv.cache.FullCache`."""
    places = policy.placement(shape.layers)
    on_chip, offloaded = places.count("on-chip"), places.count("offloaded")
    resident = places.count("resident")
    blocks = packed_blocks(policy, capacity)
    floats = capacity * shape.token_bytes
    record, streamed = BlockCodec.of(shape, policy).record_bytes, streamed_bytes(shape, policy)
    slots = min(policy.ahead + policy.cached_layers, offloaded)
    in_floats = policy.resident_format == "float"
    # in nibble mode, what is not streamed of an offloaded layer's record stays on the device
    upper = record - streamed if policy.nibble else 0
    return CacheSizes(
        on_chip=on_chip * floats,
        resident=resident * (floats if in_floats else blocks * record) + offloaded * blocks * upper,
        offloaded=offloaded * blocks * streamed,
        tail=(offloaded + (0 if in_floats else resident)) * tail_tokens(policy) * shape.token_bytes,
        slots=slots * blocks * streamed,
        scratch=floats if needs_scratch(policy, shape.layers) else 0,
        retrieval=0,
        streaming=0,
    )


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
        chunks = max(0, prompt - speculation.recent) // speculation.chunk
        rest = prompt - chunks * speculation.chunk
        chosen = min(chunks, max(0, speculation.budget - rest) // speculation.chunk)
        return cls(prompt, speculation.chunk, chunks, chosen, rest)

    @property
    def kept(self) -> int:
        """Prompt tokens in the cache."""
        return self.chosen * self.chunk + self.rest


def retrieval_bytes(shape: KVShape, speculation: Speculation, prompt: int, grown: int) -> int:
    """Bytes of tier 1's cache and its landmarks; see `mspeckv.kv.retrieval.RetrievalCache`."""
    plan = ChunkPlan.of(speculation, prompt)
    # a landmark is a mean key: half of a token's keys and values
    return shape.layers * (2 * (plan.kept + grown) + plan.chunks) * shape.token_bytes // 2


def streaming_bytes(shape: KVShape, slots: int) -> int:
    """Bytes of tier 0's cache; see `mspeckv.kv.streaming.StreamingCache`."""
    return shape.layers * slots * shape.token_bytes
