"""Attention over every slot of a layer, filled or not: nothing hangs on a length.

A part of `mspeckv.accelerate.graphs`; saves nothing by itself.

One call of the stock kernel reads the slots before ``settled``, the prompt's, another the few after
it, over which a mask says what is filled; both are joined by their log-sum-exps (see
`mspeckv.accelerate.split_keys`).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.nn.functional import pad

from mspeckv.accelerate.graphs import StaticInputs
from mspeckv.context import KV, Masks
from mspeckv.kv.codec import Codec
from mspeckv.kv.floats import Floats
from mspeckv.kv.layers import fold_groups
from mspeckv.kv.placement import ResidentLayer
from mspeckv.kv.quantize import BlockCodec

DIMS = 16, 32, 64, 128
"""Head dims that kernels for codes read."""
_TILE = 16
"""Kernels want rows of a mask to begin at multiples of this."""
_STEP = 512
"""Keys that the CPU's kernel takes at a time; it sums those of a shorter step in another order."""


def slot_mask(inputs: StaticInputs, settled: int, slots: int, dtype: torch.dtype) -> torch.Tensor:
    """Additive ``[width, slots - settled]``, padded to whole tiles: queries see up to their own.

    Slots before ``settled`` are seen by all.
    """
    device, count = inputs.slots.device, slots - settled
    if inputs.ring and device.type == "cpu":
        # whole steps: what a row sees is summed alike, however many slots come after it
        count = -(-count // _STEP) * _STEP
    rest = torch.arange(settled, settled + -(-count // _TILE) * _TILE, device=device)
    unseen = rest[None] > inputs.slots[:, None]
    mask = torch.zeros(unseen.shape, device=device, dtype=dtype)
    return mask.masked_fill_(unseen, float("-inf"))[:, :count]


@dataclass(frozen=True)
class Slots(Floats):
    """Every slot of a layer, filled or not; a query sees those up to its own.

    How many are filled only the device knows: ``tokens`` are slots.

    Attributes:
        inputs: where the pass's own tokens lie.
        settled: slots that hold the prompt.
    """

    inputs: StaticInputs
    settled: int

    @property
    def new(self) -> torch.Tensor:
        """Slots ``[width]`` of the pass's own tokens."""
        return self.inputs.slots

    def newest(self, count: int) -> KV:
        """The pass's own tokens, padding included."""
        return self.key.index_select(2, self.new), self.value.index_select(2, self.new)


@dataclass(frozen=True)
class CodeSlots(Slots):
    """A resident layer's packed blocks as they are, and every slot of its float tail."""

    layer: ResidentLayer

    @property
    def tokens(self) -> int:
        """Slots of the whole layer."""
        return self.layer.scratch.key.shape[2]

    @property
    def new(self) -> torch.Tensor:
        """Slots of the pass's own tokens in the tail."""
        return self.inputs.tail

    def whole(self) -> KV:
        """Every slot, where the layer was unpacked for who looks on."""
        return self.layer.scratch.whole


def readable(codec: Codec, rows: int) -> bool:
    """Whether a kernel for `CodeSlots` reads what ``codec`` packs, and gains by it.

    More than 16 ``rows`` of a KV head had better meet unpacked floats
    (benchmarks/results/attention-h200.txt).
    """
    if not isinstance(codec, BlockCodec) or codec.by_channel != ("k",) or codec.turns:
        return False
    width = codec.widths["k"]
    return (
        0 < rows <= _TILE and codec.dtype in (torch.float16, torch.bfloat16)
        and width in (8, 4) and width == codec.widths["v"]
        and codec.dim in DIMS and codec.dim // codec.group in (1, 2)
        and codec.block * width // 8 in (16, 32, 64, 128)
    )  # fmt: skip


def attend_slots(
    query: torch.Tensor, shown: Slots, scale: float | None, masks: Masks
) -> torch.Tensor:
    """Attention over every slot of a layer; see `mspeckv.context.Kernel`."""
    key, value, settled, slots = shown.key, shown.value, shown.settled, shown.tokens
    if (settled, slots) not in masks:
        masks[settled, slots] = slot_mask(shown.inputs, settled, slots, query.dtype)
    mask = masks[settled, slots]
    assert mask is not None
    scale = query.shape[-1] ** -0.5 if scale is None else scale
    folded = fold_groups(query, key.shape[1])
    beyond = settled + mask.shape[1] - slots
    rest = key[:, :, settled:], value[:, :, settled:]
    keys, values = (pad(part, (0, 0, 0, beyond)) if beyond else part for part in rest)
    out, lse = _with_lse(folded, keys, values, scale, mask)
    if settled:
        first, first_lse = _with_lse(folded, key[:, :, :settled], value[:, :, :settled], scale)
        weight = (first_lse - lse).sigmoid()[..., None]
        out = torch.lerp(out.float(), first.float(), weight).to(query.dtype)
    return out.reshape(*query.shape[:3], out.shape[-1])


def _with_lse(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    scale: float,
    mask: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The stock kernel's output ``[1, H, R, D]`` and log-sum-exps ``[1, H, R]``."""
    aten = torch.ops.aten
    rows = mask
    if mask is not None and (groups := query.shape[2] // mask.shape[0]) > 1:
        # padded in memory as the mask's own
        padded = mask.as_strided((mask.shape[0], mask.stride(0)), mask.stride())
        rows = padded.repeat(groups, 1)[:, : mask.shape[1]]
    if not query.is_cuda:
        out, lse = aten._scaled_dot_product_flash_attention_for_cpu(
            query, key, value, attn_mask=rows, scale=scale
        )
    elif rows is None and query.dtype != torch.float32:
        out, lse, *_ = aten._scaled_dot_product_flash_attention(
            query, key, value, 0.0, False, False, scale=scale
        )
    else:
        bias = None if rows is None else rows.expand(1, query.shape[1], -1, -1)
        out, lse, *_ = aten._scaled_dot_product_efficient_attention(
            query, key, value, bias, True, 0.0, False, scale=scale
        )
    # kernels round the rows of their log-sum-exps up to whole tiles
    return out, lse[..., : query.shape[2]]
