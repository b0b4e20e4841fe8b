"""int8 blocks as two int4 planes.

Saves half of the bytes that an int8 cache sends over the link, and tier 1's own cache
(benchmarks/results/gpu-h200.txt, rows nibble).

A code of 8 bits is ``16 * upper + lower``. The upper plane with the scales is a 4-bit cache of its
own, exact to half a step of 16; the lower plane makes it int8 again. Kept on the device, the upper
planes give tier 1 the *whole* context, and a verification streams the lower planes alone (idea:
QuantSpec, arXiv 2502.10424, section 4.2; there both planes stay on the device).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch

from mspeckv.context import KV, Shown
from mspeckv.decoding.hooks import Hooks
from mspeckv.events import Purpose
from mspeckv.kv.blocks import Arrived, BlockLayer, Room
from mspeckv.kv.floats import FloatLayer, Floats
from mspeckv.kv.full import FullCache
from mspeckv.kv.layers import PlacedLayer
from mspeckv.kv.offloaded import OffloadedLayer
from mspeckv.kv.placement import ResidentLayer, placements
from mspeckv.kv.quantize import BlockCodec
from mspeckv.kv.recurrent import layers_of
from mspeckv.kv.tier1 import Tier1Cache, Tier1Room, tier1_caches
from mspeckv.kv.windows import WindowLayer
from mspeckv.record import span

_MIDDLE = 7.5
"""What an unknown lower nibble is taken for: the mean of 0 .. 15."""


class NibblePlanes:
    """Splits int8 records into planes and joins them again.

    Args:
        whole: the records' codec; its width is 8.
    """

    def __init__(self, whole: BlockCodec) -> None:
        self.whole = whole
        # An upper plane is laid out as an int4 record: packed codes, the same scales.
        narrow = replace(whole.policy, bits=4, k_bits=None, v_bits=None, nibble=False)
        self.upper = BlockCodec(whole.shape, narrow, whole.restore)
        self._plane = (whole.heads, whole.block // 2, whole.dim)
        self.lower_bytes = 2 * whole.heads * whole.block // 2 * whole.dim

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
            self.lower(lower, index).copy_((first & 0x0F) | (second << 4))
            for scale in (f"{name}_step", f"{name}_low"):
                self.upper.part(scale, upper).copy_(self.whole.part(scale, records))
        return upper, lower

    def join(self, upper: torch.Tensor, lower: torch.Tensor) -> Planes:
        """Both planes: they stand for what the int8 records would give."""
        return Planes(upper, self.upper, lower, planes=self)

    def coarse(self, records: torch.Tensor) -> Planes:
        """The upper plane alone, or int8 records of which only the upper nibbles are used."""
        whole = records.shape[1] == self.whole.record_bytes
        return Planes(records, self.whole if whole else self.upper, coarse=True, planes=self)

    def lower(self, lower: torch.Tensor, index: int) -> torch.Tensor:
        """Keys' (0) or values' (1) lower plane ``[n, H, T / 2, D]``, a view."""
        plane: torch.Tensor = lower.unflatten(1, (2, *self._plane))[:, index]
        return plane


@dataclass(frozen=True)
class Planes(Arrived):
    """One plane, or both, of a layer's blocks."""

    codec: BlockCodec
    planes: NibblePlanes = field(kw_only=True)

    def decode(self, out: KV) -> None:
        """Write what is known into ``out``."""
        records, codec, lower, planes = self.records, self.codec, self.lower, self.planes
        shift = _MIDDLE if self.coarse else 0.0
        for index, (name, floats) in enumerate(zip("kv", out, strict=True)):
            codes, blocks = codec.part(name, records), codec.blocks(floats)
            rest = None if lower is None else planes.lower(lower, index)
            if codec.restore is not None:
                width, scales = (4 if codec is planes.upper else 8), codec.scales(records, name)
                codec.restore(
                    codes, width, *scales, blocks, lower=rest, upper_only=self.coarse, shift=shift
                )
                continue
            codes, blocks = codes.transpose(0, 1), blocks.transpose(0, 1)
            if codec is planes.whole:
                blocks.copy_(codes & 0xF0)
            else:
                halves = [(codes & 0x0F) << 4, codes & 0xF0]
                if rest is not None:
                    low = rest.transpose(0, 1)
                    halves = [halves[0] | (low & 0x0F), halves[1] | (low >> 4)]
                for half, found in zip(blocks.unflatten(2, (2, -1)).unbind(2), halves, strict=True):
                    half.copy_(found)
            codec.rescale(records, name, blocks, shift=shift)


class NibbleLayer(OffloadedLayer):
    """Upper plane on the device, lower plane in host memory."""

    def __init__(self, room: Room, index: int) -> None:
        super().__init__(room, index)
        codec = room.codec
        assert isinstance(codec, BlockCodec)
        self.planes = NibblePlanes(codec)
        size = room.blocks, self.planes.upper.record_bytes
        self.upper = torch.empty(size, dtype=torch.uint8, device=room.device)

    @property
    def contents(self) -> list[torch.Tensor]:
        """Tail and both planes."""
        return [*super().contents, self.upper[: self.blocks]]

    def keep(self, records: torch.Tensor, purpose: Purpose) -> None:
        """Split new records; the lower plane goes to the host."""
        upper, lower = self.planes.split(records)
        self.upper[self.blocks : self.blocks + len(records)] = upper
        super().keep(lower, purpose)

    def arrived(self) -> Planes:
        """The upper plane, and the lower one once it is fetched."""
        return self.planes.join(self.upper[: self.blocks], self.pipeline.take(self)[: self.blocks])

    def bytes_by_place(self) -> dict[str, int]:
        """The upper plane counts as resident."""
        return {**super().bytes_by_place(), "resident": self.upper.numel()}


placements.register("nibble")(NibbleLayer)


class CoarseLayer(PlacedLayer):
    """A coarser look at one layer of tier 2's cache.

    Guessed tokens are written where tier 2 will write them too, behind everything settled, so a
    verification replaces them by its own and nothing is stored twice.
    """

    def __init__(self, base: FloatLayer | WindowLayer | BlockLayer, planes: NibblePlanes) -> None:
        super().__init__()
        self.base, self.planes = base, planes
        if isinstance(base, BlockLayer):
            self.scratch, self.tail = base.scratch, base.tail

    def append(self, key: torch.Tensor, value: torch.Tensor) -> Shown:
        """Take new tokens after tier 2's and earlier guesses; show everything."""
        base, new = self.base, key.shape[2]
        start = max(self.length, base.length)
        self.length = start + new
        base.put(start, key, value)
        show = isinstance(base, BlockLayer) and base.blocks and base.show
        return (show and show(self, new)) or self.read(self.length)

    def read(self, length: int) -> Floats:
        """The first ``length`` tokens, packed blocks from their upper nibbles alone."""
        if not isinstance(self.base, BlockLayer):
            return self.base.read(length)
        self.bring(length)
        return Floats(*self.base.scratch.read(length))

    def bring(self, length: int) -> None:
        """`BlockLayer.bring`, from upper nibbles alone."""
        base = self.base
        assert isinstance(base, BlockLayer)
        scratch, packed = base.scratch, base.packed_tokens
        with span("kv/dequantize"):
            self.arrived().decode(scratch.read(packed))
        scratch.write(packed, *base.tail.read(length - packed))

    def arrived(self) -> Planes:
        """Tier 2's finished blocks, their upper nibbles alone."""
        base = self.base
        assert isinstance(base, NibbleLayer | ResidentLayer)
        stored = base.upper if isinstance(base, NibbleLayer) else base.records
        return self.planes.coarse(stored[: base.blocks])

    def release(self) -> None:
        """Nothing was fetched."""

    def bytes_to_read(self, length: int) -> int:
        """Tier 2's, of an offloaded layer's blocks the upper plane alone."""
        whole = self.base.bytes_to_read(max(length, self.base.length))
        if isinstance(self.base, NibbleLayer):
            saved = self.base.codec.record_bytes - self.planes.upper.record_bytes
            whole -= self.base.blocks * saved
        return whole


@tier1_caches.register("nibble")
class CoarseCache(Tier1Cache):
    """Tier 1's cache in nibble mode: no KV of its own, nothing over the link."""

    def __init__(self, room: Tier1Room, full: FullCache, device: torch.device) -> None:
        self.full = full
        codec = full.codec
        assert isinstance(codec, BlockCodec)
        planes = NibblePlanes(codec)
        looks = layers_of(full.shape, lambda at, _: CoarseLayer(full.layers[at], planes), reach=0)
        super().__init__(layers=looks)
        self.source = full

    @classmethod
    def sizes(cls, room: Tier1Room) -> tuple[int, int]:
        """Nothing beyond tier 2's own."""
        return 0, 0

    @property
    def length(self) -> int:
        """Tokens seen: tier 2's, and guesses beyond them."""
        return max(super().length, self.full.length)

    def room(self, length: int) -> int:
        """Guesses lie in tier 2's float tails."""
        return self.full.room(length)

    def settle(self, length: int) -> None:
        """Forget guesses from ``length`` on; tokens that tier 2 has read count as read."""
        super().settle(min(length, self.length))

    @property
    def bytes(self) -> int:
        """Bytes allocated beyond tier 2's own."""
        return 0


def plug(hooks: Hooks, device: torch.device) -> Hooks:
    """Nothing more: placement and tier 1's cache are registered by now."""
    return hooks
