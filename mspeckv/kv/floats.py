"""Keys and values as floats on the device: what is shown of them, their memory, their layers."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from mspeckv.context import KV
from mspeckv.kv.layers import PlacedLayer
from mspeckv.kv.shape import KVShape


@dataclass(frozen=True)
class Floats:
    """Every token's key and value as floats ``[B, H, S, D]``."""

    key: torch.Tensor
    value: torch.Tensor

    @property
    def tokens(self) -> int:
        """How many tokens there are."""
        return self.key.shape[2]

    def newest(self, count: int) -> KV:
        """The last ``count`` tokens, as views."""
        return self.key[:, :, -count:], self.value[:, :, -count:]

    def whole(self) -> KV:
        """Everything, as it is."""
        return self.key, self.value

    def release(self) -> None:
        """Nothing to give back."""


class Buffer:
    """Preallocated K and V of one layer ``[1, H, capacity, D]``."""

    def __init__(self, shape: KVShape, capacity: int, device: torch.device) -> None:
        size = 1, shape.heads, capacity, shape.dim
        self.key = torch.empty(size, dtype=shape.dtype, device=device)
        self.value = torch.empty_like(self.key)
        self.token_bytes = shape.token_bytes

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

    def put(self, start: int, key: torch.Tensor, value: torch.Tensor) -> None:
        """Write tokens from position ``start`` on."""
        self.buffer.write(start, key, value)

    def read(self, length: int) -> Floats:
        """The first ``length`` tokens, as views."""
        return Floats(*self.buffer.read(length))

    def bytes_to_read(self, length: int) -> int:
        """Bytes of the tokens."""
        return length * self.buffer.token_bytes

    @property
    def contents(self) -> list[torch.Tensor]:
        """The tokens."""
        return [*self.buffer.read(self.length)]

    def bytes_by_place(self) -> dict[str, int]:
        """Bytes allocated for this layer alone."""
        return {"on_chip": self.buffer.bytes}
