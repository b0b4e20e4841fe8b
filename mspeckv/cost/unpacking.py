"""What packed layers cost a pass beyond float ones, measured."""

from __future__ import annotations

from functools import partial

import torch

from mspeckv.accelerate.nibble import NibblePlanes
from mspeckv.accelerate.packed_attention import Packed, attend_packed, usable
from mspeckv.api import engine_of
from mspeckv.config import KVPolicy, Width
from mspeckv.cost.timing import milliseconds, wait_for
from mspeckv.decoding.attention import attend_floats
from mspeckv.kv.layers import Buffer, Floats
from mspeckv.kv.quantize import BlockCodec
from mspeckv.kv.shape import KVShape
from mspeckv.models import Pair

_TOKENS, _READ = 1024, 5
"""Tokens of a layer, and of the pass that reads it."""


def unpacking_ns(pair: Pair) -> dict[str, float]:
    """Nanoseconds per token and layer of unpacking, by width; layers are cold, as in a pass.

    Where attention reads codes as they are (`mspeckv.accelerate.packed_attention`), what that takes
    beyond attention over floats, at least 0.

    Args:
        pair: whose KV.
    """
    shape = KVShape.of(pair.target.config, pair.dtype)
    scratch = Buffer(shape.heads, _TOKENS, shape.dim, shape.dtype, pair.device)
    for part in scratch.whole:
        part.normal_()
    per_token = 1e6 / shape.layers / _TOKENS
    found: dict[str, float] = {}
    restore = engine_of(pair).hooks.faster.restore
    widths: tuple[Width, ...] = (8, 4, 2, "full")
    for width in widths:
        codec = BlockCodec.of(shape, KVPolicy(bits=width), restore)
        layers = [codec.encode(*scratch.whole) for _ in range(shape.layers)]
        if usable(codec, pair.device):
            ms = max(0.0, _beyond_floats(pair, shape, codec, layers))
        else:
            ms = milliseconds(partial(_unpack, codec, layers, scratch))
        found[str(width)] = ms * per_token
    planes = NibblePlanes(BlockCodec.of(shape, KVPolicy(bits=8), restore))
    whole = planes.whole.encode(*scratch.whole)
    halves = [planes.split(whole) for _ in range(shape.layers)]
    found["nibble"] = milliseconds(partial(_join, planes, halves, scratch)) * per_token
    return found


def _unpack(codec: BlockCodec, layers: list[torch.Tensor], scratch: Buffer) -> None:
    for records in layers:
        codec.decode(records, *scratch.whole)
    wait_for(scratch.key)


def _join(
    planes: NibblePlanes, halves: list[tuple[torch.Tensor, torch.Tensor]], scratch: Buffer
) -> None:
    for upper, lower in halves:
        planes.join(upper, lower, *scratch.whole)
    wait_for(scratch.key)


def _beyond_floats(
    pair: Pair, shape: KVShape, codec: BlockCodec, layers: list[torch.Tensor]
) -> float:
    """Milliseconds that attention over packed layers takes beyond attention over float ones."""
    heads = int(pair.target.config.get_text_config().num_attention_heads)

    def noise(*size: int) -> torch.Tensor:
        return torch.randn(*size, shape.dim, dtype=shape.dtype)

    query, tail = noise(1, heads, _READ), noise(2, 1, shape.heads, _READ)
    floats = [noise(2, 1, shape.heads, _TOKENS + _READ) for _ in layers]

    def read_packed() -> None:
        for records in layers:
            attend_packed(query, Packed(tail[0], tail[1], records, codec), None, {})

    def read_floats() -> None:
        for key, value in floats:
            attend_floats(query, Floats(key, value), None, {})

    return milliseconds(read_packed) - milliseconds(read_floats)
