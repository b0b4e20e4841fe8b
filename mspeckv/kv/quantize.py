"""The engine's codec: keys quantized per channel, values per token.

K is quantized per channel over the block's tokens (its outliers sit in fixed channels), V per
token over groups of channels, both asymmetric: KIVI, arXiv 2402.02750, section 3.

Codes narrower than a byte are packed along the tokens: with ``n`` codes to a byte, token ``t`` of a
block is code ``t // (block / n)`` of its byte, so unpacking writes long contiguous runs.
"""

from __future__ import annotations

from functools import cached_property

import torch

from mspeckv.kv.codec import Codec, Restore, codecs
from mspeckv.kv.shape import KVShape
from mspeckv.settings import KVPolicy

_SMALLEST_HALF = 2.0**-24


@codecs.register("kivi")
class BlockCodec(Codec):
    """Codes, and a step and a low for each channel of a block or each group of a token.

    At width ``"full"`` the record holds the compute dtype's own bytes, lossless.

    Attributes:
        group: channels per scale of a token; of a head dim that the policy's group does not
            divide, the largest divisor under it.
        by_channel: names of the tensors that have a scale per channel; the other has one per token.
    """

    by_channel: tuple[str, ...] = ("k",)

    def __init__(self, shape: KVShape, policy: KVPolicy, restore: Restore | None = None) -> None:
        super().__init__(shape, policy, restore)
        heads, dim, block = self.heads, self.dim, self.block
        self.group = max(g for g in range(1, min(policy.group, dim) + 1) if dim % g == 0)
        for name, width in self.widths.items():
            if width == "full":
                self.add(name, self.dtype, (heads, block, dim))
                continue
            token_wise = (heads, block, dim // self.group)
            scales = (heads, 1, dim) if name in self.by_channel else token_wise
            self.add(name, torch.uint8, (heads, block * width // 8, dim))
            self.add(f"{name}_step", torch.float16, scales)
            self.add(f"{name}_low", torch.float16, scales)

    @cached_property
    def offsets(self) -> tuple[int, ...]:
        """Where in a record the codes, steps and lows of keys, then of values, begin."""
        names = (f"{name}{scale}" for name in "kv" for scale in ("", "_step", "_low"))
        return tuple(self._parts[name][0].start for name in names)

    def encode(self, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        """Pack whole blocks; see `Codec.encode`."""
        records = self.records_for(key)
        for name, tensor in (("k", key), ("v", value)):
            blocks = self.blocks(tensor)
            if self.widths[name] == "full":
                self.part(name, records).copy_(blocks)
            elif name in self.by_channel:
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
            if self.restore is not None and len(planes(width)) == 1:
                self.restore(
                    self.part(name, records), width, *self.scales(records, name), self.blocks(out)
                )
                continue
            unpack_bits(packed, width, blocks)
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
        if name in self.by_channel:
            torch.addcmul(low, codes, step, out=codes)
            return
        # mul and add, not addcmul: it has no fast path for a scale constant along the row
        grouped = codes.unflatten(-1, (-1, self.group))
        grouped.mul_(step.unsqueeze(-1)).add_(low.unsqueeze(-1))

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
        self.part(name, records).copy_(pack_bits(codes, width))
        self.part(f"{name}_low", records).copy_(low)
        self.part(f"{name}_step", records).copy_(step)


def planes(width: int) -> tuple[int, ...]:
    """Widths that divide a byte and make up ``width``: 4 and 2 and 1 bits for 7."""
    return tuple(bits for bits in (8, 4, 2, 1) if width & bits)


def pack_bits(codes: torch.Tensor, width: int) -> torch.Tensor:
    """uint8 codes ``[n, H, T, D]`` under ``2 ** width`` as bytes ``[n, H, T * width / 8, D]``.

    A width that does not divide a byte is stored as two or three that do, the low bits last.
    """
    made, left = [], width
    for bits in planes(width):
        left -= bits
        parts = ((codes >> left) & (2**bits - 1)).unflatten(2, (8 // bits, -1)).unbind(2)
        packed = parts[0].clone()
        for index, part in enumerate(parts[1:], start=1):
            packed |= part << (index * bits)
        made.append(packed)
    return made[0] if len(made) == 1 else torch.cat(made, dim=2)


def unpack_bits(packed: torch.Tensor, width: int, out: torch.Tensor) -> None:
    """Codes ``[..., T * width / 8, D]`` as numbers in ``out`` ``[..., T, D]``, of any dtype."""
    tokens, start, left = out.shape[-2], 0, width
    for bits in planes(width):
        left -= bits
        piece = packed.narrow(-2, start, tokens * bits // 8)
        start += tokens * bits // 8
        if bits == 8:
            out.copy_(piece)
            return
        first = left + bits == width
        for index, part in enumerate(out.unflatten(-2, (8 // bits, -1)).unbind(-3)):
            codes = piece >> (index * bits) if index else piece
            # above the last code of a byte there is nothing to clear
            codes = codes & (2**bits - 1) if index < 8 // bits - 1 else codes
            write = part.copy_ if first else part.add_
            write(codes << left if left else codes)


def _half_down(x: torch.Tensor) -> torch.Tensor:
    """Largest float16 not above ``x``."""
    half = x.to(torch.float16)
    lower = torch.nextafter(half, torch.full_like(half, float("-inf")))
    return torch.where(half.float() > x, lower, half)


def _half_up(x: torch.Tensor) -> torch.Tensor:
    """Smallest float16 not under ``x``."""
    return -_half_down(-x)
