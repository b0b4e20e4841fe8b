"""int8 blocks as two int4 planes.

A code of 8 bits is ``16 * upper + lower``. The upper plane with the scales is a 4-bit cache of its
own, exact to half a step of 16; the lower plane makes it int8 again. Kept on the device, the upper
planes give tier 1 the *whole* context, and a verification streams the lower planes alone (idea:
QuantSpec, arXiv 2502.10424, section 4.2; there both planes stay on the device).
"""

from __future__ import annotations

import torch

from mspeckv.config import KVPolicy
from mspeckv.kv.fused import usable
from mspeckv.kv.quantize import BlockCodec
from mspeckv.kv.shape import KVShape

_MIDDLE = 7.5
"""What an unknown lower nibble is taken for: the mean of 0 .. 15."""


class NibblePlanes:
    """Splits int8 records into planes and joins them again.

    Args:
        shape: the target's KV shape.
        policy: its block and group; its width is 8.
    """

    def __init__(self, shape: KVShape, policy: KVPolicy) -> None:
        self.whole = BlockCodec.of(shape, policy)
        # An upper plane is laid out as an int4 record: packed codes, the same scales.
        self.upper = BlockCodec(shape.heads, shape.dim, policy.block, 4, policy.group, shape.dtype)
        self._plane = (shape.heads, policy.block // 2, shape.dim)
        self.lower_bytes = 2 * shape.heads * policy.block // 2 * shape.dim

    def split(self, records: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """int8 records ``[n, bytes]`` as upper ``[n, upper bytes]`` and lower ``[n, lower_bytes]``.

        A byte of either plane holds tokens t and t + T/2 of its block.
        """
        count = len(records)
        upper = records.new_empty(count, self.upper.record_bytes)
        lower = records.new_empty(count, self.lower_bytes)
        for index, name in enumerate("kv"):
            first, second = self.whole.part(name, records).unflatten(2, (2, -1)).unbind(2)
            self.upper.part(name, upper).copy_((first >> 4) | (second & 0xF0))
            self._lower(lower, index).copy_((first & 0x0F) | (second << 4))
            for scale in (f"{name}_step", f"{name}_low"):
                self.upper.part(scale, upper).copy_(self.whole.part(scale, records))
        return upper, lower

    def join(
        self, upper: torch.Tensor, lower: torch.Tensor, key: torch.Tensor, value: torch.Tensor
    ) -> None:
        """Decode both planes into ``[1, H, n * T, D]``: what the int8 records would give."""
        for index, (name, out) in enumerate((("k", key), ("v", value))):
            if usable(upper):
                codes, rest = self.upper.part(name, upper), self._lower(lower, index)
                self.upper.fuse(upper, name, codes, 4, out, lower=rest)
                continue
            blocks = self.whole.blocks(out).transpose(0, 1)
            first, second = blocks.unflatten(2, (2, -1)).unbind(2)
            high = self.upper.part(name, upper).transpose(0, 1)
            low = self._lower(lower, index).transpose(0, 1)
            first.copy_(((high & 0x0F) << 4) | (low & 0x0F))
            second.copy_((high & 0xF0) | (low >> 4))
            self.upper.rescale(upper, name, blocks)

    def coarse(self, upper: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> None:
        """Decode the upper plane alone."""
        for name, out in (("k", key), ("v", value)):
            if usable(upper):
                codes = self.upper.part(name, upper)
                self.upper.fuse(upper, name, codes, 4, out, upper_only=True, shift=_MIDDLE)
                continue
            blocks = self.whole.blocks(out).transpose(0, 1)
            first, second = blocks.unflatten(2, (2, -1)).unbind(2)
            high = self.upper.part(name, upper).transpose(0, 1)
            first.copy_((high & 0x0F) << 4)
            second.copy_(high & 0xF0)
            self.upper.rescale(upper, name, blocks, shift=_MIDDLE)

    def coarse_whole(self, records: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> None:
        """The same from int8 records, of which only the upper nibbles are used."""
        for name, out in (("k", key), ("v", value)):
            if usable(records):
                codes = self.whole.part(name, records)
                self.whole.fuse(records, name, codes, 8, out, upper_only=True, shift=_MIDDLE)
                continue
            blocks = self.whole.blocks(out).transpose(0, 1)
            blocks.copy_(self.whole.part(name, records).transpose(0, 1) & 0xF0)
            self.whole.rescale(records, name, blocks, shift=_MIDDLE)

    def _lower(self, lower: torch.Tensor, index: int) -> torch.Tensor:
        """Keys' (0) or values' (1) lower plane ``[n, H, T / 2, D]``, a view."""
        plane: torch.Tensor = lower.unflatten(1, (2, *self._plane))[:, index]
        return plane
