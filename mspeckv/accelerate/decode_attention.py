"""Attention of a few rows on a GPU: keys in fixed splits, packed blocks read as codes.

Saves 23 to 44 % of attention over 32 k floats on an H200, and 66 % over int8 residents, whose
unpacking alone took longer (benchmarks/results/attention-h200.txt).

A KV head's query heads are rows of one tile, so that its keys are read once; torch's kernels give a
masked pass of grouped heads one block of threads a head. The keys are cut into splits, each read by
a block of threads of its own, and joined by their sums of weights (Flash-Decoding: Dao et al.,
2023). Slots that no row of the pass sees are never read.

A resident layer's codes become floats in registers, in the compute dtype as when they are unpacked,
so that no float copy is written and read back (KIVI, arXiv 2402.02750, fuses its products so).
Nothing waits for the host: how many blocks there are, a kernel sees from slots and places in the
tail. How long a split is hangs on the prompt alone, and splits are summed in order: a row's bits do
not depend on what else is in its pass, nor on how many slots are still empty.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from importlib.util import find_spec
from math import ceil, log

import torch

from mspeckv.accelerate.slot_attention import DIMS, CodeSlots, Slots, attend_slots
from mspeckv.context import Kernel, Masks
from mspeckv.decoding.attention import attend_floats
from mspeckv.decoding.hooks import Hooks
from mspeckv.kv.floats import Floats
from mspeckv.kv.layers import fold_groups
from mspeckv.kv.quantize import BlockCodec

MOST_ROWS = 256
"""Rows of a KV head, at most: beyond, attention is arithmetic rather than reading."""


@dataclass(frozen=True)
class Tiling:
    """How the work is cut.

    Attributes:
        keys: of one step of a split over floats; a block's, over codes.
        warps: of a block of threads.
        stages: steps whose bytes are under way.
        blocks: blocks of threads that there should be for each multiprocessor.
    """

    keys: int
    warps: int
    stages: int
    blocks: int


def plug(hooks: Hooks, device: torch.device) -> Hooks:
    """Read floats, slots and codes by these kernels, on a GPU that has Triton."""
    if device.type != "cuda" or find_spec("triton") is None:
        return hooks
    kernels: dict[type, Kernel] = {Floats: attend_few, Slots: attend_seen, CodeSlots: attend_codes}
    return replace(hooks, kernels={**hooks.kernels, **kernels})


def attend_few(
    query: torch.Tensor, shown: Floats, scale: float | None, masks: Masks
) -> torch.Tensor:
    """`attend_floats`, a few queries by the kernel; see `mspeckv.context.Kernel`."""
    length, past = query.shape[2], shown.tokens - query.shape[2]
    if not past or not suits(query, shown.key, shown.value):
        return attend_floats(query, shown, scale, masks)
    if (length, past) not in masks:
        masks[length, past] = torch.arange(past, past + length, device=query.device)
    own = masks[length, past]
    assert own is not None
    return decode(query, shown.key, shown.value, own, past, scale)


def attend_seen(
    query: torch.Tensor, shown: Slots, scale: float | None, masks: Masks
) -> torch.Tensor:
    """`attend_slots` by the kernel; see `mspeckv.context.Kernel`."""
    if not suits(query, shown.key, shown.value):
        return attend_slots(query, shown, scale, masks)
    return decode(query, shown.key, shown.value, shown.new, shown.settled, scale)


def attend_codes(
    query: torch.Tensor, shown: CodeSlots, scale: float | None, masks: Masks
) -> torch.Tensor:
    """Attention over a layer's records and its float tail; see `mspeckv.context.Kernel`."""
    codec = shown.layer.codec
    assert isinstance(codec, BlockCodec)
    return decode(
        query, shown.key, shown.value, shown.inputs.slots, shown.settled, scale,
        shown.layer.records, codec, shown.new,
    )  # fmt: skip


def suits(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> bool:
    """Whether the kernel reads these as they lie."""
    heads, dim = key.shape[1], key.shape[3]
    return (
        query.dtype in (torch.float16, torch.bfloat16)
        and query.dtype == key.dtype == value.dtype
        and dim in DIMS and value.shape == key.shape and key.stride() == value.stride()
        and key.stride()[2:] == (dim, 1) and len(query) == 1
        and query.shape[1] // heads * query.shape[2] <= MOST_ROWS
    )  # fmt: skip


def decode(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    slots: torch.Tensor,
    settled: int,
    scale: float | None,
    records: torch.Tensor | None = None,
    codec: BlockCodec | None = None,
    tail: torch.Tensor | None = None,
) -> torch.Tensor:
    """Attention ``[1, Hkv*G, Q, D]`` of a few queries over the slots up to their own.

    Args:
        query: ``[1, Hkv*G, Q, D]``.
        key: ``[1, Hkv, S, D]``, every slot; with ``records``, those of the float tail.
        value: the same.
        slots: ``[Q]`` each query's own slot.
        settled: slots that hold the prompt; says how long splits are.
        scale: of the scores; None for ``D ** -0.5``.
        records: uint8 ``[b, record_bytes]``, more than are filled.
        codec: how they are packed.
        tail: ``[Q]`` each query's own slot in the float tail.
    """
    # Triton is heavy, and not everywhere
    from mspeckv.accelerate.decode_kernel import attend_kernel, join_kernel

    heads, dim, length = key.shape[1], key.shape[3], query.shape[2]
    folded = fold_groups(query, heads).contiguous()
    rows = folded.shape[2]
    tile = min(128, max(16, 1 << (rows - 1).bit_length()))
    tiles, cut = ceil(rows / tile), _tiling(tile, codec)
    if codec is None:
        block, most, unit = 1, key.shape[2], cut.keys
        layout: tuple[object, ...] = dim, block, 8, 0, *(0,) * 6
    else:
        assert records is not None
        block, most, unit = codec.block, len(records), 1
        layout = codec.group, block, codec.widths["k"], codec.record_bytes, *codec.offsets
    wanted = max(1, cut.blocks * _processors(query.device) // (heads * tiles))
    per_split = unit * ceil(max(settled, 1) / (block * wanted * unit))
    splits = ceil(most / per_split) + (codec is not None)
    out = torch.empty_like(folded)
    parts = out if splits == 1 else out.new_empty((splits, *out.shape), dtype=torch.float32)
    tops, sums = parts.new_empty((2, splits, heads, rows), dtype=torch.float32).unbind(0)
    with torch.cuda.device_of(query):
        attend_kernel[tiles, heads, splits](
            folded, key, value, key if records is None else records, slots,
            slots if tail is None else tail, parts, tops, sums,
            heads, rows, length, splits, per_split,
            (dim**-0.5 if scale is None else scale) / log(2), key.stride(1),
            codec is not None, splits > 1, tile, cut.keys, dim, *layout,
            num_warps=cut.warps, num_stages=cut.stages,
        )  # fmt: skip
        if splits > 1:
            every = heads * rows
            join_kernel[every,](parts, tops, sums, out, every, splits, dim, num_warps=1)
    return out.reshape(query.shape)


def _tiling(tile: int, codec: BlockCodec | None) -> Tiling:
    """The best of those tried on an H200."""
    if codec is not None:
        return Tiling(32, 2, 3, 4) if tile == 16 else Tiling(32, 4, 3, 2)
    if tile == 16:
        return Tiling(32, 4, 3, 3)
    return Tiling(64, 4, 4, 1) if tile <= 64 else Tiling(64, 8, 3, 1)


@cache
def _processors(device: torch.device) -> int:
    """Multiprocessors of a GPU."""
    if device.type != "cuda":
        return 4
    return int(torch.cuda.get_device_properties(device).multi_processor_count)
