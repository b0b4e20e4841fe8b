"""Attention straight over codes is attention over the floats that they stand for."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch.nn.functional import scaled_dot_product_attention

from mspeckv import KVPolicy, Speculation, generate, native
from mspeckv.clock import clock_of
from mspeckv.config import Width
from mspeckv.context import Pass, carrying
from mspeckv.kv import packed
from mspeckv.kv.cache import FullCache
from mspeckv.kv.ledger import Ledger
from mspeckv.kv.link import open_link
from mspeckv.kv.packed import PackedBlocks, attend_packed, packed_before
from mspeckv.kv.quantize import BlockCodec
from mspeckv.kv.shape import KVShape
from mspeckv.split import causal_mask
from tests.random_models import random_pair

needs_kernel = pytest.mark.skipif(
    packed._kernel() is None, reason="no C++ compiler that can build the kernel"
)
WIDTHS: list[Width] = [8, 4, 2]
CPU = torch.device("cpu")


def case(
    codec: BlockCodec, blocks: int, tail: int, rows: int, seed: int = 0
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, PackedBlocks]:
    """Queries ``[1, H, rows, D]``, all keys and values as floats, and both as packed and tail."""
    torch.manual_seed(seed)
    length, heads, dim = blocks * codec.block, codec.heads, codec.dim
    query = torch.randn(1, heads, rows, dim)
    # as in a cache, which has room for more: NaN there would show
    room = torch.full((2, 1, heads, tail + 9, dim), float("nan"))
    key, value = torch.randn(2, 1, heads, length + tail, dim)
    records = codec.encode(key[:, :, :length], value[:, :, :length])
    codec.decode(records, key[:, :, :length], value[:, :, :length])
    room[0, :, :, :tail], room[1, :, :, :tail] = key[:, :, length:], value[:, :, length:]
    handed = PackedBlocks(records, codec, lambda: (key, value), lambda: None)
    return query, torch.stack([key, value]), room[0, :, :, :tail], room[1, :, :, :tail], handed


@needs_kernel
@settings(max_examples=150, deadline=None)
@given(
    heads=st.integers(1, 4),
    groups=st.integers(1, 4),
    dim=st.sampled_from([8, 16, 40, 64, 96]),
    block=st.sampled_from([8, 24, 64]),
    group=st.sampled_from([8, 16, 64]),
    bits=st.tuples(st.sampled_from(WIDTHS), st.sampled_from(WIDTHS)),
    blocks=st.integers(1, 20),
    length=st.integers(1, 20),
    settled=st.integers(0, 80),
    scale=st.sampled_from([None, 0.3]),
)
def test_codes_give_what_their_floats_give(
    heads: int,
    groups: int,
    dim: int,
    block: int,
    group: int,
    bits: tuple[Width, Width],
    blocks: int,
    length: int,
    settled: int,
    scale: float | None,
) -> None:
    codec = BlockCodec(heads, dim, block, bits, group, torch.float32)
    assume(packed.usable(codec, CPU))
    query, whole, key, value, handed = case(codec, blocks, settled + length, groups * length)
    out = attend_packed(query, key, value, handed, length, scale)
    past = whole.shape[3] - length
    mask = causal_mask(length, past, groups, query)
    want = scaled_dot_product_attention(query, whole[0], whole[1], attn_mask=mask, scale=scale)
    torch.testing.assert_close(out, want, rtol=1e-5, atol=2e-5)


@needs_kernel
def test_scores_far_apart_do_no_harm() -> None:
    codec = BlockCodec(2, 16, 8, 8, 16, torch.float32)
    query, whole, key, value, handed = case(codec, 9, 5, 2)
    for scale in (300.0, -300.0, 0.0):
        out = attend_packed(query, key, value, handed, 1, scale)
        want = scaled_dot_product_attention(query, whole[0], whole[1], scale=scale)
        torch.testing.assert_close(out, want, rtol=1e-4, atol=1e-4)


@needs_kernel
def test_a_row_is_the_same_bits_in_any_pass() -> None:
    codec = BlockCodec(3, 64, 64, 4, 64, torch.float32)
    length, groups = 9, 3
    query, _, key, value, handed = case(codec, 17, 40, groups * length)
    together = attend_packed(query, key, value, handed, length, None).unflatten(2, (groups, -1))
    for i in range(length):
        alone = query.unflatten(2, (groups, -1))[:, :, :, i].contiguous()
        end = 40 - length + i + 1
        out = attend_packed(alone, key[:, :, :end], value[:, :, :end], handed, 1, None)
        assert torch.equal(out, together[:, :, :, i])


def test_what_is_read_as_it_is() -> None:
    have = packed._kernel() is not None
    assert packed.usable(BlockCodec(2, 64, 64, 8, 64, torch.float32), CPU) is have
    for codec in (
        BlockCodec(2, 64, 64, 8, 64, torch.bfloat16),
        BlockCodec(2, 64, 64, "full", 64, torch.float32),
        BlockCodec(2, 64, 64, (8, "full"), 64, torch.float32),
        BlockCodec(2, 20, 64, 8, 64, torch.float32),
    ):
        assert not packed.usable(codec, CPU)
    assert not packed.usable(BlockCodec(2, 64, 64, 8, 64, torch.float32), torch.device("cuda"))


def filled(policy: KVPolicy, tokens: int = 200) -> FullCache:
    """A cache of one layer holding noise."""
    shape = KVShape(1, 2, 16, torch.float32)
    link = open_link(Ledger(clock_of(CPU)), None, CPU)
    link.__enter__()
    cache = FullCache(shape, policy, tokens + 40, link, CPU)
    cache.begin_pass()
    cache.update(*torch.randn(2, 1, 2, tokens, 16), 0)
    cache.settle(tokens)
    link.drain()
    cache.begin_pass()
    return cache


@needs_kernel
@pytest.mark.parametrize(
    ("policy", "handed"),
    [
        (KVPolicy(4, resident=1), True),
        (KVPolicy(4), True),
        (KVPolicy(4, resident=1, resident_format="float"), False),
        (KVPolicy(8, nibble=True), False),
        (KVPolicy("full"), False),
        (KVPolicy(on_chip=1), False),
    ],
    ids=["resident", "offloaded", "float-copies", "nibble", "lossless", "on-chip"],
)
def test_layers_hand_over_records_when_they_have_any(policy: KVPolicy, handed: bool) -> None:
    torch.manual_seed(0)
    cache = filled(policy)
    new = torch.randn(2, 1, 2, 3, 16)
    with carrying(Pass(takes_packed=True)):
        key, value = cache.update(*new, 0)
        blocks = packed_before(0)
    assert (blocks is not None) is handed
    if blocks is not None:
        assert blocks.tokens + key.shape[2] == 203
        key, value = blocks.whole()
        blocks.release()
    assert key.shape[2] == value.shape[2] == 203
    cache.settle(200)
    cache.begin_pass()
    again = cache.update(*new, 0)
    assert torch.equal(key, again[0])
    assert torch.equal(value, again[1])
    assert packed_before(0) is None


@needs_kernel
def test_long_passes_are_unpacked() -> None:
    cache = filled(KVPolicy(4, resident=1), 170)
    many = packed.MOST_TOKENS + 1
    with carrying(Pass(takes_packed=True)):
        key, _ = cache.update(*torch.randn(2, 1, 2, many, 16), 0)
        assert packed_before(0) is None
    assert key.shape[2] == 170 + many


@needs_kernel
@pytest.mark.parametrize("method", ["autoregressive", "vanilla", "mspeckv"])
@pytest.mark.parametrize(
    "policy",
    [KVPolicy(8, resident=4), KVPolicy(4, on_chip=1, resident=1), KVPolicy(8, residency="lru")],
    ids=["resident", "mixed", "lru"],
)
def test_runs_give_the_tokens_they_give_unpacked(
    method: str, policy: KVPolicy, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair = random_pair()
    prompt = [(7 * i * i + i) % 64 for i in range(300)]
    guess = Speculation(budget=64, gamma=4, draft_gamma=2, refresh=8)

    def run() -> tuple[int, ...]:
        return generate(
            pair, prompt, method=method, new_tokens=40, policy=policy, speculation=guess
        ).tokens

    calls: list[int] = []
    real = packed._run

    def counted(*args: Any) -> torch.Tensor:
        calls.append(1)
        return real(*args)

    monkeypatch.setattr(packed, "_run", counted)
    straight = run()
    assert calls
    monkeypatch.setattr(packed, "_kernel", lambda: None)
    calls.clear()
    assert run() == straight
    assert not calls


def test_a_kernel_that_is_wrong_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packed, "_run", lambda kernel, query, *_: torch.zeros_like(query))
    assert not packed._agrees(object())  # type: ignore[arg-type]


ADD = 'extern "C" int add(int a, int b) { return a + b; }\n'


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A source, and a cache of its own."""
    monkeypatch.setenv("MSPECKV_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv(native.SWITCH, raising=False)
    monkeypatch.delenv("CXX", raising=False)
    path = tmp_path / "add.cpp"
    path.write_text(ADD, encoding="utf-8")
    return path


def build(source: Path) -> Any:
    return native.library.__wrapped__(source)


@pytest.mark.skipif(shutil.which("c++") is None, reason="no C++ compiler")
def test_a_source_is_compiled_once_and_anew_when_it_changes(source: Path, tmp_path: Path) -> None:
    library = build(source)
    if library is None:
        pytest.skip("this compiler does not take the flags")
    assert library.add(2, 3) == 5
    (made,) = (tmp_path / "cache" / "native").iterdir()
    stamp = made.stat().st_mtime_ns
    build(source)
    assert made.stat().st_mtime_ns == stamp
    source.write_text(ADD.replace("a + b", "a + b + 1"), encoding="utf-8")
    assert build(source).add(2, 3) == 6
    assert len(list((tmp_path / "cache" / "native").iterdir())) == 2


def test_without_a_compiler_or_with_a_broken_source_there_is_none(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(native.SWITCH, "0")
    assert build(source) is None
    monkeypatch.delenv(native.SWITCH)
    monkeypatch.setenv("CXX", str(tmp_path / "no-such-compiler"))
    assert build(source) is None
    monkeypatch.delenv("CXX")
    source.write_text("int add(", encoding="utf-8")
    assert build(source) is None
    assert not list((tmp_path / "cache").rglob("*.so"))
    monkeypatch.setattr("mspeckv.native.shutil.which", lambda _: None)
    assert build(source) is None


def test_a_cache_that_cannot_be_written_is_no_error(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    monkeypatch.setenv("MSPECKV_CACHE", str(tmp_path / "file"))
    assert build(source) is None
