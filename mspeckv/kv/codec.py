"""How a block of keys and values becomes one record of bytes, and floats again.

A record holds everything that one block needs, for all heads, so that a layer's stored KV is one
contiguous run of records and crosses the link in a single copy. What stands in it is a codec's
business: `mspeckv.kv.quantize` is the engine's own, `mspeckv.extensions.rotated_codec` another.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any, Protocol

import torch

from mspeckv.context import KV, Around, Shown
from mspeckv.kv.door import Door
from mspeckv.kv.shape import KVShape
from mspeckv.settings import KVPolicy, Width


class Restore(Protocol):
    """An acceleration's way to turn codes into values (`mspeckv.accelerate.triton_unpack`)."""

    def __call__(
        self,
        codes: torch.Tensor,
        width: int,
        step: torch.Tensor,
        low: torch.Tensor,
        out: torch.Tensor,
        *,
        lower: torch.Tensor | None = None,
        upper_only: bool = False,
        shift: float = 0.0,
    ) -> None:
        """Write ``low + step * (code + shift)`` into ``out`` ``[n, H, T, D]``."""


class Codec:
    """Turns float blocks into byte records and back.

    Args:
        shape: heads H, head dim D and compute dtype.
        policy: tokens per block T, and the widths of keys and values.
        restore: turns codes into values on the device in one go, where an acceleration can.

    Attributes:
        record_bytes: bytes of one block, all heads, keys and values.
        turns: whether stored KV lies in other axes than the model's; see `turn`.
    """

    turns = False

    def __init__(self, shape: KVShape, policy: KVPolicy, restore: Restore | None = None) -> None:
        self.shape, self.policy, self.restore = shape, policy, restore
        self.heads, self.dim, self.dtype = shape.heads, shape.dim, shape.dtype
        self.block = policy.block
        self.widths: dict[str, Width] = dict(zip("kv", self.code_widths(policy), strict=True))
        self.record_bytes = 0
        # where in a record, of which dtype and shape
        self._parts: dict[str, tuple[slice, torch.dtype, tuple[int, ...]]] = {}

    def code_widths(self, policy: KVPolicy) -> tuple[Width, Width]:
        """Bits of codes of keys and of values; the policy's."""
        return policy.widths

    def encode(self, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        """Whole blocks ``[1, H, n * T, D]`` as uint8 records ``[n, record_bytes]``, where they are.

        A block's record depends on that block alone, however many come with it.
        """
        raise NotImplementedError

    def decode(self, records: torch.Tensor, key_out: torch.Tensor, value_out: torch.Tensor) -> None:
        """Unpack ``records`` ``[n, record_bytes]`` into ``[1, H, n * T, D]`` outputs."""
        raise NotImplementedError

    def turn(self, x: torch.Tensor) -> torch.Tensor:
        """``[..., D]`` in the axes in which a layer holds its KV: an orthogonal map.

        The layer turns keys and values as they come, attention its queries; so scores are what
        they were, and the output is turned back. Each row must come out alike, whatever other
        rows there are.
        """
        return x

    def turn_back(self, x: torch.Tensor) -> torch.Tensor:
        """The inverse of `turn`."""
        return x

    def add(self, name: str, dtype: torch.dtype, shape: tuple[int, ...]) -> None:
        """Give a tensor ``shape`` of every block a place in the record."""
        start = self.record_bytes
        self.record_bytes += prod(shape) * dtype.itemsize
        self._parts[name] = slice(start, self.record_bytes), dtype, shape

    def part(self, name: str, records: torch.Tensor) -> torch.Tensor:
        """One of the record's tensors, ``[n, *shape]``, as a view."""
        place, dtype, shape = self._parts[name]
        return records[:, place].view(dtype).view(records.shape[0], *shape)

    def records_for(self, key: torch.Tensor) -> torch.Tensor:
        """Room for the records of keys ``[1, H, n * T, D]``."""
        size = key.shape[2] // self.block, self.record_bytes
        return torch.empty(size, dtype=torch.uint8, device=key.device)

    def blocks(self, tensor: torch.Tensor) -> torch.Tensor:
        """``[1, H, n * T, D] -> [n, H, T, D]``, a view."""
        blocks: torch.Tensor = tensor[0].unflatten(1, (-1, self.block)).transpose(0, 1)
        return blocks


@dataclass(frozen=True)
class OtherAxes(Around):
    """What a layer shows whose codec turns its tokens.

    Whoever looks on sees the model's axes; attention turns its queries and reads ``inner``.
    """

    inner: Shown
    codec: Codec

    def newest(self, count: int) -> KV:
        """The last ``count`` tokens, turned back."""
        key, value = self.inner.newest(count)
        return self.codec.turn_back(key), self.codec.turn_back(value)

    def whole(self) -> KV:
        """Everything, turned back."""
        key, value = self.inner.whole()
        return self.codec.turn_back(key), self.codec.turn_back(value)


codecs: Door[Any] = Door("codec")
"""Called as ``codec(shape, policy, restore)``; return a `Codec`."""


def codec_of(shape: KVShape, policy: KVPolicy, restore: Restore | None = None) -> Codec:
    """The codec that a policy asks for.

    Raises:
        ValueError: there is none of that name, or it does not go with the policy.
    """
    made: Codec = codecs.find(policy.codec)(shape, policy, restore)
    return made
