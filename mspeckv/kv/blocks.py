"""What the layers of packed blocks have in common: the float tail, and when a block is packed.

Where the blocks live: `mspeckv.kv.placement`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from mspeckv.context import KV, Shown
from mspeckv.events import Purpose
from mspeckv.kv.codec import Codec, OtherAxes
from mspeckv.kv.floats import Buffer, Floats
from mspeckv.kv.layers import PlacedLayer
from mspeckv.kv.shape import KVShape
from mspeckv.kv.sizes import packed_blocks, tail_tokens
from mspeckv.record import span
from mspeckv.settings import KVPolicy


@dataclass(frozen=True)
class Arrived:
    """A layer's finished blocks, on the device.

    Attributes:
        records: uint8 ``[b, record_bytes]``.
        lower: the codes' lower nibbles ``[b, bytes]``, keys' before values', where they lie apart.
        coarse: whether the lower nibbles count as unknown.
    """

    records: torch.Tensor
    codec: Codec
    lower: torch.Tensor | None = None
    coarse: bool = False

    def decode(self, out: KV) -> None:
        """Write their floats into ``out``."""
        self.codec.decode(self.records, *out)


Show = Callable[[Any, int], Shown | None]
"""Shows a layer of blocks, or a look at one, after so many new tokens; None: unpack it."""
ShowWith = Callable[[Codec, torch.device], Show | None]
"""What shows layers of a codec on a device; None: unpack them all."""


@dataclass(frozen=True)
class Room:
    """What a placement makes its layers of; packed ones share most of it.

    Attributes:
        capacity: most tokens of the run, guesses included.
        blocks: most blocks a layer can come to hold.
        scratch: where a layer's KV is unpacked for its pass.
        pipeline: brings offloaded layers (`mspeckv.kv.offloaded.Pipeline`).
        show: what an acceleration does instead of unpacking.
    """

    shape: KVShape
    policy: KVPolicy
    codec: Codec
    capacity: int
    blocks: int
    device: torch.device
    scratch: Buffer
    pipeline: Any
    show: Show | None = None


class BlockLayer(PlacedLayer):
    """KV in packed blocks at fixed absolute positions, the unfinished block as floats.

    Tokens enter the tail as floats; a block is packed only when all its tokens, and the policy's
    tail after them, are settled, with scales from the whole block. So the stored bytes depend on
    the tokens alone, not on the rounds and rejections by which they came (path independence).

    Subclasses say where the packed blocks live: `keep` stores new ones, `arrived` finds them all.
    """

    records: torch.Tensor
    """uint8 ``[most blocks, bytes]``."""

    def __init__(self, room: Room, index: int) -> None:
        super().__init__()
        self.index, self.blocks = index, 0
        self.codec, self.policy = room.codec, room.policy
        self.scratch, self.show = room.scratch, room.show
        self.tail = Buffer(room.shape, tail_tokens(room.policy), room.device)

    @property
    def contents(self) -> list[torch.Tensor]:
        """The tail's tokens, and finished blocks."""
        return [*self.tail.read(self.length - self.packed_tokens), self.records[: self.blocks]]

    @property
    def packed_tokens(self) -> int:
        """Tokens in finished blocks."""
        return self.blocks * self.codec.block

    def bytes_to_read(self, length: int) -> int:
        """Bytes of stored blocks, and of the float tail."""
        tail = length - self.packed_tokens
        return self.blocks * self.codec.record_bytes + tail * self.tail.token_bytes

    def append(self, key: torch.Tensor, value: torch.Tensor) -> Shown:
        """Take a pass's new tokens; show everything.

        A prompt read into an empty layer is shown as it came: attention over it is exact, and its
        whole blocks are packed, and sent away, once.
        """
        start, new = self.length, key.shape[2]
        self.length += new
        held = self.codec.turn(key), self.codec.turn(value)
        if start == 0:
            whole = packed_blocks(self.policy, self.length) * self.codec.block
            self.pack(held[0][:, :, :whole], held[1][:, :, :whole], "prefill")
            self.put(whole, held[0][:, :, whole:], held[1][:, :, whole:])
            return Floats(key, value)
        self.put(start, *held)
        shown = None
        if self.show is not None and self.blocks:
            shown = self.show(self, new)
        return self.in_its_axes(shown or self.read(self.length))

    def in_its_axes(self, shown: Shown) -> Shown:
        """What the layer shows, with word of the axes in which its codec keeps it."""
        return OtherAxes(shown, self.codec) if self.codec.turns else shown

    def put(self, start: int, key: torch.Tensor, value: torch.Tensor) -> None:
        """Write unsettled tokens from position ``start`` on."""
        self.tail.write(start - self.packed_tokens, key, value)

    def read(self, length: int) -> Floats:
        """The first ``length`` tokens, unpacked into the shared scratch buffer."""
        self.bring(length)
        return Floats(*self.scratch.read(length))

    def bring(self, length: int) -> None:
        """Have the shared scratch buffer hold the first ``length`` tokens."""
        with span("kv/copy" if self.policy.lossless else "kv/dequantize"):
            self.arrived().decode(self.scratch.read(self.packed_tokens))
            self.release()
        self.scratch.write(self.packed_tokens, *self.tail.read(length - self.packed_tokens))

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

    def arrived(self) -> Arrived:
        """All finished blocks, once they are on the device."""
        raise NotImplementedError

    def release(self) -> None:
        """What `arrived` gave has been read."""
