"""Packed layers whose blocks stay on the device, in either format."""

from __future__ import annotations

import torch

from mspeckv.events import Purpose
from mspeckv.kv.blocks import BlockLayer, Store
from mspeckv.kv.layers import KV, Buffer


class ResidentLayer(BlockLayer):
    """Packed blocks in device memory, unpacked in every pass: nothing crosses the link."""

    def __init__(self, store: Store, tail: Buffer, index: int) -> None:
        super().__init__(store, tail, index)
        self.records = torch.empty(
            store.blocks, store.codec.record_bytes, dtype=torch.uint8, device=tail.key.device
        )

    @property
    def contents(self) -> list[torch.Tensor]:
        """Tail and records."""
        return [*super().contents, self.records[: self.blocks]]

    def keep(self, records: torch.Tensor, purpose: Purpose) -> None:
        """Store new records after those held."""
        self.records[self.blocks : self.blocks + len(records)] = records

    def unpack(self, out: KV, coarse: bool) -> None:
        """Decode all finished blocks into ``out``."""
        records = self.records[: self.blocks]
        if coarse:
            assert self.store.planes is not None
            self.store.planes.coarse_whole(records, *out)
        else:
            self.codec.decode(records, *out)

    def arrived(self) -> torch.Tensor:
        """All finished blocks."""
        return self.records[: self.blocks]

    def bytes_by_place(self) -> dict[str, int]:
        """Records on the device, and the tail."""
        return {"resident": self.records.numel(), "tail": self.tail.bytes}


class FloatResidentLayer(BlockLayer):
    """The values that packed blocks would give, kept unpacked: bytes spent to save time.

    One buffer holds the whole layer; a finished block is quantized and decoded in place.
    """

    brings = False

    @property
    def contents(self) -> list[torch.Tensor]:
        """The one buffer's tokens."""
        return [*self.tail.read(self.length)]

    @property
    def view(self) -> Buffer:
        """The one buffer."""
        return self.tail

    def bring(self, length: int, coarse: bool = False) -> None:
        """Nothing to do: every token is in `view`."""

    def write_at(
        self, slots: torch.Tensor, tail: torch.Tensor, key: torch.Tensor, value: torch.Tensor
    ) -> None:
        """Put ``[1, H, n, D]`` at ``slots`` ``[n]``."""
        self.tail.write_at(slots, key, value)

    @property
    def packed_bytes(self) -> int:
        """Bytes of finished blocks that a pass reads."""
        key, value = self.tail.read(self.packed_tokens)
        return (key.numel() + value.numel()) * key.element_size()

    def put(self, start: int, key: torch.Tensor, value: torch.Tensor) -> None:
        """Write tokens from position ``start`` on."""
        self.tail.write(start, key, value)

    def show(self, length: int, coarse: bool = False) -> KV:
        """The first ``length`` tokens, as views."""
        return self.tail.read(length)

    def flush(self) -> None:
        """Quantize the oldest float block in place."""
        start = self.packed_tokens
        self.pack(*self.tail.read(start + self.codec.block, start), "flush")

    def keep(self, records: torch.Tensor, purpose: Purpose) -> None:
        """Decode new records to where their tokens stand."""
        start = self.packed_tokens
        end = start + len(records) * self.codec.block
        self.codec.decode(records, *self.tail.read(end, start))

    def bytes_by_place(self) -> dict[str, int]:
        """The one buffer."""
        return {"resident": self.tail.bytes}
