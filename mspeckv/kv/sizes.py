"""Sizes of every buffer, from shapes alone: known, and refused, before anything is allocated.

Whole numbers go in and come out. Where a count is `Any`, plain arithmetic is all that is asked of
it, so that `mspeckv_study.whatif` can ask about arrays of settings with the same formulas.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from mspeckv.kv.codec import codec_of
from mspeckv.kv.shape import KVShape
from mspeckv.kv.windows import WINDOW_SLACK, window_slots
from mspeckv.settings import KVPolicy, Speculation


def packed_blocks(policy: KVPolicy | LayerBytes, tokens: Any) -> Any:
    """Blocks in packed form once ``tokens`` tokens are settled."""
    return _positive(tokens - policy.tail) // policy.block


def tail_tokens(policy: KVPolicy) -> int:
    """Slots of a packed layer's float tail.

    One block and the policy's tail when quantizing, since rounds end at flush boundaries; a block
    more when lossless, so that rounds may run across them.
    """
    return policy.tail + policy.block * (2 if policy.lossless else 1)


def window_slack(speculation: Speculation) -> int:
    """Tokens that may be appended, and taken back, between two slides of a window."""
    return WINDOW_SLACK + speculation.longest_gamma + speculation.longest_draft_gamma


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
    chunks: int = 0
    """Of tier 1, on the host."""
    windows: int = 0
    """Of tier 2's layers that see a window; they hold no more than that."""
    states: int = 0
    """Of every tier's recurrent layers, at most."""

    @property
    def kv_device(self) -> int:
        """Bytes of caches in device memory: the price of a setting, weights apart."""
        return sum(getattr(self, name) for name in ON_DEVICE)

    @property
    def device(self) -> int:
        """Bytes in device memory: all that are not on the host."""
        total: int = sum(vars(self).values())
        return total - self.host

    @property
    def host(self) -> int:
        """Bytes in host memory."""
        return self.offloaded + self.chunks


ON_DEVICE = {part.name for part in fields(CacheSizes)} - {"offloaded", "chunks"}
"""Fields of `CacheSizes` that are on the device."""


def streamed_bytes(shape: KVShape, policy: KVPolicy) -> int:
    """Bytes of one block of one offloaded layer that cross the link in a pass."""
    # of nibbles, the lower four bits of each key's and value's codes
    lower = shape.heads * policy.block * shape.dim
    return lower if policy.nibble else codec_of(shape, policy).record_bytes


@dataclass(frozen=True)
class LayerBytes:
    """Bytes that a policy's places are made of; every field a number, or an array of them.

    Attributes:
        token: unquantized K and V of one token in one layer.
        record: one block of one packed layer.
        streamed: what of an offloaded layer's block crosses the link in a pass; the rest, if any,
            stays on the device.
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
            token=shape.token_bytes, record=codec_of(shape, policy).record_bytes,
            streamed=streamed_bytes(shape, policy), block=policy.block, tail=policy.tail,
            tail_slots=tail_tokens(policy), ahead=policy.ahead,
        )  # fmt: skip


def placed_sizes(
    packing: LayerBytes, on_chip: Any, resident: Any, offloaded: Any, cached: Any, capacity: Any
) -> dict[str, Any]:
    """Bytes of tier 2's cache by place, for one setting or arrays of them.

    Args:
        on_chip: layers unquantized on the device.
        resident: layers quantized on the device, in places of their own.
        offloaded: layers on the host.
        cached: how many of those an LRU cache on the device holds as well.
    """
    blocks, floats = packed_blocks(packing, capacity), capacity * packing.token
    staying = packing.record - packing.streamed
    return {
        "on_chip": on_chip * floats,
        "resident": blocks * (resident * packing.record + offloaded * staying),
        "offloaded": offloaded * blocks * packing.streamed,
        "tail": (offloaded + resident) * packing.tail_slots * packing.token,
        "slots": _least(packing.ahead + cached, offloaded) * blocks * packing.streamed,
        # where any layer has to be unpacked for its pass
        "scratch": (resident + offloaded > 0) * floats,
    }


def full_sizes(
    shape: KVShape, policy: KVPolicy, capacity: int, slack: int = WINDOW_SLACK
) -> CacheSizes:
    """Bytes of tier 2's cache alone; see `mspeckv.kv.full.FullCache`."""
    places = policy.placement(shape.layers)
    on_chip, resident = places.count("on-chip"), places.count("resident")
    offloaded, cached = shape.layers - on_chip - resident, policy.cached_layers
    packing = LayerBytes.of(shape, policy)
    sizes = placed_sizes(packing, on_chip, resident, offloaded, cached, capacity)
    return CacheSizes(**sizes, windows=window_bytes(shape, capacity, slack))


def window_bytes(shape: KVShape, capacity: int, slack: int) -> int:
    """Bytes of the layers that see a window, in a cache of tier 1 or 2."""
    slots = sum(window_slots(sight, slack, capacity) for sight in shape.windows)
    return slots * shape.token_bytes


@dataclass(frozen=True)
class ChunkPlan:
    """Which prompt tokens can be chosen, and how many are.

    Attributes:
        prompt: prompt tokens read by tier 2.
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
        return cls(prompt, speculation.chunk, *counts)

    @property
    def kept(self) -> int:
        """Prompt tokens in the cache."""
        return self.chosen * self.chunk + self.rest

    @property
    def gap(self) -> int:
        """Prompt tokens that are not."""
        return self.prompt - self.kept

    def bytes(self, shape: KVShape, grown: int) -> int:
        """Bytes of tier 1's cache with room for ``grown`` more tokens, and of its landmarks."""
        # a landmark is a mean key: half of a token's keys and values
        return shape.layers * (2 * (self.kept + grown) + self.chunks) * shape.token_bytes // 2


def chunk_counts(budget: Any, chunk: Any, recent: Any, prompt: Any) -> tuple[Any, Any, Any]:
    """Whole chunks, chosen ones and tokens after the last of a `ChunkPlan`; numbers or arrays."""
    chunks = _positive(prompt - recent) // chunk
    rest = prompt - chunks * chunk
    return chunks, _least(chunks, _positive(budget - rest) // chunk), rest


def _positive(number: Any) -> Any:
    """The number, or 0 where it is less."""
    return number * (number > 0)


def _least(one: Any, other: Any) -> Any:
    """The smaller of two numbers."""
    return one - _positive(one - other)


def streaming_bytes(shape: KVShape, slots: int) -> int:
    """Bytes of tier 0's cache; see `mspeckv.kv.streaming.StreamingCache`."""
    return (shape.layers + len(shape.windows)) * slots * shape.token_bytes
