"""Sizes of every buffer, from shapes alone: known, and refused, before anything is allocated."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from transformers import PretrainedConfig

from mspeckv.config import KVPolicy, Speculation
from mspeckv.events import Memory
from mspeckv.kv.quantize import BlockCodec


@dataclass(frozen=True)
class KVShape:
    """What a model's KV cache is made of.

    Attributes:
        layers: decoder layers N.
        heads: KV heads H.
        dim: head dim D.
        dtype: compute dtype.
    """

    layers: int
    heads: int
    dim: int
    dtype: torch.dtype

    @classmethod
    def of(cls, config: PretrainedConfig, dtype: torch.dtype) -> KVShape:
        """The KV shape of a transformers configuration."""
        text = config.get_text_config()
        heads = text.num_attention_heads
        dim = getattr(text, "head_dim", None) or text.hidden_size // heads
        kv_heads = getattr(text, "num_key_value_heads", None) or heads
        return cls(text.num_hidden_layers, kv_heads, dim, dtype)

    @property
    def token_bytes(self) -> int:
        """Unquantized K and V bytes of one token in one layer."""
        return 2 * self.heads * self.dim * self.dtype.itemsize


def packed_blocks(policy: KVPolicy, tokens: int) -> int:
    """Blocks in packed form once ``tokens`` tokens are settled."""
    return max(0, tokens - policy.tail) // policy.block


def tail_tokens(policy: KVPolicy) -> int:
    """Slots of a packed layer's float tail.

    One block and the policy's tail when quantizing, since rounds end at flush boundaries; a block
    more when lossless, so that rounds may run across them.
    """
    return policy.tail + policy.block * (2 if policy.bits == "full" else 1)


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

    def memory(self, weights: int) -> Memory:
        """The event stream's record, with the models' weights on the device."""
        return Memory(self.on_chip, self.resident, self.offloaded, self.device + weights)


def full_sizes(shape: KVShape, policy: KVPolicy, capacity: int) -> CacheSizes:
    """Bytes of tier 2's cache alone; see `mspeckv.kv.cache.FullCache`."""
    placement = policy.placement(shape.layers)
    codec = BlockCodec(shape.heads, shape.dim, policy.block, policy.bits, policy.group, shape.dtype)
    layer_records = packed_blocks(policy, capacity) * codec.record_bytes
    offloaded, on_chip = placement.count("offloaded"), placement.count("on-chip")
    packed = shape.layers - on_chip
    return CacheSizes(
        on_chip=on_chip * capacity * shape.token_bytes,
        resident=placement.count("resident") * layer_records,
        offloaded=offloaded * layer_records,
        tail=packed * tail_tokens(policy) * shape.token_bytes,
        slots=min(2, offloaded) * layer_records,
        scratch=capacity * shape.token_bytes if packed else 0,
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
