"""Packing keeps its error bound and its size; stored bytes depend on the tokens alone."""

from __future__ import annotations

import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mspeckv import KVPolicy
from mspeckv.config import Width
from mspeckv.kv.cache import FullCache
from mspeckv.kv.layers import BlockLayer
from mspeckv.kv.ledger import Ledger
from mspeckv.kv.link import CopyEngine
from mspeckv.kv.quantize import BlockCodec
from mspeckv.kv.shape import KVShape

HEADS, DIM = 2, 16
BITS: list[Width] = [8, 4, 2]


@settings(max_examples=40, deadline=None)
@given(
    bits=st.sampled_from(BITS),
    block=st.sampled_from([8, 16, 64]),
    group=st.sampled_from([8, 16]),
    scale=st.floats(1e-3, 50),
    shift=st.floats(-100, 100),
    seed=st.integers(0, 1000),
)
def test_error_is_at_most_half_a_step(
    bits: int, block: int, group: int, scale: float, shift: float, seed: int
) -> None:
    codec = BlockCodec(HEADS, DIM, block, bits, group, torch.float32)
    generator = torch.Generator().manual_seed(seed)
    key = torch.randn(1, HEADS, 3 * block, DIM, generator=generator) * scale + shift
    value = torch.randn(1, HEADS, 3 * block, DIM, generator=generator) * scale - shift
    key_out, value_out = torch.empty_like(key), torch.empty_like(value)
    codec.decode(codec.encode(key, value), key_out, value_out)
    k_blocks = key.unflatten(2, (3, block))
    v_groups = value.unflatten(3, (-1, group))
    for x, y, dim in (
        (k_blocks, key_out.view_as(k_blocks), 3),
        (v_groups, value_out.view_as(v_groups), 4),
    ):
        low, high = x.amin(dim, keepdim=True), x.amax(dim, keepdim=True)
        # Half precision moves the low end by up to 2^-10 of its size, and the step likewise.
        step = (high - low + low.abs() * 2**-10) / (2**bits - 1) * (1 + 2**-9) + 1e-7
        assert bool(((x - y).abs() <= step / 2 + 1e-5 * x.abs() + 1e-6).all())


@pytest.mark.parametrize(("bits", "most"), [(8, 0.27), (4, 0.145), (2, 0.085), ("full", 1.0)])
def test_bytes_against_float32(bits: Width, most: float) -> None:
    codec = BlockCodec(3, 64, 64, bits, 64, torch.float32)
    assert codec.record_bytes / (2 * 3 * 64 * 64 * 4) <= most


@pytest.mark.parametrize("bits", [8, 4, 2])
def test_values_on_the_grid_survive(bits: int) -> None:
    codec = BlockCodec(1, 8, 8, bits, 8, torch.float32)
    levels = 2**bits
    key = torch.arange(64).view(1, 1, 8, 8).float() % levels
    key[:, :, 0], key[:, :, 1] = 0, levels - 1
    value = key.transpose(2, 3).contiguous()
    outs = torch.empty_like(key), torch.empty_like(value)
    codec.decode(codec.encode(key, value), *outs)
    assert torch.allclose(outs[0], key, atol=levels * 2**-11)
    assert torch.allclose(outs[1], value, atol=levels * 2**-11)


def test_full_width_is_lossless() -> None:
    codec = BlockCodec(HEADS, DIM, 16, "full", 16, torch.float32)
    key, value = torch.randn(2, 1, HEADS, 32, DIM).unbind(0)
    outs = torch.empty_like(key), torch.empty_like(value)
    codec.decode(codec.encode(key, value), *outs)
    assert torch.equal(outs[0], key)
    assert torch.equal(outs[1], value)


def stored_bytes(policy: KVPolicy, kv: torch.Tensor, steps: list[tuple[int, int]]) -> list[bytes]:
    """Feed tokens in passes of ``read`` tokens of which ``kept`` are settled."""
    shape = KVShape(3, HEADS, DIM, torch.float32)
    junk = torch.full((1, HEADS, 1, DIM), 1e4)
    with CopyEngine(Ledger(), None) as link:
        cache = FullCache(shape, policy, kv.shape[3], link, torch.device("cpu"))
        at = 0
        for read, kept in steps:
            for layer in range(3):
                key = kv[0, layer, None, :, at : at + kept]
                value = kv[1, layer, None, :, at : at + kept]
                rejected = junk.expand(1, HEADS, read - kept, DIM)
                cache.update(torch.cat([key, rejected], 2), torch.cat([value, rejected], 2), layer)
            at += kept
            cache.settle(at)
        link.drain()
        return [
            layer.records[: layer.blocks].numpy().tobytes()
            for layer in cache.layers
            if isinstance(layer, BlockLayer)
        ]


@settings(max_examples=30, deadline=None)
@given(
    bits=st.sampled_from(BITS),
    prompt=st.integers(1, 50),
    seed=st.integers(0, 10_000),
    resident=st.integers(0, 3),
    tail=st.integers(0, 20),
)
def test_stored_bytes_do_not_depend_on_rounds_and_rejections(
    bits: int, prompt: int, seed: int, resident: int, tail: int
) -> None:
    policy = KVPolicy(bits, 0, resident, block=16, group=8, tail=tail)
    generator = torch.Generator().manual_seed(seed)
    total = prompt + 60
    kv = torch.randn(2, 3, HEADS, total, DIM, generator=generator)
    one_by_one = [(prompt, prompt)] + [(1, 1)] * 60
    rounds, at = [(prompt, prompt)], prompt
    dice = random.Random(seed)
    while at < total:
        room = min(16 - (at - tail) % 16 if at >= tail else 16 + tail - at, total - at)
        read = dice.randint(1, room)
        kept = dice.randint(1, read)
        rounds.append((read, kept))
        at += kept
    assert stored_bytes(policy, kv, one_by_one) == stored_bytes(policy, kv, rounds)
