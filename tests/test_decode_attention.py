"""The GPU's kernel for attention of a few rows; Triton's interpreter runs it without a GPU."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch

from mspeckv import KVPolicy
from mspeckv.accelerate import decode_attention
from mspeckv.accelerate.decode_attention import Tiling, decode
from mspeckv.accelerate.graphs import StaticInputs
from mspeckv.accelerate.slot_attention import Slots, attend_slots, readable
from mspeckv.kv.quantize import BlockCodec
from mspeckv.kv.shape import KVShape

pytest.importorskip("triton")
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
by_triton = pytest.mark.skipif(
    not (torch.cuda.is_available() or INTERPRETED), reason="runs in Triton's interpreter, below"
)


@pytest.mark.skipif(torch.cuda.is_available() or INTERPRETED, reason="runs right here")
def test_in_tritons_interpreter() -> None:
    """Triton asks for its interpreter once, when it is imported: another process."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", __file__],
        env={**os.environ, "TRITON_INTERPRET": "1"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a few keys come to several splits."""
    short = Tiling(keys=32, warps=4, stages=2, blocks=1)
    monkeypatch.setattr(decode_attention, "_tiling", lambda tile, codec: short)


def noise(*size: int) -> torch.Tensor:
    return torch.randn(size, generator=torch.Generator().manual_seed(sum(size))).to(DEVICE).half()


def by_hand(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, slots: torch.Tensor
) -> torch.Tensor:
    """Softmax attention in float32 over the slots up to each query's own."""
    groups = query.shape[1] // key.shape[1]
    key, value = (part.float().repeat_interleave(groups, 1) for part in (key, value))
    scores = query.float() @ key.transpose(2, 3) * query.shape[3] ** -0.5
    later = torch.arange(key.shape[2], device=DEVICE) > slots[:, None]
    out: torch.Tensor = scores.masked_fill(later, float("-inf")).softmax(3) @ value
    return out


@by_triton
@pytest.mark.parametrize(
    ("heads", "groups", "rows", "dim", "past"),
    [(2, 1, 1, 32, 70), (2, 3, 9, 64, 131), (1, 4, 8, 16, 40), (1, 1, 16, 128, 5)],
)
def test_rows_see_the_slots_up_to_their_own_and_read_no_other(
    heads: int, groups: int, rows: int, dim: int, past: int
) -> None:
    query, seen = noise(1, heads * groups, rows, dim), past + rows
    key, value = noise(1, heads, seen + 50, dim), noise(1, heads, seen + 50, dim) + 0.5
    slots = torch.arange(past, seen, device=DEVICE)
    wanted = by_hand(query, key[:, :, :seen], value[:, :, :seen], slots)
    # a weight of zero would not hide them
    key[:, :, seen:], value[:, :, seen:] = float("nan"), float("nan")
    found = decode(query, key, value, slots, past, None)
    torch.testing.assert_close(found.float(), wanted, atol=2e-3, rtol=2e-3)
    inputs = StaticInputs(rows, torch.device(DEVICE))
    inputs.fill([1] * rows, past, past, 0, 0)
    clean = key.nan_to_num(), value.nan_to_num()
    before = attend_slots(query, Slots(*clean, inputs, past), None, {})
    torch.testing.assert_close(found, before, atol=2e-3, rtol=2e-3)
    # how many slots are still empty changes no bit
    fewer = key[:, :, : seen + 3].clone(), value[:, :, : seen + 3].clone()
    assert torch.equal(decode(query, *fewer, slots, past, None), found)


@by_triton
@pytest.mark.parametrize("width", [8, 4])
@pytest.mark.parametrize(("dim", "group", "block"), [(64, 64, 32), (32, 16, 64)])
def test_codes_are_read_as_the_floats_that_they_stand_for(
    width: int, dim: int, group: int, block: int
) -> None:
    heads, groups, rows, blocks, tokens = 2, 2, 5, 6, 40
    policy = KVPolicy(8 if width == 8 else 4, block=block, group=group)
    codec = BlockCodec(KVShape(1, heads, dim, torch.float16), policy)
    assert readable(codec, rows * groups)
    packed = blocks * block
    key, value = noise(1, heads, packed + tokens, dim), noise(1, heads, packed + tokens, dim) + 1
    records = codec.encode(key[:, :, :packed], value[:, :, :packed])
    tail = key[:, :, packed:].clone(), value[:, :, packed:].clone()
    codec.decode(records, key[:, :, :packed], value[:, :, :packed])
    place = torch.arange(20, 20 + rows, device=DEVICE)
    query = noise(1, heads * groups, rows, dim)
    wanted = by_hand(query, key[:, :, : packed + 25], value[:, :, : packed + 25], place + packed)
    for part in tail:
        part[:, :, 25:] = float("nan")

    def read(spare: int) -> torch.Tensor:
        room = torch.full((spare, codec.record_bytes), 255, dtype=torch.uint8, device=DEVICE)
        more = torch.cat([records, room])
        return decode(query, *tail, place + packed, packed, None, more, codec, place)

    found = read(3)
    torch.testing.assert_close(found.float(), wanted, atol=4e-3, rtol=4e-3)
    assert torch.equal(read(19), found)


def test_what_the_kernel_would_misread_is_unpacked() -> None:
    def fits(policy: KVPolicy, rows: int = 16, dtype: torch.dtype = torch.float16) -> bool:
        return readable(BlockCodec(KVShape(1, 2, 64, dtype), policy), rows)

    assert fits(KVPolicy(8))
    assert not fits(KVPolicy(8), rows=17)
    assert not fits(KVPolicy(8), dtype=torch.float32)
    for policy in (KVPolicy(8, k_bits=4), KVPolicy(2), KVPolicy(8, block=48), KVPolicy(8, group=8)):
        assert not fits(policy)
