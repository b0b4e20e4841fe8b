"""Attention straight over packed blocks: codes are read, and no float copy of them is written.

Saves 31 % of a plain step over int4 residents on two cores at 4 k, 40 to 43 % on 16
(benchmarks/results/accelerations-2-cores.txt, -16-cores).

A layer that must be unpacked for its pass has its floats written to memory and read back: at 4 k
tokens, eight times the bytes that int4 codes are. Where a C++ compiler is at hand
(`mspeckv.accelerate.native`), a pass of few tokens over a CPU's packed layers leaves the codes
where they are: the layer shows its records beside its float tail, and `attend_packed` reads both.
The arithmetic is float32's, as it is over unpacked floats; sums run in another order.

Nibble planes (`mspeckv.accelerate.nibble`) are read as they lie too, which saves 42 % of a plain
step (docs/quantization.md): both give the bits of the int8 codes that they split, in the same time;
tier 1 reads the upper one alone.

Everything else, a prompt, a GPU, lossless blocks, unpacks as ever and meets the stock kernel. KIVI
(arXiv 2402.02750) fuses unpacking with its products on a GPU in the same way.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention

from mspeckv.accelerate.native import library, once, pointer
from mspeckv.accelerate.split_keys import even_pieces
from mspeckv.context import KV, Masks
from mspeckv.decoding.hooks import Hooks
from mspeckv.kv.blocks import Arrived, Show
from mspeckv.kv.codec import Codec
from mspeckv.kv.floats import Buffer, Floats
from mspeckv.kv.layers import fold_groups
from mspeckv.kv.quantize import BlockCodec
from mspeckv.kv.scores import causal_mask
from mspeckv.kv.shape import KVShape
from mspeckv.record import span
from mspeckv.settings import KVPolicy, refuse

SOURCE = Path(__file__).with_name("packed_attention.cpp")
MOST_TOKENS = 32
"""New tokens of a pass, at most: beyond, unpacking is little beside the arithmetic."""
_WIDE = 8
_TOLERANCE = 1e-4


def plug(hooks: Hooks, device: torch.device) -> Hooks:
    """Read a CPU's packed layers as they are, where the kernel can be had."""
    if device.type != "cpu":
        return hooks
    kernels = {**hooks.kernels, Packed: attend_packed}
    return replace(hooks, kernels=kernels, show=show_packed)


@dataclass(frozen=True)
class Packed(Floats):
    """A layer's packed blocks as they are, and the floats of its tail, the pass's own the last.

    Attributes:
        blocks: the tokens before the tail.
        layer: whose they are; None where they are read by the kernel alone.
    """

    blocks: Arrived
    layer: Any = None

    @property
    def tokens(self) -> int:
        """Tokens in blocks and tail."""
        return len(self.blocks.records) * self.blocks.codec.block + self.key.shape[2]

    def whole(self) -> KV:
        """Everything as floats, unpacked now, where the layer always unpacks."""
        scratch: Buffer = self.layer.scratch
        packed = self.tokens - self.key.shape[2]
        with span("kv/dequantize"):
            self.blocks.decode(scratch.read(packed))
        scratch.write(packed, self.key, self.value)
        return scratch.read(self.tokens)

    def release(self) -> None:
        """Let the layer's next fetch start."""
        if self.layer is not None:
            self.layer.release()


def show_packed(codec: Codec, device: torch.device) -> Show | None:
    """How packed layers are shown instead of unpacked."""
    return _show if usable(codec, device) else None


def _show(layer: Any, new: int) -> Packed | None:
    """A layer's blocks and tail; None after more than a few ``new`` tokens."""
    if new > MOST_TOKENS:
        return None
    blocks: Arrived = layer.arrived()
    key, value = layer.tail.read(layer.length - len(blocks.records) * blocks.codec.block)
    return Packed(key, value, blocks, layer)


def usable(codec: Codec, device: torch.device) -> bool:
    """Whether the kernel can read ``codec``'s records on ``device``."""
    return (
        type(codec) is BlockCodec
        and device.type == "cpu"
        and codec.dtype == torch.float32
        and set(codec.widths.values()) <= {8, 4, 2}
        and all(size % _WIDE == 0 for size in (codec.dim, codec.group, codec.block))
        and kernel() is not None
    )


def attend_packed(
    query: torch.Tensor, shown: Packed, scale: float | None, masks: Masks
) -> torch.Tensor:
    """Attention over packed blocks and their tail; see `mspeckv.context.Kernel`.

    Raises:
        ValueError: a part is not float32 on a CPU, or does not fit the codec or the others.
    """
    found = kernel()
    assert found is not None
    with span("kv/packed"):
        folded = fold_groups(query, shown.blocks.codec.heads)
        return _run(found, folded, shown, query.shape[2], scale).reshape(query.shape)


class Shape(ctypes.Structure):
    """``Shape`` of the source."""

    _fields_ = (
        *(
            (name, ctypes.c_int64)
            for name in (
                "heads", "rows", "length", "dim", "block", "group", "record", "blocks",
                "k", "k_step", "k_low", "v", "v_step", "v_low", "k_bits", "v_bits",
                "tail", "tail_head", "pieces", "threads", "planes",
            )
        ),
        ("scale", ctypes.c_float),
    )  # fmt: skip


_PARTS = "query", "records", "lower", "key", "value", "work", "out"


class Parts(ctypes.Structure):
    """``Parts`` of the source: addresses, and how many elements lie from each on."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in _PARTS),
        *((f"{name}_has", ctypes.c_int64) for name in _PARTS),
    )


def _run(
    kernel: ctypes.CDLL, query: torch.Tensor, shown: Packed, length: int, scale: float | None
) -> torch.Tensor:
    """``[1, H, G * Q, D]``, the query heads of a group as rows; ``length`` is Q."""
    key, value, blocks = shown.key, shown.value, shown.blocks
    codec, records, lower = blocks.codec, blocks.records, blocks.lower
    assert isinstance(codec, BlockCodec)
    threads = torch.get_num_threads()
    heads, dim, float32 = codec.heads, codec.dim, torch.float32
    rows, tail = (part.numel() // (heads * dim) for part in (query, key))
    count = records.numel() // codec.record_bytes
    if query.layout == torch.strided:
        query = query.contiguous()
    given = (
        pointer("query", query, float32, (1, heads, rows, dim)),
        pointer("records", records, torch.uint8, (count, codec.record_bytes)),
        (0, 0)
        if lower is None
        else pointer("lower", lower, torch.uint8, (count, heads * codec.block * dim)),
        pointer("key", key, float32, (1, heads, tail, dim), apart=True),
        pointer("value", value, float32, (1, heads, tail, dim), apart=True),
    )
    if heads > 1 and key.stride(1) != value.stride(1):
        raise refuse("value", f"strides {value.stride()}", f"use the key's, {key.stride()}")
    shape = Shape(
        heads, rows, length, dim, codec.block, codec.group, codec.record_bytes, count,
        *codec.offsets, *codec.widths.values(), tail, key.stride(1),
        max(1, min(even_pieces(heads, threads), count)), threads,
        1 if blocks.coarse else 0 if lower is None else 2,
        dim**-0.5 if scale is None else scale,
    )  # fmt: skip
    needed = kernel.workspace(ctypes.byref(shape))
    if needed < 0:
        raise _refused(shape, -needed)
    out, work = torch.empty_like(query), query.new_empty(needed)
    made = (pointer("work", work, float32, (needed,)), pointer("out", out, float32, query.shape))
    addresses, sizes = zip(*given, *made, strict=True)
    code = kernel.attend(ctypes.byref(shape), ctypes.byref(Parts(*addresses, *sizes)))
    if code:
        raise _refused(shape, code)
    return out


def _refused(shape: Shape, code: int) -> ValueError:
    """What the kernel says of a field: of the shape, or, if negative, of the parts."""
    if code < 0:
        return refuse(_PARTS[-code - 1], "its storage", "it ends before the shape does")
    name = Shape._fields_[code - 1][0]
    return refuse(name, getattr(shape, name), "the kernel would read or write out of bounds")


@once
def kernel() -> ctypes.CDLL | None:
    """The compiled kernel, if it can be had and does what unpacking and the stock kernel do."""
    found = library(SOURCE)
    if found is None:
        return None
    found.workspace.argtypes, found.workspace.restype = [ctypes.c_void_p], ctypes.c_int64
    found.attend.argtypes, found.attend.restype = [ctypes.c_void_p] * 2, ctypes.c_int64
    return found if _agrees(found) else None


@torch.inference_mode()
def _agrees(kernel: ctypes.CDLL) -> bool:
    """Whether a small case comes out as by the eager path."""
    numbers = torch.Generator().manual_seed(0)

    def noise(*size: int) -> torch.Tensor:
        return torch.randn(size, generator=numbers, dtype=torch.float32, device="cpu")

    packed, tail, length = 24, 11, 3
    policy = KVPolicy(k_bits=8, v_bits=4, block=8, group=8)
    codec = BlockCodec(KVShape(1, 2, 16, torch.float32), policy)
    query = noise(1, 2, 2 * length, 16)
    key, value = noise(2, 1, 2, packed + tail, 16)
    records = codec.encode(key[:, :, :packed], value[:, :, :packed])
    codec.decode(records, key[:, :, :packed], value[:, :, :packed])
    shown = Packed(key[:, :, packed:], value[:, :, packed:], Arrived(records, codec))
    out = _run(kernel, query, shown, length, None)
    mask = causal_mask(length, packed + tail - length, 2, query)
    with torch.autocast("cpu", enabled=False):
        expected = scaled_dot_product_attention(query, key, value, attn_mask=mask)
    return bool(torch.allclose(out, expected, atol=_TOLERANCE))
