"""Packing keeps its error bound and its size, in one plane or two."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mspeckv.accelerate.nibble import NibblePlanes
from mspeckv.kv.quantize import BlockCodec
from mspeckv.kv.shape import KVShape
from mspeckv.settings import KVPolicy, Width
from tests.random_models import block_codec

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
    codec = block_codec(HEADS, DIM, block, bits, group, torch.float32)
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
    codec = block_codec(3, 64, 64, bits, 64, torch.float32)
    assert codec.record_bytes / (2 * 3 * 64 * 64 * 4) <= most


@pytest.mark.parametrize("bits", [8, 4, 2])
def test_values_on_the_grid_survive(bits: int) -> None:
    codec = block_codec(1, 8, 8, bits, 8, torch.float32)
    levels = 2**bits
    key = torch.arange(64).view(1, 1, 8, 8).float() % levels
    key[:, :, 0], key[:, :, 1] = 0, levels - 1
    value = key.transpose(2, 3).contiguous()
    outs = torch.empty_like(key), torch.empty_like(value)
    codec.decode(codec.encode(key, value), *outs)
    assert torch.allclose(outs[0], key, atol=levels * 2**-11)
    assert torch.allclose(outs[1], value, atol=levels * 2**-11)


def test_full_width_is_lossless() -> None:
    codec = block_codec(HEADS, DIM, 16, "full", 16, torch.float32)
    key, value = torch.randn(2, 1, HEADS, 32, DIM).unbind(0)
    outs = torch.empty_like(key), torch.empty_like(value)
    codec.decode(codec.encode(key, value), *outs)
    assert torch.equal(outs[0], key)
    assert torch.equal(outs[1], value)


@pytest.mark.parametrize("widths", [(8, 4), (2, 8), ("full", 4), (4, "full")])
def test_keys_and_values_may_have_widths_of_their_own(widths: tuple[Width, Width]) -> None:
    key, value = torch.randn(2, 1, HEADS, 32, DIM).unbind(0)
    outs = []
    for bits in (widths, widths[0], widths[1]):
        codec = block_codec(HEADS, DIM, 16, bits, 16, torch.float32)
        out = torch.empty_like(key), torch.empty_like(value)
        codec.decode(codec.encode(key, value), *out)
        outs.append(out)
    mixed, as_key, as_value = outs
    assert torch.equal(mixed[0], as_key[0])
    assert torch.equal(mixed[1], as_value[1])


def test_two_planes_joined_are_the_int8_record_and_the_upper_alone_is_int4() -> None:
    shape = KVShape(1, HEADS, DIM, torch.float32)
    planes = NibblePlanes(BlockCodec(shape, KVPolicy(nibble=True, block=16, group=8)))
    key, value = torch.randn(2, 1, HEADS, 48, DIM).unbind(0)
    records = planes.whole.encode(key, value)
    upper, lower = planes.split(records)
    assert upper.shape[1] + lower.shape[1] == planes.whole.record_bytes
    int8, joined, coarse, coarse_whole = (torch.empty(2, *key.shape) for _ in range(4))
    planes.whole.decode(records, *int8)
    planes.join(upper, lower).decode((joined[0], joined[1]))
    planes.coarse(upper).decode((coarse[0], coarse[1]))
    planes.coarse(records).decode((coarse_whole[0], coarse_whole[1]))
    assert torch.equal(int8, joined)
    assert torch.equal(coarse, coarse_whole)
    for fine, rough, name in ((int8[0], coarse[0], "k"), (int8[1], coarse[1], "v")):
        step = planes.whole.part(f"{name}_step", records).float().max()
        assert 0 < float((fine - rough).abs().max()) <= 7.5 * step + 1e-4
