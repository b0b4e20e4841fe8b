"""Codecs that turn keys and values before they quantize them.

A few channels of a key are far larger than the rest, and whoever shares a scale with them is
quantized coarsely. Multiplied by a Hadamard matrix, each channel becomes a mixture of all, and none
stands out (QuaRot, arXiv 2404.00456, section 4). A query turned alike has the same scores, so a
layer's KV stays turned; attention's output is turned back.

Turned coordinates look like draws of a normal distribution, for which the best codes are known
beforehand (Lloyd and Max): one scale for a token is all that is stored besides (TurboQuant, arXiv
2504.19874, algorithm 1). What such codes lose of a key can be sketched in one bit a coordinate,
which makes scores right on average (QJL, arXiv 2406.03482; TurboQuant, algorithm 2). The bit is
taken from the key's codes.

    KVPolicy(bits=4, codec="rotated")          uniform codes between a token's least and largest
    KVPolicy(bits=4, codec="lloyd")            Lloyd-Max codes
    KVPolicy(bits=4, codec="rotated-sketch")   the same, keys with a bit less and a sketch
    KVPolicy(bits=4, codec="lloyd-sketch")
"""

from __future__ import annotations

from functools import cache
from math import pi

import torch

from mspeckv.kv.codec import Codec, Restore, codecs
from mspeckv.kv.quantize import BlockCodec, pack_bits, unpack_bits
from mspeckv.kv.shape import KVShape
from mspeckv.settings import KVPolicy

_TURN, _SKETCH = 1, 2
"""Seeds of the random signs: the layers' axes, and the sketch's."""


def hadamard(x: torch.Tensor) -> torch.Tensor:
    """``[..., D]`` times a Hadamard matrix scaled to keep lengths; it is its own inverse.

    Of a D that is no power of two, as many channels at a time as the largest one that divides it.
    Sums and differences alone, so that a row comes out the same whatever rows are beside it.
    """
    dim = x.shape[-1]
    size, half = dim & -dim, 1
    y = x.float().unflatten(-1, (-1, size))
    while half < size:
        one, other = y.unflatten(-1, (-1, 2, half)).unbind(-2)
        y = torch.stack((one + other, one - other), -2).flatten(-3)
        half *= 2
    scaled: torch.Tensor = y.flatten(-2) * size**-0.5
    return scaled.to(x.dtype)


@cache
def random_signs(dim: int, seed: int, device: torch.device) -> torch.Tensor:
    """``[D]`` of 1 and -1, the same in every run."""
    generator = torch.Generator().manual_seed(seed)
    signs = torch.randint(0, 2, (dim,), generator=generator, device="cpu") * 2 - 1
    return signs.to(device, torch.float32)


@cache
def lloyd_table(bits: int, device: torch.device) -> torch.Tensor:
    """The ``2 ** bits`` values that quantize a standard normal with least squared error, in order.

    Lloyd's iteration: each value is the mean of those numbers that are nearest to it.
    """
    count = 2**bits
    middle = (torch.arange(count, dtype=torch.float64, device="cpu") + 0.5) / count
    # the density of good values is the cube root of the normal's: a normal of variance 3
    table = 3**0.5 * torch.special.ndtri(middle)
    for _ in range(1000):
        inner = (table[1:] + table[:-1]) / 2
        edge = torch.full((1,), float("inf"), dtype=torch.float64, device="cpu")
        ends = torch.cat((-edge, inner, edge))
        density = torch.exp(-(ends**2) / 2) / (2 * pi) ** 0.5
        table = (density[:-1] - density[1:]) / torch.special.ndtr(ends).diff()
    values: torch.Tensor = table.to(device, torch.float32)
    return values


class HadamardCodec(Codec):
    """A codec whose layers lie in axes of their own."""

    turns = True
    sketch_bits = 0
    """Bits of a key's width that are no codes."""

    def code_widths(self, policy: KVPolicy) -> tuple[int, int]:
        """Bits of codes of keys and of values."""
        keys, values = (int(width) for width in policy.widths)
        return keys - self.sketch_bits, values

    def turn(self, x: torch.Tensor) -> torch.Tensor:
        """``[..., D]`` with signs of its own, times a Hadamard matrix."""
        return hadamard(x * random_signs(self.dim, _TURN, x.device).to(x.dtype))

    def turn_back(self, x: torch.Tensor) -> torch.Tensor:
        """The inverse of `turn`."""
        return hadamard(x) * random_signs(self.dim, _TURN, x.device).to(x.dtype)


@codecs.register("rotated")
class RotatedCodec(HadamardCodec, BlockCodec):
    """Uniform codes, keys and values alike: a step and a low for each token and group."""

    by_channel = ()


@codecs.register("lloyd")
class LloydCodec(HadamardCodec):
    """Lloyd-Max codes and one scale for each token and head.

    The scale is the one with the least squared error, so that no length has to be kept.
    """

    def __init__(self, shape: KVShape, policy: KVPolicy, restore: Restore | None = None) -> None:
        super().__init__(shape, policy, restore)
        for name, width in self.widths.items():
            self.add(name, torch.uint8, (self.heads, self.block * int(width) // 8, self.dim))
            self.add(f"{name}_scale", torch.float16, (self.heads, self.block, 1))

    def encode(self, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        """Pack whole blocks; see `Codec.encode`."""
        records = self.records_for(key)
        for name, tensor in (("k", key), ("v", value)):
            blocks, width = self.blocks(tensor).float(), int(self.widths[name])
            table = lloyd_table(width, key.device)
            spread = blocks.square().mean(-1, keepdim=True).sqrt().clamp_min(1e-12)
            borders = (table[1:] + table[:-1]) / 2
            codes = torch.bucketize((blocks / spread).contiguous(), borders)
            nearest = table[codes]
            product, own = (blocks * nearest).sum(-1, keepdim=True), nearest.square()
            scale = product / own.sum(-1, keepdim=True)
            self.part(name, records).copy_(pack_bits(codes.to(torch.uint8), width))
            self.part(f"{name}_scale", records).copy_(scale)
        return records

    def decode(self, records: torch.Tensor, key_out: torch.Tensor, value_out: torch.Tensor) -> None:
        """Unpack ``records`` ``[n, record_bytes]`` into ``[1, H, n * T, D]`` outputs."""
        for name, out in (("k", key_out), ("v", value_out)):
            blocks, width = self.blocks(out), int(self.widths[name])
            codes = torch.empty(blocks.shape, dtype=torch.uint8, device=out.device)
            unpack_bits(self.part(name, records), width, codes)
            table = lloyd_table(width, out.device).to(out.dtype)
            scale = self.part(f"{name}_scale", records).to(out.dtype)
            blocks.copy_(table[codes.int()] * scale)


class Sketched(HadamardCodec):
    """Keys with a bit less, and a one-bit sketch of what their codes lose.

    Of what is lost, r, the signs of its coordinates in other axes Q are kept, and its length. Over
    random Q, ``|r| * sqrt(pi / (2 * D)) * Q.T @ sign(Q @ r)`` has the right product with any query
    on average, whatever the codes were (QJL, lemma 3.2). Its spread is the price.
    """

    sketch_bits = 1

    def __init__(self, shape: KVShape, policy: KVPolicy, restore: Restore | None = None) -> None:
        super().__init__(shape, policy, restore)
        self.add("k_signs", torch.uint8, (self.heads, self.block // 8, self.dim))
        self.add("k_lost", torch.float16, (self.heads, self.block, 1))

    def encode(self, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        """Pack whole blocks; see `Codec.encode`."""
        records = super().encode(key, value)
        seen = torch.empty_like(key)
        super().decode(records, seen, torch.empty_like(value))
        lost = self.blocks(key - seen).float()
        axes = hadamard(lost * random_signs(self.dim, _SKETCH, key.device))
        self.part("k_signs", records).copy_(pack_bits((axes > 0).to(torch.uint8), 1))
        self.part("k_lost", records).copy_(lost.norm(dim=-1, keepdim=True))
        return records

    def decode(self, records: torch.Tensor, key_out: torch.Tensor, value_out: torch.Tensor) -> None:
        """Unpack ``records`` ``[n, record_bytes]`` into ``[1, H, n * T, D]`` outputs."""
        super().decode(records, key_out, value_out)
        blocks = self.blocks(key_out)
        signs = torch.empty_like(blocks)
        unpack_bits(self.part("k_signs", records), 1, signs)
        lost = self.part("k_lost", records).to(blocks.dtype) * (pi / (2 * self.dim)) ** 0.5
        axes = hadamard(2 * signs - 1) * random_signs(self.dim, _SKETCH, blocks.device)
        blocks += (lost * axes).to(blocks.dtype)


@codecs.register("rotated-sketch")
class SketchedRotatedCodec(Sketched, RotatedCodec):
    """`RotatedCodec` with a sketch."""


@codecs.register("lloyd-sketch")
class SketchedLloydCodec(Sketched, LloydCodec):
    """`LloydCodec` with a sketch."""
