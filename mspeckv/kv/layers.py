"""Cache layers: floats on the device, and what packed layers have in common.

All are `transformers` cache layers: a model calls `update` with the new tokens' K and V and gets
back everything attention should see, ``[1, H, S, D]``. Where packed blocks live:
`mspeckv.kv.resident`, `mspeckv.kv.offload`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from transformers.cache_utils import CacheLayerMixin

from mspeckv.config import KVPolicy
from mspeckv.events import Purpose
from mspeckv.kv.nibble import NibblePlanes
from mspeckv.kv.plan import packed_blocks
from mspeckv.kv.quantize import BlockCodec
from mspeckv.ranges import span

KV = tuple[torch.Tensor, torch.Tensor]


class PlacedLayer(CacheLayerMixin):  # type: ignore[misc]  # transformers is not typed here
    """What the layers share: a length, and the questions transformers asks of a layer."""

    is_sliding = False
    is_croppable = True
    brings = False
    """Whether `bring` has anything to do."""

    def __init__(self) -> None:
        super().__init__()
        self.length = 0
        self.is_initialized = True

    @property
    def filled(self) -> int:
        """Slots of `view` that hold a token."""
        return self.length

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

    def restart(self) -> None:
        """Forget everything, and keep the memory for another run."""
        self.length = 0

    @property
    def contents(self) -> list[torch.Tensor]:
        """Everything held, as views: of the same shapes in any layer like it that holds as much."""
        raise NotImplementedError

    # What a static pass (`mspeckv.static`) asks of a layer.

    @property
    def view(self) -> Buffer:
        """Where every token can be found, by slot, once brought."""
        raise NotImplementedError

    def bring(self, length: int, coarse: bool = False) -> None:
        """Have `view` hold the first ``length`` tokens."""

    def write_at(
        self, slots: torch.Tensor, tail: torch.Tensor, key: torch.Tensor, value: torch.Tensor
    ) -> None:
        """Put ``[1, H, n, D]`` at ``slots`` ``[n]`` of `view` and, to keep, in the float tail."""
        raise NotImplementedError

    @property
    def tail_start(self) -> int:
        """Slot of `view` at which the float tail begins."""
        return 0


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

    def write_at(self, slots: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> None:
        """Put ``[1, H, n, D]`` at ``slots`` ``[n]``, which only the device needs to know."""
        self.key.index_copy_(2, slots, key)
        self.value.index_copy_(2, slots, value)

    @property
    def whole(self) -> KV:
        """Every slot."""
        return self.key, self.value

    @property
    def bytes(self) -> int:
        """Bytes allocated."""
        return 2 * self.key.numel() * self.key.element_size()


class FloatLayer(PlacedLayer):
    """Unquantized KV on the device: on-chip layers, and the small caches of tiers 0 and 1."""

    def __init__(self, buffer: Buffer) -> None:
        super().__init__()
        self.buffer = buffer

    @property
    def contents(self) -> list[torch.Tensor]:
        """The tokens."""
        return [*self.buffer.read(self.length)]

    @property
    def view(self) -> Buffer:
        """The buffer."""
        return self.buffer

    def write_at(
        self, slots: torch.Tensor, tail: torch.Tensor, key: torch.Tensor, value: torch.Tensor
    ) -> None:
        """Put ``[1, H, n, D]`` at ``slots`` ``[n]``."""
        self.buffer.write_at(slots, key, value)

    def bytes_by_place(self) -> dict[str, int]:
        """Bytes allocated for this layer alone."""
        return {"on_chip": self.buffer.bytes}

    def put(self, start: int, key: torch.Tensor, value: torch.Tensor) -> None:
        """Write tokens from position ``start`` on."""
        self.buffer.write(start, key, value)

    def show(self, length: int, coarse: bool = False) -> KV:
        """The first ``length`` tokens, as views; floats are never coarse."""
        return self.buffer.read(length)

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> KV:
        """Append and return views of everything held."""
        self.put(self.length, key_states, value_states)
        self.length += key_states.shape[2]
        return self.show(self.length)


@dataclass(frozen=True)
class Store:
    """What the packed layers of one cache share.

    Attributes:
        codec: how a block is packed.
        planes: how it is split, in nibble mode.
        policy: block size and float tail.
        blocks: most blocks a layer can come to hold.
        scratch: where a layer's KV is unpacked for its pass.
    """

    codec: BlockCodec
    planes: NibblePlanes | None
    policy: KVPolicy
    blocks: int
    scratch: Buffer


class BlockLayer(PlacedLayer):
    """KV in packed blocks at fixed absolute positions, the unfinished block as floats.

    Tokens enter the tail as floats; a block is packed only when all its tokens, and the policy's
    tail after them, are settled, with scales from the whole block. So the stored bytes depend on
    the tokens alone, not on the rounds and rejections by which they came (path independence).

    Subclasses say where the packed blocks live: `keep` stores new ones, `unpack` reads them all.
    """

    brings = True

    def __init__(self, store: Store, tail: Buffer) -> None:
        super().__init__()
        self.store, self.codec, self.policy = store, store.codec, store.policy
        self.tail = tail
        self.blocks = 0

    @property
    def contents(self) -> list[torch.Tensor]:
        """The tail's tokens; with finished blocks, where a subclass keeps them."""
        return [*self.tail.read(self.length - self.packed_tokens)]

    @property
    def packed_tokens(self) -> int:
        """Tokens in finished blocks."""
        return self.blocks * self.codec.block

    @property
    def packed_bytes(self) -> int:
        """Bytes of stored blocks that a full pass reads."""
        return self.blocks * self.codec.record_bytes

    @property
    def coarse_bytes(self) -> int:
        """Bytes of stored blocks that a coarse pass reads."""
        return self.packed_bytes

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> KV:
        """Append; returns the whole layer.

        A prompt read into an empty layer is returned as it came: attention over it is exact, and
        its whole blocks are packed, and sent away, once.
        """
        start = self.length
        self.length += key_states.shape[2]
        if start == 0:
            whole = packed_blocks(self.policy, self.length) * self.codec.block
            self.pack(key_states[:, :, :whole], value_states[:, :, :whole], "prefill")
            self.put(whole, key_states[:, :, whole:], value_states[:, :, whole:])
            return key_states, value_states
        self.put(start, key_states, value_states)
        return self.show(self.length)

    def put(self, start: int, key: torch.Tensor, value: torch.Tensor) -> None:
        """Write unsettled tokens from position ``start`` on."""
        self.tail.write(start - self.packed_tokens, key, value)

    def write_at(
        self, slots: torch.Tensor, tail: torch.Tensor, key: torch.Tensor, value: torch.Tensor
    ) -> None:
        """Put ``[1, H, n, D]`` at ``slots`` of `view` and, to keep, at ``tail`` of the tail."""
        self.view.write_at(slots, key, value)
        self.tail.write_at(tail, key, value)

    @property
    def view(self) -> Buffer:
        """The shared scratch buffer; a slot is a position."""
        return self.store.scratch

    @property
    def tail_start(self) -> int:
        """Tokens in finished blocks."""
        return self.packed_tokens

    def bring(self, length: int, coarse: bool = False) -> None:
        """Unpack the first ``length`` tokens into the shared scratch buffer.

        ``coarse`` reads the upper planes only (nibble mode).
        """
        scratch = self.store.scratch
        with span("kv/dequantize"):
            self.unpack(scratch.read(self.packed_tokens), coarse)
        scratch.write(self.packed_tokens, *self.tail.read(length - self.packed_tokens))

    def show(self, length: int, coarse: bool = False) -> KV:
        """The first ``length`` tokens; see `bring`."""
        self.bring(length, coarse)
        return self.store.scratch.read(length)

    def settle(self, length: int) -> None:
        """Forget tokens from ``length`` on, then pack the blocks that are now complete."""
        if length < self.packed_tokens:
            raise RuntimeError(
                f"settled KV cannot be taken back: asked for {length} tokens, "
                f"{self.packed_tokens} are packed"
            )
        self.length = length
        while self.blocks < packed_blocks(self.policy, length):
            with span("kv/flush"):
                self.flush()

    def restart(self) -> None:
        """Forget everything, and keep the memory for another run."""
        self.length = self.blocks = 0

    def flush(self) -> None:
        """Pack the tail's first block and move the rest of the tail to its front."""
        block, rest = self.codec.block, self.length - self.packed_tokens
        self.pack(*self.tail.read(block), "flush")
        moved = tuple(part.clone() for part in self.tail.read(rest, block))
        self.tail.write(0, *moved)

    def pack(self, key: torch.Tensor, value: torch.Tensor, purpose: Purpose) -> None:
        """Append whole blocks ``[1, H, n * block, D]``."""
        count = key.shape[2] // self.codec.block
        if count:
            self.keep(self.codec.encode(key, value), purpose)
            self.blocks += count

    def keep(self, records: torch.Tensor, purpose: Purpose) -> None:
        """Store new records after those held."""
        raise NotImplementedError

    def unpack(self, out: KV, coarse: bool) -> None:
        """Decode all finished blocks into ``out``."""
        raise NotImplementedError

    def bytes_by_place(self) -> dict[str, int]:
        """Bytes allocated for this layer alone."""
        raise NotImplementedError
