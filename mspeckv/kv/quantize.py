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
from math import prod

import torch

from mspeckv.config import Width, refuse

_SMALLEST_HALF = 2.0**-24


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
        bits: 8, 4, 2 or ``"full"`` (the compute dtype's own bytes, lossless).
        group: channels per V scale; head dims under it use one group.
        dtype: compute dtype.

    Raises:
        ValueError: ``group`` does not divide the head dim.
    """

    def __init__(
        self, heads: int, dim: int, block: int, bits: Width, group: int, dtype: torch.dtype
    ) -> None:
        self.heads, self.dim, self.block, self.bits, self.dtype = heads, dim, block, bits, dtype
        self.group = min(group, dim)
        if bits != "full" and dim % self.group:
            raise refuse("group", group, f"use a divisor of the head dim {dim}")
        self._parts: dict[str, Part] = {}
        self.record_bytes = 0
        if bits == "full":
            self._add("k", dtype, (heads, block, dim))
            self._add("v", dtype, (heads, block, dim))
            return
        packed = block * bits // 8
        scales = (heads, block, dim // self.group)
        self._add("k", torch.uint8, (heads, packed, dim))
        self._add("k_step", torch.float16, (heads, 1, dim))
        self._add("k_low", torch.float16, (heads, 1, dim))
        self._add("v", torch.uint8, (heads, packed, dim))
        self._add("v_step", torch.float16, scales)
        self._add("v_low", torch.float16, scales)

    def _add(self, name: str, dtype: torch.dtype, shape: tuple[int, ...]) -> None:
        size = prod(shape) * dtype.itemsize
        self._parts[name] = Part(self.record_bytes, size, dtype, shape)
        self.record_bytes += size

    @property
    def lossless(self) -> bool:
        """Whether decoding gives back exactly what was encoded."""
        return self.bits == "full"

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
        key, value = self._blocks(key), self._blocks(value)
        if self.bits == "full":
            self._parts["k"].view(records).copy_(key)
            self._parts["v"].view(records).copy_(value)
            return records
        grouped = value.unflatten(-1, (-1, self.group))
        self._quantize(records, "k", key, dim=2)
        self._quantize(records, "v", grouped, dim=4)
        return records

    def decode(self, records: torch.Tensor, key_out: torch.Tensor, value_out: torch.Tensor) -> None:
        """Unpack ``records`` ``[n, record_bytes]`` into ``[1, H, n * block, D]`` outputs."""
        key = self._blocks(key_out).transpose(0, 1)
        value = self._blocks(value_out).transpose(0, 1)
        if self.bits == "full":
            key.copy_(self._parts["k"].view(records).transpose(0, 1))
            value.copy_(self._parts["v"].view(records).transpose(0, 1))
            return
        self._unpack(self._parts["k"].view(records).transpose(0, 1), key)
        low, step = self._scales(records, "k")
        torch.addcmul(low, key, step, out=key)
        self._unpack(self._parts["v"].view(records).transpose(0, 1), value)
        low, step = self._scales(records, "v")
        # mul and add, not addcmul: it has no fast path for a scale constant along the row
        grouped = value.unflatten(-1, (-1, self.group))
        grouped.mul_(step.unsqueeze(-1)).add_(low.unsqueeze(-1))

    def _blocks(self, tensor: torch.Tensor) -> torch.Tensor:
        """``[1, H, n * T, D] -> [n, H, T, D]``, a view."""
        blocks: torch.Tensor = tensor[0].unflatten(1, (-1, self.block)).transpose(0, 1)
        return blocks

    def _scales(self, records: torch.Tensor, name: str) -> tuple[torch.Tensor, torch.Tensor]:
        low = self._parts[f"{name}_low"].view(records).transpose(0, 1).to(self.dtype)
        return low, self._parts[f"{name}_step"].view(records).transpose(0, 1).to(self.dtype)

    def _quantize(self, records: torch.Tensor, name: str, x: torch.Tensor, dim: int) -> None:
        """Codes ``c = round((x - low) / step)`` of one tensor, ``low`` and ``step`` along ``dim``.

        ``low`` is rounded to half precision downwards and ``step`` upwards first, and the codes
        are taken against the rounded pair, so that rounding them never pushes a value out of
        range: the error stays at most step / 2.
        """
        assert self.bits != "full"
        top = 2**self.bits - 1
        wide = x.float()
        low = _half_down(wide.amin(dim, keepdim=True))
        step = _half_up((wide.amax(dim, keepdim=True) - low.float()) / top)
        step = step.clamp_min(_SMALLEST_HALF)
        codes = ((wide - low.float()) / step.float()).round_().clamp_(0, top).to(torch.uint8)
        if dim == 4:
            codes, low, step = codes.flatten(3), low.squeeze(4), step.squeeze(4)
        planes = codes.unflatten(2, (8 // self.bits, -1)).unbind(2)
        packed = planes[0]
        for index, plane in enumerate(planes[1:], start=1):
            packed = packed | (plane << (index * self.bits))
        self._parts[name].view(records).copy_(packed)
        self._parts[f"{name}_low"].view(records).copy_(low)
        self._parts[f"{name}_step"].view(records).copy_(step)

    def _unpack(self, packed: torch.Tensor, out: torch.Tensor) -> None:
        """Codes ``[H, n, T * bits / 8, D]`` as floats in ``out`` ``[H, n, T, D]``."""
        assert self.bits != "full"
        if self.bits == 8:
            out.copy_(packed)
            return
        top = 2**self.bits - 1
        for index, plane in enumerate(out.unflatten(2, (8 // self.bits, -1)).unbind(2)):
            plane.copy_((packed >> (index * self.bits)) & top)


def _half_down(x: torch.Tensor) -> torch.Tensor:
    """Largest float16 not above ``x``."""
    half = x.to(torch.float16)
    lower = torch.nextafter(half, torch.full_like(half, float("-inf")))
    return torch.where(half.float() > x, lower, half)


def _half_up(x: torch.Tensor) -> torch.Tensor:
    """Smallest float16 not under ``x``."""
    return -_half_down(-x)
