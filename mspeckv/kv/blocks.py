"""What the layers of packed blocks have in common: the float tail, and when a block is packed.

Where the blocks live: `mspeckv.kv.resident`, `mspeckv.kv.offload`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from mspeckv.config import KVPolicy
from mspeckv.events import Purpose
from mspeckv.kv.layers import KV, Buffer, PlacedLayer
from mspeckv.kv.nibble import NibblePlanes
from mspeckv.kv.packed import PackedBlocks, hand_over, wanted
from mspeckv.kv.plan import packed_blocks
from mspeckv.kv.quantize import BlockCodec
from mspeckv.ranges import span


@dataclass(frozen=True)
class Store:
    """What the packed layers of one cache share.

    Attributes:
        codec: how a block is packed.
        planes: how it is split, in nibble mode.
        policy: block size and float tail.
        blocks: most blocks a layer can come to hold.
        scratch: where a layer's KV is unpacked for its pass.
        straight: whether attention can read the packed blocks themselves (`mspeckv.kv.packed`).
    """

    codec: BlockCodec
    planes: NibblePlanes | None
    policy: KVPolicy
    blocks: int
    scratch: Buffer
    straight: bool


class BlockLayer(PlacedLayer):
    """KV in packed blocks at fixed absolute positions, the unfinished block as floats.

    Tokens enter the tail as floats; a block is packed only when all its tokens, and the policy's
    tail after them, are settled, with scales from the whole block. So the stored bytes depend on
    the tokens alone, not on the rounds and rejections by which they came (path independence).

    Subclasses say where the packed blocks live: `keep` stores new ones, `unpack` reads them all.
    """

    brings = True

    def __init__(self, store: Store, tail: Buffer, index: int) -> None:
        super().__init__()
        self.index = index
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
        """Append; returns the whole layer, or its float tail with the packed blocks handed over.

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
        if self.store.straight and self.blocks and wanted(key_states.shape[2]):
            records = self.arrived()
            if records is not None:
                return self._hand_over(records)
        return self.show(self.length)

    def _hand_over(self, records: torch.Tensor) -> KV:
        """The float tail, ``records`` before it."""
        key, value = self.tail.read(self.length - self.packed_tokens)
        whole = partial(self._whole, records)
        hand_over(self.index, PackedBlocks(records, self.codec, whole, self.release))
        return key, value

    def _whole(self, records: torch.Tensor) -> KV:
        """Everything as floats, of records that have arrived."""
        scratch = self.store.scratch
        with span("kv/dequantize"):
            self.codec.decode(records, *scratch.read(self.packed_tokens))
        scratch.write(self.packed_tokens, *self.tail.read(self.length - self.packed_tokens))
        return scratch.read(self.length)

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

    def arrived(self) -> torch.Tensor | None:
        """All finished blocks as records on the device; None where they are not held so."""
        return None

    def release(self) -> None:
        """What `arrived` gave has been read."""

    def bytes_by_place(self) -> dict[str, int]:
        """Bytes allocated for this layer alone."""
        raise NotImplementedError
