"""Attention straight over codes is attention over the floats that they stand for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch.nn.functional import scaled_dot_product_attention

from mspeckv import KVPolicy, Speculation, generate
from mspeckv.accelerate import packed_attention as packed
from mspeckv.accelerate.nibble import CoarseCache, NibblePlanes
from mspeckv.accelerate.packed_attention import Packed
from mspeckv.api import engine_of, hooks_for
from mspeckv.context import Kernels, Pass, carrying
from mspeckv.decoding.attention import attend
from mspeckv.kv.blocks import Arrived
from mspeckv.kv.floats import Floats
from mspeckv.kv.full import FullCache
from mspeckv.kv.link import open_link
from mspeckv.kv.quantize import BlockCodec
from mspeckv.kv.scores import causal_mask
from mspeckv.kv.shape import KVShape
from mspeckv.kv.tier1 import Tier1Room
from mspeckv.record import Ledger, clock_of
from mspeckv.settings import Width
from tests.random_models import block_codec, random_pair

needs_kernel = pytest.mark.skipif(
    packed.kernel() is None, reason="no C++ compiler that can build the kernel"
)
WIDTHS: list[Width] = [8, 4, 2]
WAYS = ["join", "coarse", "coarse whole"]
"""How nibble planes are read: both, the upper alone, and the upper nibbles of whole codes."""
CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Threads that wait for each other between short calls take long where cores are few."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def case(
    codec: BlockCodec, blocks: int, tail: int, rows: int, seed: int = 0
) -> tuple[torch.Tensor, torch.Tensor, Packed]:
    """Queries ``[1, H, rows, D]``, all keys and values as floats, and both packed with a tail."""
    torch.manual_seed(seed)
    length, heads, dim = blocks * codec.block, codec.heads, codec.dim
    query = torch.randn(1, heads, rows, dim)
    # as in a cache, which has room for more: NaN there would show
    room = torch.full((2, 1, heads, tail + 9, dim), float("nan"))
    key, value = torch.randn(2, 1, heads, length + tail, dim)
    records = codec.encode(key[:, :, :length], value[:, :, :length])
    codec.decode(records, key[:, :, :length], value[:, :, :length])
    room[0, :, :, :tail], room[1, :, :, :tail] = key[:, :, length:], value[:, :, length:]
    shown = Packed(room[0, :, :, :tail], room[1, :, :, :tail], Arrived(records, codec))
    return query, torch.stack([key, value]), shown


def planes_of(shown: Packed, way: str) -> Packed:
    """The same int8 blocks as nibble planes, read in one of their ways."""
    blocks = shown.blocks
    assert isinstance(blocks.codec, BlockCodec)
    planes = NibblePlanes(blocks.codec)
    given = planes.split(blocks.records)
    if way != "join":
        given = (given[0],) if way == "coarse" else (blocks.records,)  # type: ignore[assignment]
    return replace(shown, blocks=getattr(planes, way.removesuffix(" whole"))(*given))


def run_kernel(
    query: torch.Tensor, shown: Packed, length: int, scale: float | None
) -> torch.Tensor:
    """The kernel, over queries whose groups are rows already."""
    kernel = packed.kernel()
    assert kernel is not None
    return packed._run(kernel, query, shown, length, scale)


@needs_kernel
@settings(max_examples=120, deadline=None)
@given(
    heads=st.integers(1, 4),
    groups=st.integers(1, 4),
    dim=st.sampled_from([8, 16, 40, 64, 96]),
    block=st.sampled_from([8, 24, 64]),
    group=st.sampled_from([8, 16, 64]),
    bits=st.tuples(st.sampled_from(WIDTHS), st.sampled_from(WIDTHS)),
    blocks=st.integers(0, 20),
    length=st.integers(1, 20),
    settled=st.integers(0, 80),
    scale=st.one_of(st.none(), st.floats(-4, 4, width=32)),
    threads=st.integers(1, 4),
    way=st.sampled_from([None, *WAYS]),
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
    threads: int,
    way: str | None,
) -> None:
    torch.set_num_threads(threads)
    codec = block_codec(heads, dim, block, 8 if way else bits, group, torch.float32)
    assume(packed.usable(codec, CPU))
    query, whole, shown = case(codec, blocks, settled + length, groups * length)
    if way:
        shown, end = planes_of(shown, way), blocks * block
        shown.blocks.decode((whole[0, :, :, :end], whole[1, :, :, :end]))
    out = run_kernel(query, shown, length, scale)
    past = whole.shape[3] - length
    # in float64: at large scales the stock kernel's own rounding in float32 is as large as allowed
    exact, key, value = query.double(), whole[0].double(), whole[1].double()
    mask = causal_mask(length, past, groups, exact)
    want = scaled_dot_product_attention(exact, key, value, attn_mask=mask, scale=scale)
    torch.testing.assert_close(out.double(), want, rtol=1e-4, atol=1e-4)


def freed(x: torch.Tensor) -> torch.Tensor:
    """A tensor whose memory was given back, as sharded weights' is."""
    x = x.clone()
    x.untyped_storage().resize_(0)
    return x


Spoil = Callable[[torch.Tensor], torch.Tensor]
SAME: dict[str, Spoil] = {
    "offset": lambda x: torch.cat([x.flatten()[:3], x.flatten()])[3:].view(x.shape),
    "turned": lambda x: x.transpose(-1, -2).contiguous().transpose(-1, -2),
    "spread": lambda x: x.repeat_interleave(2, -1)[..., ::2],
    "roomy": lambda x: torch.cat([x, x], -2)[..., : x.shape[-2], :],
}
"""The same numbers, otherwise in memory: computed right, or refused."""
OTHER: dict[str, Spoil] = {
    "float64": lambda x: x.double(),
    "bfloat16": lambda x: x.bfloat16(),
    "float16": lambda x: x.half(),
    "int32": lambda x: x.int(),
    "meta": lambda x: x.to("meta"),
    "sparse": lambda x: x.to_sparse(),
    "negated lazily": torch._neg_view,
    "two of them": lambda x: torch.cat([x, x]),
    "flat": lambda x: x.flatten(),
    "number": lambda x: x.flatten()[0],
    "narrow": lambda x: x[..., :-1],
    "empty": lambda x: x[:0],
    "freed": freed,
}
"""What is no such part: refused."""


@needs_kernel
@pytest.mark.parametrize("name", ["query", "key", "value", "records", "lower"])
@pytest.mark.parametrize("kind", [*SAME, *OTHER])
def test_a_part_that_is_something_else_is_refused_or_read_right(name: str, kind: str) -> None:
    bits: tuple[Width, Width] = (8, 8) if name == "lower" else (4, 8)
    query, _, shown = case(block_codec(2, 16, 8, bits, 8, torch.float32), 3, 5, 6)
    if name == "lower":
        shown = planes_of(shown, "join")
    own = {**vars(shown), **vars(shown.blocks), "query": query}
    parts = {part: own[part] for part in ("query", "key", "value", "records", name)}

    def read(parts: dict[str, torch.Tensor]) -> torch.Tensor:
        blocks = replace(shown.blocks, records=parts["records"], lower=parts.get("lower"))
        again = replace(shown, key=parts["key"], value=parts["value"], blocks=blocks)
        return run_kernel(parts["query"], again, 3, None)

    if name == "records" and kind in {"two of them", "empty"}:
        return  # there may be any number
    spoilt = {**parts, name: {**SAME, **OTHER}[kind](parts[name])}
    if kind in OTHER:
        with pytest.raises(ValueError, match=name):
            read(spoilt)
        return
    try:
        out = read(spoilt)
    except ValueError:
        # a query's order is mended; the others are as caches make them
        assert name != "query"
    else:
        assert torch.equal(out, read(parts))


@needs_kernel
@pytest.mark.parametrize(
    ("length", "rows", "refused"),
    [(0, 6, "length"), (-1, 6, "length"), (4, 6, "rows"), (6, 6, "tail"), (2**40, 6, "length")],
)
def test_a_length_that_the_parts_do_not_have_is_refused(
    length: int, rows: int, refused: str
) -> None:
    query, _, shown = case(block_codec(2, 16, 8, 8, 8, torch.float32), 3, 5, rows)
    with pytest.raises(ValueError, match=refused):
        run_kernel(query, shown, length, None)


@needs_kernel
@settings(max_examples=40, deadline=None)
@given(
    heads=st.integers(1, 3),
    dim=st.integers(1, 24).map(lambda half: 2 * half),
    block=st.sampled_from([8, 12, 20, 64]),
    group=st.integers(1, 48),
    bits=st.tuples(st.sampled_from(WIDTHS), st.sampled_from(WIDTHS)),
)
def test_a_codec_that_the_kernel_cannot_read_is_refused(
    heads: int, dim: int, block: int, group: int, bits: tuple[Width, Width]
) -> None:
    codec = block_codec(heads, dim, block, bits, group, torch.float32)
    query, whole, shown = case(codec, 2, 3, 1)
    if packed.usable(codec, CPU):
        out = run_kernel(query, shown, 1, None)
        want = scaled_dot_product_attention(query, *whole)
        torch.testing.assert_close(out, want, rtol=1e-4, atol=1e-4)
    else:
        with pytest.raises(ValueError, match="dim|block|group"):
            run_kernel(query, shown, 1, None)


@needs_kernel
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("name", ["query", "key", "value"])
def test_what_is_no_number_is_not_lost(name: str, bad: float) -> None:
    query, whole, shown = case(block_codec(1, 16, 8, 8, 8, torch.float32), 3, 5, 1)
    {"query": query, "key": shown.key, "value": shown.value}[name][0, 0, 0, 0] = bad
    both = zip(whole, (shown.key, shown.value), strict=True)
    floats = [torch.cat([all_of_it[:, :, :24], tail], 2) for all_of_it, tail in both]
    out = run_kernel(query, shown, 1, None)
    want = scaled_dot_product_attention(query, floats[0], floats[1])
    assert bool(want.isfinite().all()) == bool(out.isfinite().all())


@needs_kernel
def test_scores_far_apart_do_no_harm() -> None:
    codec = block_codec(2, 16, 8, 8, 16, torch.float32)
    query, whole, shown = case(codec, 9, 5, 2)
    for scale in (300.0, -300.0, 0.0):
        out = run_kernel(query, shown, 1, scale)
        want = scaled_dot_product_attention(query, whole[0], whole[1], scale=scale)
        torch.testing.assert_close(out, want, rtol=1e-4, atol=1e-4)


@needs_kernel
def test_planes_give_the_bits_of_what_they_split() -> None:
    query, _, shown = case(block_codec(3, 64, 64, 8, 64, torch.float32), 17, 40, 27)
    whole, joined, upper, nibbles = (
        run_kernel(query, planes_of(shown, way) if way else shown, 9, None) for way in ("", *WAYS)
    )
    assert torch.equal(whole, joined)
    assert torch.equal(upper, nibbles)
    assert not torch.equal(whole, upper)


@needs_kernel
@pytest.mark.parametrize(("bits", "coarse"), [((4, 8), False), ((8, 2), False), ((8, 2), True)])
def test_planes_of_what_is_no_int8_are_refused(bits: tuple[Width, Width], coarse: bool) -> None:
    query, _, shown = case(block_codec(2, 16, 8, bits, 8, torch.float32), 3, 5, 6)
    lower = None if coarse else torch.zeros(3, 2 * 8 * 16, dtype=torch.uint8)
    spoilt = replace(shown, blocks=replace(shown.blocks, lower=lower, coarse=coarse))
    with pytest.raises(ValueError, match="planes"):
        run_kernel(query, spoilt, 3, None)


@needs_kernel
@pytest.mark.parametrize("way", ["", *WAYS])
def test_a_row_is_the_same_bits_in_any_pass(way: str) -> None:
    codec = block_codec(3, 64, 64, 8 if way else 4, 64, torch.float32)
    length, groups = 9, 3
    query, _, shown = case(codec, 17, 40, groups * length)
    shown = planes_of(shown, way) if way else shown
    together = run_kernel(query, shown, length, None).unflatten(2, (groups, -1))
    for i in range(length):
        alone = query.unflatten(2, (groups, -1))[:, :, :, i].contiguous()
        end = 40 - length + i + 1
        cut = replace(shown, key=shown.key[:, :, :end], value=shown.value[:, :, :end])
        out = run_kernel(alone, cut, 1, None)
        assert torch.equal(out, together[:, :, :, i])


def test_what_is_read_as_it_is() -> None:
    have = packed.kernel() is not None
    assert packed.usable(block_codec(2, 64, 64, 8, 64, torch.float32), CPU) is have
    for codec in (
        block_codec(2, 64, 64, 8, 64, torch.bfloat16),
        block_codec(2, 64, 64, "full", 64, torch.float32),
        block_codec(2, 64, 64, (8, "full"), 64, torch.float32),
        block_codec(2, 20, 64, 8, 64, torch.float32),
    ):
        assert not packed.usable(codec, CPU)
    assert not packed.usable(block_codec(2, 64, 64, 8, 64, torch.float32), torch.device("cuda"))


def filled(policy: KVPolicy, tokens: int = 200) -> FullCache:
    """A cache of one layer holding noise."""
    shape = KVShape(1, 2, 16, torch.float32)
    link = open_link(Ledger(clock_of(CPU)), None, CPU)
    link.__enter__()
    cache = FullCache(shape, policy, tokens + 40, link, CPU, packed.show_packed)
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
        (KVPolicy(8, nibble=True), True),
        (KVPolicy("full"), False),
        (KVPolicy(on_chip=1), False),
    ],
    ids=["resident", "offloaded", "nibble", "lossless", "on-chip"],
)
def test_layers_hand_over_records_when_they_have_any(policy: KVPolicy, handed: bool) -> None:
    torch.manual_seed(0)
    cache = filled(policy)
    new = torch.randn(2, 1, 2, 3, 16)
    with carrying(Pass(attend)) as now:
        key, value = cache.update(*new, 0)
    shown = now.shown[0]
    assert shown.key is key
    assert isinstance(shown, Packed) is handed
    assert shown.tokens == 203
    assert torch.equal(shown.newest(3)[0], new[0])
    key, value = (part.clone() for part in shown.whole())
    shown.release()
    assert key.shape[2] == value.shape[2] == 203
    cache.settle(200)
    cache.begin_pass()
    again = cache.layers[0].append(*new).whole()
    assert torch.equal(key, again[0])
    assert torch.equal(value, again[1])


@needs_kernel
@pytest.mark.parametrize("resident", [0, 1])
def test_tier_1_reads_upper_nibbles_as_they_are(resident: int) -> None:
    torch.manual_seed(0)
    full = filled(KVPolicy(8, resident=resident, nibble=True))
    room = Tier1Room(full.shape, Speculation(tier1="nibble"), 200, 40)
    coarse, new = CoarseCache(room, full, CPU), torch.randn(2, 1, 2, 3, 16)
    with carrying(Pass(attend)) as now:
        coarse.update(*new, 0)
    shown = now.shown[0]
    assert isinstance(shown, Packed)
    assert shown.tokens == coarse.length == 203
    straight = [part.clone() for part in shown.whole()]
    shown.release()
    for part in full.scratch.whole:
        part.fill_(float("nan"))
    for one, other in zip(straight, coarse.layers[0].read(203).whole(), strict=True):
        assert torch.equal(one, other)


@needs_kernel
def test_without_a_kernel_of_its_own_a_kind_is_read_as_floats() -> None:
    cache, module = filled(KVPolicy(4, resident=1)), torch.nn.Module()
    module.layer_idx = 0  # type: ignore[assignment]  # any attribute will do
    new, query = torch.randn(2, 1, 2, 3, 16), torch.randn(1, 4, 3, 16)
    found = []
    each: tuple[Kernels, ...] = ({}, {Packed: packed.attend_packed})
    for kernels in each:
        with carrying(Pass(attend, kernels=kernels)) as now:
            key, value = cache.update(*new, 0)
            assert isinstance(now.shown[0], Packed)
            found.append(attend(module, query, key, value, None)[0])
        cache.settle(200)
    torch.testing.assert_close(*found, rtol=1e-4, atol=1e-4)


@needs_kernel
def test_long_passes_are_unpacked() -> None:
    cache = filled(KVPolicy(4, resident=1), 170)
    many = packed.MOST_TOKENS + 1
    with carrying(Pass(attend)) as now:
        key, _ = cache.update(*torch.randn(2, 1, 2, many, 16), 0)
    assert isinstance(now.shown[0], Floats)
    assert key.shape[2] == 170 + many


@needs_kernel
@pytest.mark.parametrize("method", ["autoregressive", "vanilla", "mspeckv"])
@pytest.mark.parametrize(
    "policy",
    [
        KVPolicy(8, resident=4),
        KVPolicy(4, on_chip=1, resident=1),
        KVPolicy(8, residency="lru"),
        KVPolicy(8, on_chip=1, resident=1, nibble=True),
    ],
    ids=["resident", "mixed", "lru", "nibble"],
)
def test_runs_give_the_tokens_they_give_unpacked(
    method: str, policy: KVPolicy, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair = random_pair()
    prompt = [(7 * i * i + i) % 64 for i in range(300)]
    tier1 = "nibble" if policy.nibble else "retrieval"
    guess = Speculation(budget=64, gamma=4, draft_gamma=2, refresh=8, tier1=tier1)

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
    engine = engine_of(pair)
    unpacked = hooks_for(pair, ("split_keys", "weight_copies", "nibble"))
    monkeypatch.setattr(engine, "hooks", unpacked)
    calls.clear()
    assert run() == straight
    assert not calls


def test_a_kernel_that_is_wrong_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packed, "_run", lambda kernel, query, *_: torch.zeros_like(query))
    assert not packed._agrees(object())  # type: ignore[arg-type]
