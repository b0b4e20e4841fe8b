"""Packing a block of keys and values into one record of bytes, and back.

K is quantized per channel over the block's tokens (its outliers sit in fixed channels), V per
token over groups of channels, both asymmetric: KIVI, arXiv 2402.02750, section 3. A record holds
everything one block needs, for all heads, so that a layer's stored KV is one contiguous run of
records and crosses the link in a single copy.

Codes narrower than a byte are packed along the tokens: with ``n`` codes to a byte, token ``t`` of
a block stands in plane ``t // (block / n)``, so unpacking writes long contiguous runs.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import Protocol

import torch

from mspeckv.kv.shape import KVShape
from mspeckv.settings import KVPolicy, Width

_SMALLEST_HALF = 2.0**-24


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


@dataclass(frozen=True)
class Part:
    """One tensor inside a record: byte range, stored dtype, shape per block."""

    offset: int
    bytes: int
    dtype: torch.dtype
    shape: tuple[int, ...]

    def view(self, records: torch.Tensor) -> torch.Tensor:
        """This part of ``records`` ``[n, record_bytes]`` as ``[n, *shape]``, without a copy."""
        piece = records[:, self.offset : self.offset + self.bytes]
        return piece.view(self.dtype).view(records.shape[0], *self.shape)


class BlockCodec:
    """Turns float blocks into byte records and back.

    Args:
        heads: KV heads H.
        dim: head dim D.
        block: tokens per block T.
        bits: 8, 4, 2 or ``"full"`` (the compute dtype's own bytes, lossless); a pair gives keys
            and values widths of their own.
        group: channels per V scale; of a head dim that it does not divide, the largest divisor
            under it.
        dtype: compute dtype.
        restore: unpacks on the device in one go, where an acceleration can.
    """

    def __init__(
        self,
        heads: int,
        dim: int,
        block: int,
        bits: Width | tuple[Width, Width],
        group: int,
        dtype: torch.dtype,
        restore: Restore | None = None,
    ) -> None:
        self.restore = restore
        widths = bits if isinstance(bits, tuple) else (bits, bits)
        self.heads, self.dim, self.block, self.dtype = heads, dim, block, dtype
        self.widths: dict[str, Width] = dict(zip("kv", widths, strict=True))
        self.group = max(g for g in range(1, min(group, dim) + 1) if dim % g == 0)
        self._parts: dict[str, Part] = {}
        self.record_bytes = 0
        scales = {"k": (heads, 1, dim), "v": (heads, block, dim // self.group)}
        for name, width in self.widths.items():
            if width == "full":
                self._add(name, dtype, (heads, block, dim))
                continue
            self._add(name, torch.uint8, (heads, block * width // 8, dim))
            self._add(f"{name}_step", torch.float16, scales[name])
            self._add(f"{name}_low", torch.float16, scales[name])

    @classmethod
    def of(cls, shape: KVShape, policy: KVPolicy, restore: Restore | None = None) -> BlockCodec:
        """The codec that a policy asks for."""
        return cls(
            shape.heads, shape.dim, policy.block, policy.widths, policy.group, shape.dtype, restore
        )

    def _add(self, name: str, dtype: torch.dtype, shape: tuple[int, ...]) -> None:
        size = prod(shape) * dtype.itemsize
        self._parts[name] = Part(self.record_bytes, size, dtype, shape)
        self.record_bytes += size

    @cached_property
    def offsets(self) -> tuple[int, ...]:
        """Where in a record the codes, steps and lows of keys, then of values, begin."""
        names = (f"{name}{scale}" for name in "kv" for scale in ("", "_step", "_low"))
        return tuple(self._parts[name].offset for name in names)

    def part(self, name: str, records: torch.Tensor) -> torch.Tensor:
        """One of the record's tensors, ``[n, *shape]``, as a view; see `BlockCodec.of`."""
        return self._parts[name].view(records)

    def encode(self, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        """Pack whole blocks.

        Args:
            key: ``[1, H, n * block, D]``.
            value: same shape.

        Returns:
            uint8 records ``[n, record_bytes]`` on the inputs' device.
        """
        count = key.shape[2] // self.block
        records = torch.empty(count, self.record_bytes, dtype=torch.uint8, device=key.device)
        for name, tensor in (("k", key), ("v", value)):
            blocks = self.blocks(tensor)
            if self.widths[name] == "full":
                self.part(name, records).copy_(blocks)
            elif name == "k":
                self._quantize(records, name, blocks, dim=2)
            else:
                self._quantize(records, name, blocks.unflatten(-1, (-1, self.group)), dim=4)
        return records

    def decode(self, records: torch.Tensor, key_out: torch.Tensor, value_out: torch.Tensor) -> None:
        """Unpack ``records`` ``[n, record_bytes]`` into ``[1, H, n * block, D]`` outputs."""
        for name, out in (("k", key_out), ("v", value_out)):
            blocks = self.blocks(out).transpose(0, 1)
            packed = self.part(name, records).transpose(0, 1)
            width = self.widths[name]
            if width == "full":
                blocks.copy_(packed)
                continue
            if self.restore is not None:
                self.restore(
                    self.part(name, records), width, *self.scales(records, name), self.blocks(out)
                )
                continue
            _unpack(packed, width, blocks)
            self.rescale(records, name, blocks)

    def scales(self, records: torch.Tensor, name: str) -> tuple[torch.Tensor, torch.Tensor]:
        """Steps and lows of ``k`` or ``v``, as views; shapes as in ``__init__``."""
        return self.part(f"{name}_step", records), self.part(f"{name}_low", records)

    def rescale(
        self, records: torch.Tensor, name: str, codes: torch.Tensor, shift: float = 0.0
    ) -> None:
        """Turn codes ``[H, n, T, D]`` into values in place: ``low + step * (code + shift)``."""
        step, low = (part.transpose(0, 1).to(self.dtype) for part in self.scales(records, name))
        if shift:
            low = low + shift * step
        if name == "k":
            torch.addcmul(low, codes, step, out=codes)
            return
        # mul and add, not addcmul: it has no fast path for a scale constant along the row
        grouped = codes.unflatten(-1, (-1, self.group))
        grouped.mul_(step.unsqueeze(-1)).add_(low.unsqueeze(-1))

    def blocks(self, tensor: torch.Tensor) -> torch.Tensor:
        """``[1, H, n * T, D] -> [n, H, T, D]``, a view."""
        blocks: torch.Tensor = tensor[0].unflatten(1, (-1, self.block)).transpose(0, 1)
        return blocks

    def _quantize(self, records: torch.Tensor, name: str, x: torch.Tensor, dim: int) -> None:
        """Codes ``c = round((x - low) / step)`` of one tensor, ``low`` and ``step`` along ``dim``.

        ``low`` is rounded to half precision downwards and ``step`` upwards first, and the codes
        are taken against the rounded pair, so that rounding them never pushes a value out of
        range: the error stays at most step / 2.
        """
        width = self.widths[name]
        assert width != "full"
        top = 2**width - 1
        wide = x.float()
        low = _half_down(wide.amin(dim, keepdim=True))
        step = _half_up((wide.amax(dim, keepdim=True) - low.float()) / top)
        step = step.clamp_min(_SMALLEST_HALF)
        codes = ((wide - low.float()) / step.float()).round_().clamp_(0, top).to(torch.uint8)
        if dim == 4:
            codes, low, step = codes.flatten(3), low.squeeze(4), step.squeeze(4)
        planes = codes.unflatten(2, (8 // width, -1)).unbind(2)
        packed = planes[0]
        for index, plane in enumerate(planes[1:], start=1):
            packed = packed | (plane << (index * width))
        self.part(name, records).copy_(packed)
        self.part(f"{name}_low", records).copy_(low)
        self.part(f"{name}_step", records).copy_(step)


def _unpack(packed: torch.Tensor, width: int, out: torch.Tensor) -> None:
    """Codes ``[H, n, T * width / 8, D]`` as floats in ``out`` ``[H, n, T, D]``."""
    if width == 8:
        out.copy_(packed)
        return
    planes = out.unflatten(2, (8 // width, -1)).unbind(2)
    for index, plane in enumerate(planes):
        codes = packed >> (index * width) if index else packed
        # above the last plane there is nothing to clear
        plane.copy_(codes & (2**width - 1) if index < len(planes) - 1 else codes)


def _half_down(x: torch.Tensor) -> torch.Tensor:
    """Largest float16 not above ``x``."""
    half = x.to(torch.float16)
    lower = torch.nextafter(half, torch.full_like(half, float("-inf")))
    return torch.where(half.float() > x, lower, half)


def _half_up(x: torch.Tensor) -> torch.Tensor:
    """Smallest float16 not under ``x``."""
    return -_half_down(-x)
